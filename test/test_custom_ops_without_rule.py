"""Operators of the user's own under vmap: the loop, writing, shapes that depend on the data."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _custom_ops import (
    define_product,
    every_batching,
    in_numpy,
    looping,
    product_inputs,
    product_rule,
)
from _reference import assert_equal_trees, autograd_grad, loop_vmap, randn
from torch import Tensor
from torch.testing import assert_close

from functx import grad, register_batching_rule, vmap


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

    with pytest.raises(RuntimeError, match=r"vmap: .*accumulate\(self.*writes into into, which"):
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
def test_an_empty_batch(namespace):
    """There is no example to run: one is made up, whose shape and dtype the results have."""
    product = define_product(namespace)
    x = torch.zeros(0, 4, dtype=torch.float64)
    for _ in range(2):
        result = vmap(product)(x, x)
        assert result.shape == (0, 4)
        assert result.dtype == x.dtype
        assert vmap(grad(lambda x, y: product(x, y).sum()))(x, x).shape == (0, 4)
        product.register_vmap(product_rule)


def test_the_code_in_the_guide_runs():
    guide = Path(__file__).parent.parent / "docs" / "adding_a_batching_rule.md"
    blocks = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 5
    subprocess.run([sys.executable, "-c", "".join(blocks)], check=True)
