"""Operators of the user's own under vmap: rules given to PyTorch, rules given to functx, the loop.

The operators work on numpy arrays, so they fail on anything but the values they are meant for.
"""

import gc
import itertools
import re
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from _reference import assert_equal_trees, autograd_grad, loop_vmap, randn
from torch import Tensor
from torch.testing import assert_close

import functx
from functx import grad, jacrev, register_batching_rule, vjp, vmap

counter = itertools.count()


@pytest.fixture
def namespace():
    """The name of a library for this test alone."""
    name = f"functx_custom_{next(counter)}"
    with torch.library._scoped_library(name, "FRAGMENT"):
        yield name


@pytest.fixture
def no_loop():
    """Fails if an operator runs in a loop."""
    before = functx._C.warn_on_loop_fallback(True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*loop over the examples.*")
        yield
    functx._C.warn_on_loop_fallback(before)


looping = pytest.mark.filterwarnings("ignore:.*loop over the examples.*")


class Recorder:
    """A rule that notes what it was called with."""

    def __init__(self, rule):
        self.rule = rule
        self.calls = []

    def __call__(self, info, in_dims, *args, **kwargs):
        self.calls.append((info, in_dims, args, kwargs))
        return self.rule(info, in_dims, *args, **kwargs)


def in_numpy(f):
    """`f` for arrays as a function of tensors."""

    def call(*tensors):
        return torch.from_numpy(np.array(f(*(t.detach().numpy() for t in tensors))))

    return call


def define_product(namespace):
    """x * y with broadcasting, and a derivative written with the operator itself."""

    @torch.library.custom_op(f"{namespace}::product", mutates_args=())
    def product(x: Tensor, y: Tensor) -> Tensor:
        return in_numpy(np.multiply)(x, y)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def backward(ctx, gradient):
        x, y = ctx.saved_tensors
        return product(gradient, y), product(gradient, x)

    product.register_autograd(backward, setup_context=setup)
    return product


def product_rule(info, in_dims, x, y):
    """Batch dimension last, to see that out_dims counts."""
    x, y = (
        t.unsqueeze(-1) if d is None else t.movedim(d, -1)
        for t, d in zip((x, y), in_dims, strict=True)
    )
    return x * y, -1


def with_rule(how, namespace):
    """The product with its rule, registered in one of the ways, which records its calls."""
    product = define_product(namespace)
    rule = Recorder(product_rule)
    if how == "method":
        product.register_vmap(rule)
    elif how == "torch.library":
        torch.library.register_vmap(product, rule)
    elif how == "name":
        torch.library.register_vmap(f"{namespace}::product", rule)
    else:
        register_batching_rule(product, rule)
    return product, rule


every_way = pytest.mark.parametrize("how", ["method", "torch.library", "name", "functx"])
every_batching = pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 0), (-1, 1)])


def product_inputs(in_dims):
    return [
        randn(4) if dim is None else randn(4, 3).movedim(1, 0).movedim(0, dim) for dim in in_dims
    ]


# ---- rules given to PyTorch, and to functx ---------------------------------------------------


@every_way
@every_batching
@pytest.mark.usefixtures("no_loop")
def test_the_rule_batches_the_operator(how, in_dims, namespace):
    product, rule = with_rule(how, namespace)
    x, y = product_inputs(in_dims)
    assert_close(vmap(product, in_dims)(x, y), loop_vmap(torch.mul, in_dims)(x, y))
    assert len(rule.calls) == 1


@every_way
def test_what_a_rule_is_told(how, namespace):
    product, rule = with_rule(how, namespace)
    x, y = randn(3, 4), randn(4)
    vmap(product, (0, None), randomness="different")(x, y)
    ((info, in_dims, args, kwargs),) = rule.calls
    assert (info.batch_size, info.randomness) == (3, "different")
    assert in_dims == (0, None)
    assert isinstance(in_dims, tuple)
    assert_close(args[0], x)
    assert args[1] is y
    assert kwargs == {}


@every_way
def test_the_rule_is_not_called_if_nothing_is_batched(how, namespace):
    product, rule = with_rule(how, namespace)
    x, y = randn(4), randn(4)
    assert_close(vmap(lambda _: product(x, y))(randn(3)), torch.stack([x * y] * 3))
    # Here the operands belong to the level, but are the same for all examples.
    actual = vmap(lambda _: grad(lambda x: product(x, y).sum())(x))(randn(3))
    assert_close(actual, torch.stack([y] * 3))
    assert all(any(d is not None for d in in_dims) for _, in_dims, _, _ in rule.calls)


@every_way
@pytest.mark.usefixtures("no_loop")
def test_nested_vmaps(how, namespace):
    """The inner rule calls the operator, which calls the rule for the outer level."""
    product = define_product(namespace)
    calls = []

    def rule(info, in_dims, x, y):
        calls.append(info.batch_size)
        x = x if in_dims[0] == 0 else x.expand(info.batch_size, *x.shape)
        y = y if in_dims[1] == 0 else y.expand(info.batch_size, *y.shape)
        return product(x, y), 0

    register_batching_rule(product, rule) if how == "functx" else product.register_vmap(rule)
    x, y = randn(2, 3, 4), randn(3, 4)
    assert_close(vmap(vmap(product), (0, None))(x, y), x * y)
    assert calls == [3, 2]
    assert_close(vmap(vmap(product, (None, 0)), (0, None))(y, y), y[:, None] * y)


def test_two_levels_batched_apart(namespace):
    product, rule = with_rule("method", namespace)
    x, y = randn(2, 4), randn(3, 4)
    actual = vmap(lambda x: vmap(lambda y: product(x, y))(y))(x)
    assert_close(actual, x[:, None] * y)
    assert [in_dims for _, in_dims, _, _ in rule.calls] == [(None, 0)]


@every_way
@pytest.mark.usefixtures("no_loop")
def test_with_reverse_mode(how, namespace):
    product, rule = with_rule(how, namespace)
    x, y = randn(3, 4), randn(3, 4)

    def f(multiply):
        return lambda x, y: (multiply(x, y) * x).sum()

    expected = loop_vmap(lambda x, y: autograd_grad(f(torch.mul), x, y))(x, y)
    assert_equal_trees(vmap(grad(f(product), (0, 1)))(x, y), expected)
    assert len(rule.calls) == 3, "once forward and twice in the backward pass"
    per_batch = grad(lambda x, y: vmap(f(product))(x, y).sum(), (0, 1))(x, y)
    assert_equal_trees(per_batch, expected)

    def pull(x, y, cotangent):
        return vjp(product, x, y)[1](cotangent)

    cotangent = randn(3, 4)
    assert_equal_trees(vmap(pull)(x, y, cotangent), (cotangent * y, cotangent * x))
    assert_close(jacrev(product)(x[0], y[0]), torch.diag(y[0]))
    second = vmap(grad(lambda x: grad(lambda x: product(product(x, x), x).sum())(x).sum()))(x)
    assert_close(second, 6 * x)


@every_way
@every_batching
def test_gradients_of_shared_and_batched_operands(how, in_dims, namespace):
    product, _ = with_rule(how, namespace)
    x, y = product_inputs(in_dims)
    expected = loop_vmap(lambda x, y: (y * y * x * 2, x * x * y * 2), in_dims)(x, y)
    actual = vmap(grad(lambda x, y: (product(x, y) ** 2).sum(), (0, 1)), in_dims)(x, y)
    assert_equal_trees(actual, expected)


@pytest.mark.parametrize("how", ["method", "functx"])
@pytest.mark.usefixtures("no_loop")
def test_jvp_outside_differentiates_the_operators_of_the_rule(how, namespace):
    product, _ = with_rule(how, namespace)
    x, y, t = randn(3, 4), randn(3, 4), randn(3, 4)
    output, tangent = functx.jvp(lambda x: vmap(product)(x, y), (x,), (t,))
    assert_close(output, x * y)
    assert_close(tangent, t * y)


def test_torch_func_uses_the_same_rule(namespace):
    product, rule = with_rule("method", namespace)
    x, y = randn(3, 4), randn(3, 4)
    assert_close(torch.func.vmap(product)(x, y), vmap(product)(x, y))
    assert rule.calls[0][:2] == rule.calls[1][:2]


def test_a_rule_may_use_transforms_itself(namespace):
    product = define_product(namespace)

    @product.register_vmap
    def rule(info, in_dims, x, y):
        return vmap(torch.mul, in_dims, 1)(x, y), 1

    x, y = randn(3, 4), randn(4)
    assert_close(vmap(product, (0, None))(x, y), x * y)
    assert_close(vmap(grad(lambda x: product(x, y).sum()))(x), y.expand(3, 4))


def test_a_rule_on_another_thread(namespace):
    product, _ = with_rule("functx", namespace)
    x, y = randn(3, 4), randn(3, 4)
    results = []
    gradient = vmap(grad(lambda x, y: product(x, y).sum()))
    threads = [threading.Thread(target=lambda: results.append(gradient(x, y))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_close(result, y)


def test_a_rule_in_a_backward_pass_on_another_thread(namespace):
    """As on autograd's own threads: no level is active there."""
    product, rule = with_rule("functx", namespace)
    gradients = []

    def f(x, y):
        _, pull = vjp(product, x, y)
        thread = threading.Thread(target=lambda: gradients.append(pull(x * 2)))
        thread.start()
        thread.join()
        return gradients.pop()

    x, y = randn(3, 4), randn(3, 4)
    assert_equal_trees(vmap(f)(x, y), (2 * x * y, 2 * x * x))
    assert len(rule.calls) == 3


def test_tracing_sees_the_operators_of_the_rule(namespace):
    product, _ = with_rule("method", namespace)
    x, y = randn(3, 4), randn(4)
    traced = functx.make_fx(vmap(product, (0, None)))(x, y)
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert torch.ops.aten.mul.Tensor in targets
    assert not any("product" in str(target) for target in targets)
    x = randn(5, 4)[:3]
    assert_close(traced(x, y), x * y)


@pytest.mark.parametrize("how", ["method", "torch.library", "name"])
@pytest.mark.parametrize(
    "nest",
    [
        lambda f: torch.func.vmap(vmap(f, (0, None)), (None, 0)),
        lambda f: vmap(torch.func.vmap(f, (0, None)), (None, 0)),
    ],
    ids=["torch.func outside", "torch.func inside"],
)
def test_nested_with_torch_func(how, nest, namespace):
    product, _ = with_rule(how, namespace)
    x, y = randn(3, 4), randn(2, 4)
    assert_close(nest(product)(x, y), y[:, None] * x)


# ---- what comes in and what goes out ---------------------------------------------------------


def test_lists_numbers_and_defaults(namespace):
    @torch.library.custom_op(f"{namespace}::mix", mutates_args=())
    def mix(
        xs: list[Tensor],
        shape: list[int],
        z: Tensor | None,
        scale: float,
        dtype: torch.dtype,
        flag: bool = False,
        *,
        power: int = 2,
    ) -> Tensor:
        total = sum(xs) * scale + (0 if z is None else z)
        return (total**power).reshape(shape).to(dtype)

    @mix.register_vmap
    @Recorder
    def rule(info, in_dims, xs, shape, z, scale, dtype, flag=False, *, power=2):
        total = sum(
            x if d is None else x.movedim(d, 0) for x, d in zip(xs, in_dims[0], strict=True)
        )
        total = total * scale
        if z is not None:
            total = total + z
        return (total**power).reshape(info.batch_size, *shape).to(dtype), 0

    x, y, z = randn(3, 4), randn(4), randn(4)

    def f(x, **options):
        return mix([x, y], [2, 2], z, 0.5, torch.float32, **options)

    def reference(x, power=2):
        return ((x + y) * 0.5 + z).pow(power).reshape(2, 2).float()

    assert_close(vmap(f)(x), loop_vmap(reference)(x))
    assert_close(vmap(lambda x: f(x, power=3))(x), loop_vmap(lambda x: reference(x, 3))(x))
    vmap(lambda x: mix([y, x], [4], None, 1.0, torch.float64, True))(x)
    first, second, third = mix._vmap_fn.calls
    assert first[1] == ([0, None], [None, None], None, None, None)
    assert first[2][1:2] + first[2][3:] == ([2, 2], 0.5, torch.float32)
    assert first[3] == {}
    assert second[3] == {"power": 3}
    assert third[1] == ([None, 0], [None], None, None, None, None)
    assert third[2][2] is None
    assert third[2][5] is True


@pytest.mark.parametrize("out_dims", [(0, None), [0, None], (-2, None)])
def test_several_outputs(out_dims, namespace):
    @torch.library.custom_op(f"{namespace}::parts", mutates_args=())
    def parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return in_numpy(np.sin)(x), in_numpy(np.cos)(y)

    parts.register_vmap(lambda info, in_dims, x, y: ((x.sin(), y.cos()), out_dims))
    x, y = randn(3, 4), randn(4)
    assert_equal_trees(
        vmap(parts, (0, None))(x, y), (x.sin(), y.cos().expand(3, 4)), rtol=1e-12, atol=1e-12
    )
    none = vmap(parts, (0, None), (0, None))(x, y)
    assert none[1].shape == (4,), "the output that no example changes is not batched"


@pytest.mark.parametrize("out_dims", [1, (1, 1), [1, 1], -1])
def test_one_out_dim_for_a_list(out_dims, namespace):
    @torch.library.custom_op(f"{namespace}::listed", mutates_args=())
    def listed(x: Tensor) -> list[Tensor]:
        return [in_numpy(np.sin)(x), in_numpy(np.cos)(x)]

    listed.register_vmap(lambda info, in_dims, x: ([x.sin().T, x.cos().T], out_dims))
    x = randn(3, 4)
    assert_equal_trees(vmap(listed)(x), [x.sin(), x.cos()])


def test_an_output_that_is_the_same_for_all(namespace):
    product = define_product(namespace)
    product.register_vmap(lambda info, in_dims, x, y: (y * 2, None))
    x, y = randn(3, 4), randn(4)
    assert_close(vmap(product, (0, None), None)(x, y), y * 2)


def test_an_output_that_is_a_number(namespace):
    @torch.library.custom_op(f"{namespace}::rank", mutates_args=())
    def rank(x: Tensor) -> int:
        return x.dim()

    register_batching_rule(rank, lambda info, in_dims, x: (x.dim() - 1, None))
    assert vmap(lambda x: x * rank(x))(torch.ones(3, 4)).tolist() == [[1.0] * 4] * 3


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda info, in_dims, x, y: x * y, "two things"),
        (lambda info, in_dims, x, y: (x * y, 0, 0), "a tuple of 3"),
        (lambda info, in_dims, x, y: (x * y, 2), "out_dims 2"),
        (lambda info, in_dims, x, y: (x * y, 1), "batch size, 3"),
        (lambda info, in_dims, x, y: (x * y, "0"), "'0'"),
        (lambda info, in_dims, x, y: (x.sum(), 0), "shape ()"),
        (lambda info, in_dims, x, y: ((x, y), (0, 0, 0)), "2 outputs"),
    ],
)
def test_errors_about_what_a_rule_returned(rule, message, namespace):
    product = define_product(namespace)
    product.register_vmap(rule)
    with pytest.raises(ValueError, match=r"functx.vmap: the batching rule of .*product") as error:
        vmap(product)(randn(3, 4), randn(3, 4))
    assert message in str(error.value)


def test_too_few_outputs(namespace):
    @torch.library.custom_op(f"{namespace}::parts", mutates_args=())
    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin(), x.cos()

    parts.register_vmap(lambda info, in_dims, x: (x.sin(), 0))
    with pytest.raises(ValueError, match="has 2 outputs"):
        vmap(parts)(randn(3, 4))


class Refusal(Exception):
    pass


@every_way
def test_exceptions_of_a_rule_arrive(how, namespace):
    product, rule = with_rule(how, namespace)
    x, y = randn(3, 4), randn(3, 4)
    fails_at = 1

    def refuse(info, in_dims, *args):
        if len(rule.calls) >= fails_at:
            raise Refusal("not today")
        return product_rule(info, in_dims, *args)

    rule.rule = refuse
    with pytest.raises(Refusal, match="not today"):
        vmap(product)(x, y)
    rule.calls.clear()
    fails_at = 2  # in the backward pass
    with pytest.raises(Refusal, match="not today"):
        vmap(grad(lambda x, y: product(x, y).sum()))(x, y)
    rule.rule = product_rule
    assert_close(vmap(grad(lambda x, y: product(x, y).sum()))(x, y), y)


# ---- operators that PyTorch has no CustomOpDef for -------------------------------------------


def define_scale(namespace, overload=""):
    name = f"{namespace}::scale{overload}"
    torch.library.define(name, "(Tensor x, float by) -> Tensor")
    torch.library.impl(name, "cpu", lambda x, by: in_numpy(lambda a: a * by)(x))
    return name


@pytest.mark.parametrize("overload", ["", ".twice"])
@pytest.mark.usefixtures("no_loop")
def test_register_vmap_on_a_defined_operator(overload, namespace):
    name = define_scale(namespace, overload)
    rule = Recorder(lambda info, in_dims, x, by: (x * by, in_dims[0]))
    torch.library.register_vmap(name, rule)
    x = randn(3, 4)
    scale = getattr(torch.ops, namespace).scale
    assert_close(vmap(lambda x: scale(x, 2.0), 1)(x), x.T * 2)
    assert [in_dims for _, in_dims, _, _ in rule.calls] == [(0, None)]


@looping
def test_register_vmap_as_a_decorator_and_again(namespace):
    name = define_scale(namespace)
    scale = getattr(torch.ops, namespace).scale
    x = randn(3, 4)
    with torch.library._scoped_library(namespace, "FRAGMENT") as lib:

        @torch.library.register_vmap(name, lib=lib)
        def first(info, in_dims, x, by):
            return x * 100, 0

        assert_close(vmap(lambda x: scale(x, 2.0))(x), x * 100)
    assert_close(vmap(lambda x: scale(x, 2.0))(x), x * 2)  # the rule went with its library
    torch.library.register_vmap(scale.default, lambda info, in_dims, x, by: (x * by + 1, 0))
    assert_close(vmap(lambda x: scale(x, 2.0))(x), x * 2 + 1)


def test_a_rule_of_a_custom_op_can_be_replaced(namespace):
    product, rule = with_rule("method", namespace)
    x, y = randn(3, 4), randn(3, 4)
    product.register_vmap(lambda info, in_dims, x, y: (x + y, 0))
    assert_close(vmap(product)(x, y), x + y)
    assert not rule.calls


def test_an_operator_that_is_defined_anew(namespace):
    """As when a cell of a notebook is run again, edited."""
    define_product(namespace).register_vmap(product_rule)
    x, y = randn(3, 4), randn(4)
    assert_close(vmap(getattr(torch.ops, namespace).product, (0, None))(x, y), x * y)

    @torch.library.custom_op(f"{namespace}::product", mutates_args=())
    def product(x: Tensor, by: float) -> tuple[Tensor, Tensor]:
        return x * by, x / by

    product.register_vmap(lambda info, in_dims, x, by: ((x * by, x / by), in_dims[0]))
    assert_equal_trees(vmap(lambda x: product(x, 2.0))(x), (x * 2, x / 2))


@looping
def test_a_vmap_kernel_that_is_no_rule_leaves_the_loop(namespace):
    name = define_scale(namespace)
    with torch.library._scoped_library(namespace, "FRAGMENT") as lib:
        lib.impl("scale", lambda x, by: x, "FuncTorchBatched")
        x = randn(3, 4)
        assert_close(vmap(lambda x: getattr(torch.ops, namespace).scale(x, 2.0))(x), x * 2)
    assert functx._library_rules.find(name) is None


def test_rules_registered_before_the_import():
    program = """
        import warnings
        import torch
        from torch import Tensor

        warnings.simplefilter("error")

        @torch.library.custom_op("early::double", mutates_args=())
        def double(x: Tensor) -> Tensor:
            assert x.dim() == 1
            return x * 2

        double.register_vmap(lambda info, in_dims, x: (x * 2, in_dims[0]))
        for name in ("triple", "quadruple"):
            factor = 3 if name == "triple" else 4
            torch.library.define(f"early::{name}", "(Tensor x) -> Tensor")
            torch.library.impl(f"early::{name}", "cpu", lambda x, by=factor: x * by)
            torch.library.register_vmap(
                f"early::{name}", lambda info, in_dims, x, by=factor: (x * by, in_dims[0])
            )

        import functx

        x = torch.ones(3, 4)
        assert functx.vmap(double)(x).eq(2).all()
        assert functx.vmap(torch.ops.early.triple)(x).eq(3).all()
        assert functx.vmap(torch.ops.early.quadruple)(x).eq(4).all()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_triton_op_shares_the_mechanism(namespace):
    """Its body may call Triton kernels; without a GPU it is made of PyTorch's operators."""

    @torch.library.triton_op(f"{namespace}::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        assert x.dim() == 1
        return x * 2

    rule = Recorder(lambda info, in_dims, x: (x * 2, in_dims[0]))
    twice.register_vmap(rule)
    x = randn(3, 4)
    assert_close(vmap(twice)(x), x * 2)
    assert len(rule.calls) == 1


# ---- register_batching_rule ------------------------------------------------------------------


def counting(calls, function, out_dim=0):
    def rule(info, in_dims, *args, **kwargs):
        calls.append(in_dims)
        return function(*args, **kwargs), out_dim

    return rule


@pytest.mark.parametrize(
    ("op", "function"),
    [
        (torch.ops.aten.sin.default, torch.sin),  # has a typed rule
        ("aten::sin", torch.sin),
        (torch.ops.aten.sin, torch.sin),
        ("aten::sin.default", torch.sin),
        ("aten::special_entr", torch.special.entr),  # a boxed one
        ("aten::special_expit", torch.special.expit),  # is composed of others
        ("aten::square", torch.square),  # as well, with a typed kernel
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_a_rule_comes_before_those_of_functx(op, function):
    calls = []
    x = torch.rand(3, 4, dtype=torch.float64)
    # Not what the operator computes, to see that it is used.
    handle = register_batching_rule(op, counting(calls, lambda x: function(x) + 1))
    try:
        assert_close(vmap(function)(x), function(x) + 1)
        assert_close(function(x), function(x).clone())
        assert calls == [(0,)]
        # A level inside: the values of the outer one are no business of it.
        assert_close(vmap(vmap(function))(x[None]), function(x)[None] + 2)
        output, tangent = functx.jvp(function, (x,), (torch.ones_like(x),))
        expected = autograd_grad(lambda x: function(x).sum(), x)[0]
        assert_close(output, function(x))
        assert_close(tangent, expected)
        assert_close(vmap(grad(lambda x: function(x).sum()))(x), expected)
        assert_close(grad(lambda x: vmap(function)(x).sum())(x), expected)
    finally:
        handle.remove()
    calls.clear()
    assert_close(vmap(function)(x), function(x))
    assert not calls


def test_a_composite_operator_under_a_tape_is_taken_apart():
    calls = []
    handle = register_batching_rule("aten::square", counting(calls, torch.square))
    try:
        x = randn(3, 4)
        assert_close(vmap(grad(lambda x: torch.square(x).sum()))(x), 2 * x)
        assert not calls
        assert_close(grad(lambda x: vmap(torch.square)(x).sum())(x), 2 * x)
        assert calls == [(0,)]
    finally:
        handle.remove()


def test_the_rule_of_a_backward_operator_is_reached():
    calls = []

    def rule(info, in_dims, gradient, output):
        calls.append(in_dims)
        return gradient * (1 - output**2) * 10, 0

    handle = register_batching_rule("aten::tanh_backward", rule)
    try:
        x = randn(3, 4)
        expected = 10 * (1 - x.tanh() ** 2)
        assert_close(vmap(grad(lambda x: x.tanh().sum()))(x), expected)
        assert_close(vmap(lambda x: vjp(torch.tanh, x)[1](torch.ones(4).double())[0])(x), expected)
        assert len(calls) == 2
    finally:
        handle.remove()


def test_rules_with_defaults_and_keywords():
    seen = []

    @register_batching_rule("aten::sum.dim_IntList")
    def rule(info, in_dims, x, dims, keepdim=False, *, dtype=None):
        seen.append((in_dims, dims, keepdim, dtype))
        dims = [d + 1 if d >= 0 else d for d in dims]
        return torch.sum(x, dims, keepdim, dtype=dtype), 0

    try:
        x = randn(3, 4, 5)
        assert_close(vmap(lambda x: x.sum(0))(x), x.sum(1))
        single = vmap(lambda x: x.sum((0,), True, dtype=torch.float32))(x)
        assert_close(single, x.sum(1, True, dtype=torch.float32))
        assert seen == [
            ((0, [None]), [0], False, None),
            ((0, [None], None), [0], True, torch.float32),
        ]
    finally:
        rule.remove()


def test_views_and_writing(namespace):
    """A rule for a view gives a view, and one for an in-place operator writes."""
    calls = []

    def row(info, in_dims, x, dim, index):
        calls.append("select")
        return x.select(dim + 1, index), 0

    def add(info, in_dims, x, y, *, alpha=1):
        calls.append("add_")
        assert in_dims[0] == 0
        x.add_(y, alpha=alpha)
        return x, 0

    handles = [
        register_batching_rule("aten::select.int", row),
        register_batching_rule("aten::add_.Tensor", add),
    ]
    try:

        def f(x, y):
            x = x * 1
            x.select(0, 1).add_(y, alpha=2)
            return x

        x, y = randn(3, 2, 4), randn(3, 4)
        assert_close(vmap(f)(x, y), loop_vmap(f)(x, y))
        assert calls == ["select", "add_"]
        gradients = vmap(grad(lambda x, y: (f(x, y) ** 2).sum(), (0, 1)))(x, y)
        for handle in handles:
            handle.remove()
        expected = loop_vmap(lambda x, y: autograd_grad(lambda x, y: (f(x, y) ** 2).sum(), x, y))
        assert_equal_trees(gradients, expected(x, y))
        assert "add_" in calls[2:]
    finally:
        for handle in handles:
            handle.remove()


def test_autograd_notices_what_a_rule_has_written():
    @register_batching_rule("aten::mul_.Tensor")
    def rule(info, in_dims, x, y):
        return x.mul_(y), 0

    try:

        def f(x):
            y = x.exp()
            y.mul_(x)  # exp has saved y
            return y.sum()

        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            vmap(grad(f))(randn(3, 4))
    finally:
        rule.remove()


def test_the_last_rule_applies_until_it_is_removed(namespace):
    product, _ = with_rule("method", namespace)
    x, y = randn(3, 4), randn(3, 4)
    first = register_batching_rule(product, lambda info, in_dims, x, y: (x + y, 0))
    second = register_batching_rule(product, lambda info, in_dims, x, y: (x - y, 0))
    assert_close(vmap(product)(x, y), x - y)
    second.remove()
    assert_close(vmap(product)(x, y), x + y)
    second.remove()
    first.remove()
    assert_close(vmap(product)(x, y), x * y)


def test_what_a_registration_returns(namespace):
    product = define_product(namespace)

    @register_batching_rule(f"{namespace}::product")
    def rule(info, in_dims, x, y):
        """Doc of the rule."""
        return x * y, 0

    x = randn(3, 4)
    assert_close(rule(None, (0, 0), x, x)[0], x * x)
    assert rule.operator == f"{namespace}::product"
    assert f"{namespace}::product" in repr(rule)
    assert isinstance(rule, functx.BatchingRule)
    assert_close(vmap(product)(x, x), x * x)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("functx_nobody::nothing", "there is no operator functx_nobody::nothing"),
        ("aten::add", r"aten::add\.Tensor"),
        ("aten::sin.nope", r"aten::sin\.nope"),
        (torch.ops.aten.add, r"aten::add\.Tensor"),
        (torch.sin, "is not an operator"),
        ("sin", "there is no operator sin"),
    ],
)
def test_errors_about_the_operator(op, message):
    with pytest.raises(ValueError, match=f"functx.register_batching_rule: .*{message}"):
        register_batching_rule(op, product_rule)
    with pytest.raises(ValueError, match=message):
        register_batching_rule(op)(product_rule)


def test_tensors_by_keyword_only_have_no_place():
    with pytest.raises(NotImplementedError, match="takes the tensor out by keyword only"):
        register_batching_rule("aten::sin.out", product_rule)


def test_an_operator_defined_after_its_namesake_was_batched(namespace):
    """A rule that was given before the first call, and one given after it."""
    product = define_product(namespace)
    x, y = randn(3, 4), randn(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_close(vmap(product)(x, y), x * y)
    register_batching_rule(product, lambda info, in_dims, x, y: (x + y, 0))
    assert_close(vmap(product)(x, y), x + y)


def test_nothing_is_kept_alive(namespace):
    product = define_product(namespace)

    def rule(info, in_dims, x, y):
        seen.append(weakref.ref(x))
        return x * y, 0

    seen = []
    forgotten = weakref.ref(rule)
    handle = register_batching_rule(product, rule)
    del rule
    vmap(product)(randn(3, 4), randn(3, 4))
    handle.remove()
    del handle
    gc.collect()
    assert forgotten() is None
    assert seen[0]() is None


def test_random_operators_are_asked_about_first(namespace):
    calls = []
    handle = register_batching_rule(
        "aten::bernoulli", counting(calls, lambda x, generator=None: x.clone())
    )
    try:
        x = torch.rand(3, 4)
        with pytest.raises(RuntimeError, match="randomness"):
            vmap(torch.bernoulli)(x)
        assert_close(vmap(torch.bernoulli, randomness="different")(x), x)
        assert calls == [(0,)]
    finally:
        handle.remove()


# ---- without a rule, and operators of other kinds --------------------------------------------


@looping
@every_batching
def test_the_loop(in_dims, namespace):
    product = define_product(namespace)
    x, y = product_inputs(in_dims)
    assert_close(vmap(product, in_dims)(x, y), loop_vmap(torch.mul, in_dims)(x, y))
    gradients = vmap(grad(lambda x, y: (product(x, y) * x).sum(), (0, 1)), in_dims)(x, y)
    expected = loop_vmap(lambda x, y: autograd_grad(lambda x, y: (x * y * x).sum(), x, y), in_dims)(
        x, y
    )
    assert_equal_trees(gradients, expected)


@looping
def test_keyword_only_arguments_and_lists_in_the_loop(namespace):
    @torch.library.custom_op(f"{namespace}::total", mutates_args=())
    def total(xs: list[Tensor], *, scale: float = 1.0, power: int = 1) -> tuple[Tensor, Tensor]:
        sum_ = in_numpy(lambda *a: sum(a) ** power * scale)(*xs)
        return sum_, in_numpy(np.max)(sum_)

    def reference(xs, scale=1.0, power=1):
        sum_ = sum(xs) ** power * scale
        return sum_, sum_.max()

    x, y = randn(3, 4), randn(4)

    def check(**options):
        assert_equal_trees(
            vmap(lambda x, y: total([x, y, x], **options), (0, None))(x, y),
            loop_vmap(lambda x, y: reference([x, y, x], **options), (0, None), (0, 0))(x, y),
        )

    check()
    check(scale=2.0)
    check(scale=0.5, power=2)


def define_accumulate(namespace):
    """Writes into its first argument and returns nothing."""

    @torch.library.custom_op(f"{namespace}::accumulate", mutates_args=("into",))
    def accumulate(into: Tensor, x: Tensor, scale: float = 1.0) -> None:
        into.numpy()[...] += x.numpy() * scale

    return accumulate


@pytest.mark.parametrize("rule", [None, "method", "functx"])
@looping
def test_an_operator_that_writes_and_returns_nothing(rule, namespace):
    accumulate = define_accumulate(namespace)
    calls = []

    def batched(info, in_dims, into, x, scale=1.0):
        calls.append(in_dims)
        x = x.expand(info.batch_size, *x.shape) if in_dims[1] is None else x
        into += x * scale
        return None, None

    if rule == "method":
        accumulate.register_vmap(batched)
    elif rule == "functx":
        register_batching_rule(accumulate, batched)

    def f(x, y):
        total = x.clone()
        assert accumulate(total, y) is None
        accumulate(total, y, 0.5)
        return total

    x, y, shared = randn(3, 4), randn(3, 4), randn(4)
    assert_close(vmap(f)(x, y), x + 1.5 * y)
    assert_close(vmap(f, (0, None))(x, shared), x + 1.5 * shared)
    assert calls == ([] if rule is None else [(0, 0), (0, 0, None), (0, None), (0, None, None)])
    assert_close(vmap(vmap(f))(x[None], y[None]), (x + 1.5 * y)[None])


@looping
def test_writing_into_what_all_examples_share_raises(namespace):
    accumulate = define_accumulate(namespace)
    shared = randn(4)

    def f(x):
        accumulate(shared, x)
        return x

    with pytest.raises(RuntimeError, match=r"vmap: .*accumulate writes into into, which"):
        vmap(f)(randn(3, 4))


def test_a_rule_may_write_into_what_all_examples_share(namespace):
    accumulate = define_accumulate(namespace)

    @accumulate.register_vmap
    def rule(info, in_dims, into, x):
        assert in_dims == (None, 0)
        into += x.sum(0)
        return None, None

    x, shared = randn(3, 4), torch.zeros(4, dtype=torch.float64)
    vmap(lambda x: (accumulate(shared, x), x)[1])(x)
    assert_close(shared, x.sum(0))


@pytest.mark.parametrize("with_rule", [False, True])
@looping
def test_an_operator_that_returns_what_it_wrote_to(with_rule, namespace):
    name = f"{namespace}::increase_"
    torch.library.define(name, "(Tensor(a!) x, Tensor y) -> Tensor(a!)")

    @torch.library.impl(name, "cpu")
    def increase(x, y):
        x.numpy()[...] += y.numpy()
        return x

    if with_rule:

        @register_batching_rule(name)
        def rule(info, in_dims, x, y):
            return x.add_(y), in_dims[0]

    op = getattr(torch.ops, namespace).increase_

    def f(x, y):
        copy = x * 1
        returned = op(copy, y)
        return returned is copy, returned, copy

    x, y = randn(3, 4), randn(3, 4)
    same, returned, copy = vmap(f, out_dims=(None, 0, 0))(x, y)
    assert same
    assert_close(returned, x + y)
    assert_close(copy, x + y)


@looping
def test_shapes_that_depend_on_the_data_raise(namespace):
    @torch.library.custom_op(f"{namespace}::positive", mutates_args=())
    def positive(x: Tensor) -> Tensor:
        return in_numpy(lambda a: a[a > 0])(x)

    x = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    with pytest.raises(RuntimeError, match=r"vmap: .*positive gives results of different shapes"):
        vmap(positive)(x)
    assert_close(vmap(positive)(torch.ones(2, 2)), torch.ones(2, 2))


@looping
def test_an_empty_batch_needs_a_rule(namespace):
    product = define_product(namespace)
    x = torch.zeros(0, 4)
    with pytest.raises(NotImplementedError, match=r"product has no batching rule"):
        vmap(product)(x, x)
    product.register_vmap(product_rule)
    assert vmap(product)(x, x).shape == (0, 4)


def test_the_code_in_the_guide_runs():
    guide = Path(__file__).parent.parent / "docs" / "adding_a_batching_rule.md"
    blocks = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 5
    subprocess.run([sys.executable, "-c", "".join(blocks)], check=True)
