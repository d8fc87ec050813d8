"""Operators that hand the tangent of an operand on to their result: an in-place operator that then
writes to one of the two must leave the other alone."""

import pytest
import torch
from _reference import autograd_jacobian, directional_derivative, loop_vmap, randn
from torch.nn import functional as F
from torch.testing import assert_close

import functx

ONES = torch.ones(3, dtype=torch.float64)
EYE = torch.eye(3, dtype=torch.float64)
KERNEL = torch.ones(3, 1, 1, 1, dtype=torch.float64)

OPERATORS = {
    "add": lambda x: x + ONES,
    "add_to_constant": lambda x: ONES + x,
    "add_scalar": lambda x: x + 1,
    "sub_integers": lambda x: x - torch.arange(3),
    "rsub": lambda x: torch.rsub(ONES, x, alpha=-1),
    "broadcast": lambda x: x + torch.zeros(2, 3, dtype=torch.float64),
    "addcmul": lambda x: torch.addcmul(x, ONES, ONES),
    "addmv": lambda x: torch.addmv(x, EYE, ONES),
    "bias_of_linear": lambda x: F.linear(EYE, EYE, x),
    "bias_of_convolution": lambda x: F.conv2d(torch.ones(1, 1, 1, dtype=x.dtype), KERNEL, x),
    "fmod": lambda x: x.fmod(100),
    "fmod_tensor": lambda x: x.fmod(100 * ONES),
    "remainder": lambda x: x.remainder(100),
    "frac": lambda x: (0.01 * x).frac(),
    "pow_1": lambda x: x**1,
    "relu_of_positives": lambda x: x.abs().relu(),
    "part": lambda x: x[1:] + 1,
    "part_to_the_power_of_1": lambda x: x[1:] ** 1,
    "cast": lambda x: x.to(torch.float64) + 1,
    "dropout": lambda x: F.dropout(x, 0.0) + 1,
}

WRITES = {
    "mul_": lambda x: x.mul_(3),
    "zero_": lambda x: x.zero_(),
    "ceil_": lambda x: x.ceil_(),
    "without_a_rule": lambda x: x.renorm_(2, 0, 0.1) if x.dim() > 1 else x.logit_(0.1),
    "view": lambda x: x.select(0, 0).mul_(2),
    "copy_": lambda x: x.copy_(x.flip(0).clone()),
}


def write_to_operand(operator, write):
    def f(x):
        y = x * 2
        z = operator(y)
        write(y)
        return z, y

    return f


def write_to_result(operator, write):
    def f(x):
        y = x * 2
        z = operator(y)
        write(z)
        return z, y

    return f


def write_to_a_view(operator, write):
    """Of the operand, taken before."""

    def f(x):
        y = x * 2
        view = y[:2]
        z = operator(y)
        write(view)
        return z, y, view

    return f


def write_to_both(operator, write):
    def f(x):
        y = x * 2
        z = operator(y)
        write(y)
        write(z)
        write(y)
        return z, y

    return f


HOW = [write_to_operand, write_to_result, write_to_a_view, write_to_both]
everything = [
    pytest.mark.parametrize("write", WRITES),
    pytest.mark.parametrize("operator", OPERATORS),
    pytest.mark.parametrize("how", HOW),
]


def for_everything(test):
    for mark in everything:
        test = mark(test)
    return test


def numbers():
    """Far from those where a rounded or reduced function jumps."""
    return torch.tensor([0.31, 0.17, 0.23], dtype=torch.float64), randn(3)


@for_everything
def test_jvp(how, operator, write):
    f = how(OPERATORS[operator], WRITES[write])
    x, t = numbers()
    outputs, tangents = functx.jvp(f, (x,), (t,))
    assert_close(outputs, f(x))
    assert_close(tangents, directional_derivative(f, (x,), (t,)), rtol=1e-7, atol=1e-8)


@for_everything
def test_vmap_of_jvp(how, operator, write):
    f = how(OPERATORS[operator], WRITES[write])
    x, t = numbers()
    tangents = torch.stack([t, 2 * t])

    def derivative(t):
        return functx.jvp(f, (x,), (t,))[1]

    assert_close(functx.vmap(derivative)(tangents), loop_vmap(derivative)(tangents))


def test_tangents_of_the_caller_are_left_alone():
    x, t = numbers()
    kept = t.clone()

    def f(x):
        y = x + 1
        x.mul_(2)
        y.mul_(3)
        return x, y

    _, (by_x, by_y) = functx.jvp(f, (x,), (t,))
    assert_close(t, kept, rtol=0, atol=0)
    assert_close((by_x, by_y), (2 * t, 3 * t))


@pytest.mark.parametrize("outer", ["jvp", "grad"])
def test_nested(outer):
    """y, a cube, is passed on and then doubled in place."""

    def f(x):
        y = x**3
        z = y + 1
        y.mul_(2)
        return (z * y).sum()

    def slope(x):
        return functx.jvp(f, (x,), (torch.ones_like(x),))[1]

    x, t = numbers()
    expected = 60 * x**4 + 12 * x  # the second derivative of 2 * (x**3 + 1) * x**3
    if outer == "jvp":
        assert_close(functx.jvp(slope, (x,), (t,))[1], (expected * t).sum())
    else:
        assert_close(functx.grad(slope)(x), expected)


@pytest.mark.parametrize("before", [torch.clone, lambda x: x + 1, torch.sin, lambda x: x * 1])
def test_writes_under_no_grad_keep_the_place_on_a_tape(before):
    """As the primal's: a clamp for numerical safety, which derivatives take for the identity."""

    def guarded(x):
        y = before(x)
        with torch.no_grad():
            y.clamp_min_(1e-3)
        return (y.log() * x).sum()

    def free(x):
        return (before(x).log() * x).sum()

    x, t = randn(4).abs() + 0.5, randn(4)
    expected = autograd_jacobian(lambda x: autograd_gradient(free, x) @ t, x)[0]
    assert_close(functx.grad(lambda x: functx.jvp(guarded, (x,), (t,))[1])(x), expected)
    assert_close(functx.jvp(functx.grad(guarded), (x,), (t,))[1], expected)
    rows = functx.vmap(functx.grad(lambda x: functx.jvp(guarded, (x,), (t,))[1]))(x[None])
    assert_close(rows[0], expected)


def autograd_gradient(f, x):
    x = x if x.requires_grad else x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x, create_graph=True)[0]
