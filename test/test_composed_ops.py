"""vmap with jvp and vjp, in either order, for every differentiable operator of the table."""

import torch
from _op_table import every_forward_op, every_reverse_op
from _ops import STEP
from _reference import (
    assert_equal_trees,
    autograd_vjp,
    batching_patterns,
    directional_derivative,
    loop_vmap,
    stack_trees,
)
from test_jvp_ops import tangents_for

import functx

BATCH = 3


def batched_problems(op):
    """For each pattern of batched real arguments: the function of the real arguments, their
    samples, and the pattern. Other arguments are constants."""
    constants = op.samples()
    positions = op.real_positions
    f = op.restricted(constants, positions)
    for pattern in batching_patterns(len(positions)):
        flags = [False] * len(op.args)
        for position, flag in zip(positions, pattern, strict=True):
            flags[position] = flag
        if op.writes_into_what_is_shared(flags):
            continue
        samples = op.samples(flags, batch=(BATCH,))
        yield f, [samples[i] for i in positions], pattern


def dims(pattern):
    return tuple(0 if flag else None for flag in pattern)


def example(args, pattern, i):
    return [x[i] if flag else x for x, flag in zip(args, pattern, strict=True)]


@every_forward_op
def test_vmap_of_jvp(op):
    for f, primals, pattern in batched_problems(op):
        tangents = tangents_for(primals)

        def derivative(*args, f=f):
            half = len(args) // 2
            return functx.jvp(f, args[:half], args[half:])

        actual = functx.vmap(derivative, dims(pattern) * 2)(*primals, *tangents)
        expected = []
        for i in range(BATCH):
            p, t = example(primals, pattern, i), example(tangents, pattern, i)
            expected.append((f(*p), directional_derivative(f, p, t, STEP)))
        assert_equal_trees(actual, stack_trees(expected))


@every_forward_op
def test_vmap_of_jvp_over_tangents_only(op):
    """What jacfwd does: one primal, a batch of tangents."""
    samples = op.samples()
    positions = op.real_positions
    f = op.restricted(samples, positions)
    primals = tuple(samples[i] for i in positions)
    tangents = tangents_for([p.expand(BATCH, *p.shape) for p in primals])
    actual = functx.vmap(lambda *t: functx.jvp(f, primals, t)[1])(*tangents)
    expected = [
        directional_derivative(f, primals, [t[i] for t in tangents], STEP) for i in range(BATCH)
    ]
    assert_equal_trees(actual, stack_trees(expected))


@every_reverse_op
def test_vmap_of_vjp(op):
    """Gradients for each example, also of arguments that all examples share."""
    for f, primals, pattern in batched_problems(op):
        cotangents = tangents_for(loop_vmap(f, dims(pattern))(*primals))

        count = len(primals)

        def pulled_back(*args, f=f, count=count):
            outputs, pullback = functx.vjp(f, *args[:count])
            return outputs, pullback(tuple(args[count:]))

        in_dims = dims(pattern) + (0,) * len(cotangents)
        actual = functx.vmap(pulled_back, in_dims)(*primals, *cotangents)
        expected = []
        for i in range(BATCH):
            p = example(primals, pattern, i)
            expected.append((f(*p), autograd_vjp(f, p, tuple(c[i] for c in cotangents))))
        assert_equal_trees(actual, stack_trees(expected))


@every_reverse_op
def test_vjp_of_vmap(op):
    """The batched value is what autograd tracks; shared arguments get the sum of the gradients."""
    for f, primals, pattern in batched_problems(op):
        reference = loop_vmap(f, dims(pattern))
        cotangents = tuple(tangents_for(reference(*primals)))
        outputs, pullback = functx.vjp(functx.vmap(f, dims(pattern)), *primals)
        assert_equal_trees(outputs, reference(*primals))
        assert_equal_trees(pullback(cotangents), autograd_vjp(reference, primals, cotangents))


@every_forward_op
def test_jvp_of_vmap(op):
    for f, primals, pattern in batched_problems(op):
        reference = loop_vmap(f, dims(pattern))
        tangents = tangents_for(primals)
        actual = functx.jvp(functx.vmap(f, dims(pattern)), tuple(primals), tuple(tangents))
        expected = (
            reference(*primals),
            directional_derivative(reference, primals, tangents, STEP),
        )
        assert_equal_trees(actual, expected)


@every_reverse_op
def test_jvp_of_vjp(op):
    """Forward over reverse: the Hessian-vector product of a weighted sum of the outputs."""
    samples = op.samples()
    positions = op.real_positions
    f = op.restricted(samples, positions)
    primals = [samples[i] for i in positions]
    tangents = tangents_for(primals)
    cotangents = tuple(tangents_for(f(*primals)))

    def gradient(*args):
        return functx.vjp(f, *args)[1](cotangents)

    def reference(*args):
        return autograd_vjp(f, args, cotangents)

    actual = functx.jvp(gradient, tuple(primals), tuple(tangents))
    expected = (reference(*primals), directional_derivative(reference, primals, tangents, STEP))
    assert_equal_trees(actual, expected)


def test_the_table_is_as_large_as_it_says():
    from _op_table import DIFFERENTIABLE, OPS

    assert len(OPS) > 600
    assert len(DIFFERENTIABLE) > 500
    assert all(torch.is_tensor(x) for op in OPS for x in op.samples())
