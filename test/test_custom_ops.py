"""Operators of the user's own under vmap, with rules given to PyTorch or to functx."""

import threading

import numpy as np
import pytest
import torch
from _custom_ops import (
    Recorder,
    define_product,
    every_batching,
    every_way,
    in_numpy,
    product_inputs,
    product_rule,
    with_rule,
)
from _reference import assert_equal_trees, autograd_grad, loop_vmap, randn
from torch import Tensor
from torch.testing import assert_close

import functx
from functx import grad, jacrev, register_batching_rule, vjp, vmap


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
        (lambda info, in_dims, x, y: x * y, "two returns"),
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
    with pytest.raises(RuntimeError, match=r"functx.vmap: the batching rule of .*product") as error:
        vmap(product)(randn(3, 4), randn(3, 4))
    assert message in str(error.value)


def test_too_few_outputs(namespace):
    @torch.library.custom_op(f"{namespace}::parts", mutates_args=())
    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin(), x.cos()

    parts.register_vmap(lambda info, in_dims, x: (x.sin(), 0))
    with pytest.raises(RuntimeError, match="has 2 outputs"):
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
