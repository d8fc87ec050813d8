"""`register_batching_rule` for operators of PyTorch's own and others."""

import gc
import warnings
import weakref

import pytest
import torch
from _custom_ops import define_product, product_rule, with_rule
from _reference import assert_equal_trees, autograd_grad, loop_vmap, randn
from torch.testing import assert_close

import functx
from functx import grad, register_batching_rule, vjp, vmap


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
