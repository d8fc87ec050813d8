"""`cond`: both ways where examples differ, one where they agree."""

import pytest
import torch
from _reference import randn
from torch.testing import assert_close

from functx import grad, hessian, jacfwd, jvp, vmap
from functx.experimental.control_flow import cond


def f(x):
    return cond(x.sum() > 0, lambda x: (x**3, x.sum()), lambda x: (x.sin(), -x.sum()), (x,))


def plain(x):
    return (x**3, x.sum()) if x.sum() > 0 else (x.sin(), -x.sum())


def scalar(x):
    return f(x)[0].sum() * f(x)[1]


def plain_scalar(x):
    return plain(x)[0].sum() * plain(x)[1]


def rows(function, x):
    return torch.stack([function(row) for row in x])


x = randn(6, 4)


@pytest.mark.parametrize("index", range(2))
def test_examples_that_differ(index):
    assert (x.sum(1) > 0).any()
    assert not (x.sum(1) > 0).all()
    expected = rows(lambda x: plain(x)[index], x)
    assert_close(vmap(f)(x)[index], expected)
    assert_close(vmap(vmap(f))(x.reshape(2, 3, 4))[index].flatten(0, 1), expected)


@pytest.mark.parametrize("transform", [grad, jacfwd, hessian])
def test_derivatives(transform):
    reference = torch.autograd.functional.jacobian
    if transform is hessian:
        reference = torch.autograd.functional.hessian
    expected = rows(lambda x: reference(plain_scalar, x), x)
    assert_close(vmap(transform(scalar))(x), expected)
    assert_close(rows(transform(scalar), x), expected)


def test_tangents():
    t = randn(6, 4)
    expected = rows(lambda x: torch.autograd.functional.jacobian(plain_scalar, x), x).mul(t).sum(1)
    assert_close(jvp(vmap(scalar), (x,), (t,))[1], expected)
    assert_close(vmap(lambda x, t: jvp(scalar, (x,), (t,))[1])(x, t), expected)


def never(*operands):
    raise AssertionError("called")


@pytest.mark.parametrize("pred", [True, 1.5, torch.tensor(True), torch.tensor([True])])
def test_examples_that_agree(pred):
    """One function is called, which may return anything."""
    assert_close(vmap(lambda x: cond(pred, torch.sin, never, (x,)))(x), x.sin())
    assert_close(vmap(lambda x: cond(torch.tensor(False), never, torch.cos, [x]))(x), x.cos())
    double = lambda y: vmap(lambda x: cond(y.sum() > 0, torch.sin, torch.cos, (x,)))(x)
    assert_close(vmap(double)(torch.tensor([1.0, -1.0])), torch.stack([x.sin(), x.cos()]))
    closure = vmap(lambda x: cond(pred, lambda: x + 1, never))
    assert_close(closure(x), x + 1)


def test_outside_of_vmap():
    """PyTorch's own, with its own checks."""
    assert_close(cond(torch.tensor(True), torch.sin, torch.cos, (x,)), x.sin())
    with pytest.raises(RuntimeError, match="callable"):
        cond(torch.tensor(True), 1, torch.cos, (x,))


@pytest.mark.parametrize("cond", [cond, torch.cond])
def test_inside_of_transforms(cond):
    f = lambda x: cond(x.sum() > 0, torch.sin, torch.cos, (x,))
    expected = rows(lambda x: x.cos() if x.sum() > 0 else -x.sin(), x)
    assert_close(vmap(f)(x), rows(lambda x: x.sin() if x.sum() > 0 else x.cos(), x))
    assert_close(vmap(grad(lambda x: f(x).sum()))(x), expected)
    assert_close(rows(grad(lambda x: f(x).sum()), x), expected)
    assert_close(rows(lambda x: jvp(f, (x,), (torch.ones_like(x),))[1], x), expected)
    compiled = torch.compile(f, backend="eager", fullgraph=True)
    assert_close(compiled(x[0]), f(x[0]))


def test_outside_of_vmap_with_gradients():
    slope = grad(lambda x: cond(x.sum() > x.sum() + 1, torch.sin, torch.cos, (x,)).sum())
    assert_close(slope(x[0]), -x[0].sin())


@pytest.mark.parametrize(
    ("pred", "if_true", "message"),
    [
        (lambda x: x > 0, torch.sin, r"pred has to be one element, but has shape \(4,\)"),
        (lambda x: x.sum() > 0, torch.sum, r"true_fn gave torch.float64\[\] and false_fn"),
        (lambda x: x.sum() > 0, lambda x: (x, x), r"true_fn gave \(\*, \*\) and false_fn \*"),
        (lambda x: x.sum() > 0, lambda x: 3, r"true_fn gave 3 and false_fn torch.float64\[4\]"),
        (lambda x: x.sum() > 0, lambda x: x.float(), r"torch.float32\[4\] and false_fn"),
    ],
)
def test_errors(pred, if_true, message):
    with pytest.raises(RuntimeError, match=f"functx.cond: .*{message}"):
        vmap(lambda x: cond(pred(x), if_true, torch.cos, (x,)))(x)


@pytest.mark.parametrize("transform", ["vmap", "jvp", "grad"])
def test_operators_that_take_functions_are_named_where_they_have_no_rule(transform):
    operators = torch.ops.higher_order
    calls = {
        "while_loop": lambda x: operators.while_loop(
            lambda x: x.sum() < 1, lambda x: (x + 1,), (x,), ()
        )[0],
        "cond": lambda x: operators.cond(torch.tensor(True), torch.sin, torch.cos, (x,)),
    }
    apply = {
        "vmap": lambda f: vmap(f)(x),
        "jvp": lambda f: jvp(f, (x,), (x,)),
        "grad": lambda f: grad(lambda x: f(x).sum())(x),
    }[transform]
    for name, call in calls.items():
        said = rf"functx\.{transform}: torch\.ops\.higher_order\.{name} has no rule inside of"
        with pytest.raises(NotImplementedError, match=said):
            apply(call)
