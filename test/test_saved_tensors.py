"""What torch.func refuses inside grad: checkpointing, saved-tensor hooks, module hooks."""

import pytest
import torch
from _reference import assert_equal_trees, autograd_grad, randn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import functx


def block(x, weight):
    return (weight @ x).tanh().exp()


def plain(x, weight):
    return block(block(x, weight), weight).sum()


def checkpointed(x, weight):
    y = checkpoint(block, x, weight, use_reentrant=False)
    return checkpoint(block, y, weight, use_reentrant=False).sum()


def saved_on_cpu(x, weight):
    with save_on_cpu():
        return plain(x, weight)


def packed_and_unpacked(x, weight):
    """The hooks change the representation of what is saved, so gradients show that both ran."""
    with saved_tensors_hooks(lambda t: (t.clone(), "packed"), lambda packed: packed[0]):
        return plain(x, weight)


def checkpointed_with_early_stop_off(x, weight):
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        return checkpointed(x, weight)


VARIANTS = [checkpointed, saved_on_cpu, packed_and_unpacked, checkpointed_with_early_stop_off]
each = pytest.mark.parametrize("f", VARIANTS, ids=lambda f: f.__name__)


@pytest.fixture
def sample():
    return randn(4, 3), randn(3, 3)


def per_sample(xs, weight):
    pairs = [autograd_grad(plain, x, weight) for x in xs]
    return tuple(torch.stack(column) for column in zip(*pairs, strict=True))


@each
def test_grad(f, sample):
    xs, weight = sample
    actual = functx.grad(f, argnums=(0, 1))(xs[0], weight)
    assert_equal_trees(actual, autograd_grad(plain, xs[0], weight))


@each
def test_vmap_of_grad(f, sample):
    xs, weight = sample
    actual = functx.vmap(functx.grad(f, argnums=(0, 1)), in_dims=(0, None))(xs, weight)
    assert_equal_trees(actual, per_sample(xs, weight))


@each
def test_grad_of_vmap(f, sample):
    xs, weight = sample

    def loss(xs, weight):
        return functx.vmap(f, in_dims=(0, None))(xs, weight).square().sum()

    def reference(xs, weight):
        return sum(plain(x, weight) ** 2 for x in xs)

    actual = functx.grad(loss, argnums=(0, 1))(xs, weight)
    assert_equal_trees(actual, autograd_grad(reference, xs, weight))


@each
def test_jacrev_of_a_vector_function(f, sample):
    xs, weight = sample
    actual = functx.jacrev(lambda xs: functx.vmap(f, in_dims=(0, None))(xs, weight))(xs)
    expected = torch.zeros(4, 4, 3, dtype=xs.dtype)
    expected[range(4), range(4)] = per_sample(xs, weight)[0]
    assert_close(actual, expected)


@each
def test_vjp(f, sample):
    xs, weight = sample
    output, pullback = functx.vjp(f, xs[0], weight)
    assert_close(output, plain(xs[0], weight))
    assert_equal_trees(pullback(torch.ones_like(output)), autograd_grad(plain, xs[0], weight))


@pytest.mark.parametrize("f", [saved_on_cpu, packed_and_unpacked], ids=lambda f: f.__name__)
def test_grad_of_grad(f, sample):
    xs, weight = sample

    def norm(gradient):
        return lambda x: gradient(x).square().sum()

    def plain_gradient(x):
        return torch.autograd.grad(plain(x, weight), x, create_graph=True)[0]

    actual = functx.grad(norm(functx.grad(lambda x: f(x, weight))))(xs[0])
    assert_close(actual, autograd_grad(norm(plain_gradient), xs[0])[0])


def test_hooks_are_called_with_what_is_saved():
    log = []

    def f(x):
        with saved_tensors_hooks(
            lambda t: (log.append(("pack", tuple(t.shape))), t)[1],
            lambda t: (log.append(("unpack", tuple(t.shape))), t)[1],
        ):
            return x.sin().sum()

    x = randn(4, 3)
    assert_close(functx.grad(f)(x[0]), x[0].cos())
    assert log == [("pack", (3,)), ("unpack", (3,))]
    log.clear()
    assert_close(functx.vmap(functx.grad(f))(x), x.cos())
    assert log == [("pack", (3,)), ("unpack", (3,))]


def test_hooks_outside_the_transform_see_its_tape_too():
    count = []
    x = randn(3)
    with saved_tensors_hooks(lambda t: (count.append(1), t)[1], lambda t: t):
        assert_close(functx.grad(lambda x: x.exp().sum())(x), x.exp())
    assert count


def test_a_checkpoint_runs_the_function_twice():
    calls = []

    def f(x):
        calls.append(1)
        return x.sin()

    x = randn(4, 3)
    gradient = functx.grad(lambda x: checkpoint(f, x, use_reentrant=False).sum())
    assert_close(functx.vmap(gradient)(x), x.cos())
    assert len(calls) == 2


def test_checkpoint_sequential_and_nested_checkpoints():
    module = torch.nn.Sequential(*[torch.nn.Linear(3, 3) for _ in range(4)], torch.nn.Tanh())
    module.double()
    x = randn(4, 3)

    def nested(x):
        return checkpoint(
            lambda x: checkpoint(module, x, use_reentrant=False) * x, x, use_reentrant=False
        ).sum()

    def sequential(x):
        return checkpoint_sequential(module, 2, x, use_reentrant=False).sum()

    for f, reference in ((nested, lambda x: (module(x) * x).sum()), (sequential, module)):
        expected = torch.stack([autograd_grad(lambda x, r=reference: r(x).sum(), e)[0] for e in x])
        assert_close(functx.vmap(functx.grad(f))(x).detach(), expected)


def test_checkpoint_with_dropout_repeats_its_mask():
    x = torch.ones(50, dtype=torch.float64)

    def f(x):
        return torch.nn.functional.dropout(x.exp(), 0.5)

    def loss(x):
        y = checkpoint(f, x, use_reentrant=False)
        return y.sum(), y

    gradient, output = functx.grad(loss, has_aux=True)(x)
    assert_close(gradient, output)
    assert 0 < (output == 0).sum() < 50
    batched = functx.vmap(functx.grad(loss, has_aux=True), randomness="different")
    gradients, outputs = batched(x.expand(3, 50))
    assert_close(gradients, outputs)
    assert outputs.unique(dim=0).shape[0] == 3


TRANSFORMS = {
    "grad": lambda F, f, xs, w: F.grad(f)(xs[0], w),
    "grad of weights": lambda F, f, xs, w: F.grad(f, argnums=1)(xs[0], w),
    "vmap(grad)": lambda F, f, xs, w: F.vmap(F.grad(f), (0, None))(xs, w),
    "vmap(grad) of weights": lambda F, f, xs, w: F.vmap(F.grad(f, 1), (0, None))(xs, w),
    "grad(vmap)": lambda F, f, xs, w: F.grad(
        lambda xs, w: F.vmap(f, (0, None))(xs, w).sum(), argnums=(0, 1)
    )(xs, w),
    "jvp": lambda F, f, xs, w: F.jvp(lambda w: f(xs[0], w), (w,), (w,)),
    "jvp(grad)": lambda F, f, xs, w: F.jvp(lambda w: F.grad(f)(xs[0], w), (w,), (w,)),
    "grad(jvp)": lambda F, f, xs, w: F.grad(
        lambda w: F.jvp(lambda x: f(x, w), (xs[0],), (xs[1],))[1]
    )(w),
    "hessian": lambda F, f, xs, w: F.hessian(f, argnums=(0, 1))(xs[0], w),
    "vjp, pulled later": lambda F, f, xs, w: F.vjp(f, xs[0], w)[1](
        torch.tensor(2.0, dtype=w.dtype)
    ),
}
BLOCKS = {
    "of arguments": lambda x, w: checkpoint(block, x, w, use_reentrant=True),
    "of captured weights": lambda x, w: checkpoint(lambda x: block(x, w), x, use_reentrant=True),
    "twice": lambda x, w: checkpoint(
        lambda x: checkpoint(block, x, w, use_reentrant=True), x, use_reentrant=True
    ),
    "in one that is not": lambda x, w: checkpoint(
        lambda x: checkpoint(block, x, w, use_reentrant=True), x, use_reentrant=False
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("checkpointed", BLOCKS.values(), ids=BLOCKS)
def test_reentrant_checkpoint(sample, transform, checkpointed):
    """What torch.func computes without a checkpoint."""
    plain = transform(torch.func, lambda x, w: block(x, w).sin().sum(), *sample)
    actual = transform(functx, lambda x, w: checkpointed(x, w).sin().sum(), *sample)
    assert_equal_trees(actual, plain)


def test_reentrant_checkpoint_leaves_the_gradients_of_parameters_alone(sample):
    xs, weight = sample
    weight = weight.clone().requires_grad_()
    f = lambda x: checkpoint(lambda x: block(x, weight), x, use_reentrant=True).sum()
    gradient = functx.grad(f)(xs[0])
    expected = autograd_grad(lambda x: block(x, sample[1]).sum(), xs[0])[0]
    assert_close(gradient.detach(), expected)
    assert weight.grad is None


def test_reentrant_checkpoint_inside_vmap_that_is_recomputed_after_it_has_returned(sample):
    expected = autograd_grad(lambda xs, w: sum(block(x, w).sum() for x in xs), *sample)

    def f(x, weight):
        inner = lambda x: checkpoint(block, x, weight, use_reentrant=True)
        return checkpoint(inner, x, use_reentrant=False).sum()

    leaves = [t.clone().requires_grad_() for t in sample]
    functx.vmap(f, in_dims=(0, None))(*leaves).sum().backward()
    assert_equal_trees(tuple(leaf.grad for leaf in leaves), expected)


def gradients_of_a_checkpoint_around_a_transform(xs, weight, use_reentrant):
    def gradients(xs, weight):
        return functx.vmap(functx.grad(plain), in_dims=(0, None))(xs, weight)

    leaves = [t.clone().requires_grad_() for t in (xs, weight)]
    checkpoint(gradients, *leaves, use_reentrant=use_reentrant).square().sum().backward()
    return tuple(leaf.grad for leaf in leaves)


def expected_around_a_transform(xs, weight):
    def reference(xs, weight):
        rows = [torch.autograd.grad(plain(x, weight), x, create_graph=True)[0] for x in xs.unbind()]
        return torch.stack(rows).square().sum()

    return autograd_grad(reference, xs, weight)


def test_reentrant_checkpoint_around_a_transform_under_backward(sample):
    actual = gradients_of_a_checkpoint_around_a_transform(*sample, use_reentrant=True)
    assert_equal_trees(actual, expected_around_a_transform(*sample))


def gradients_of_a_checkpoint_inside_vmap(xs, weight, use_reentrant):
    def f(x, weight):
        return checkpoint(block, x, weight, use_reentrant=use_reentrant).sum()

    leaves = [t.clone().requires_grad_() for t in (xs, weight)]
    functx.vmap(f, in_dims=(0, None))(*leaves).sum().backward()
    return tuple(leaf.grad for leaf in leaves)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint_inside_vmap_under_backward(sample, use_reentrant):
    expected = autograd_grad(lambda xs, w: sum(block(x, w).sum() for x in xs), *sample)
    assert_equal_trees(gradients_of_a_checkpoint_inside_vmap(*sample, use_reentrant), expected)


def right_or_refused(compute, expected):
    """What would need a transform that has returned may be refused, but never be wrong."""
    try:
        actual = compute()
    except RuntimeError:
        return
    assert_equal_trees(actual, expected)


def test_checkpoint_around_a_transform_under_backward_is_never_wrong(sample):
    """Its hooks see the tape of the inner grad too, whose backward then runs the function again."""
    right_or_refused(
        lambda: gradients_of_a_checkpoint_around_a_transform(*sample, use_reentrant=False),
        expected_around_a_transform(*sample),
    )
    assert functx._C.level_depth() == 0
