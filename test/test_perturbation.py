"""Nested derivatives of different variables are never mixed up (perturbation confusion)."""

import pytest
import torch
from _reference import randn
from torch.testing import assert_close

import functx

ONE = torch.tensor(1.0, dtype=torch.float64)


def by_vjp(f):
    def derivative(x):
        output, pullback = functx.vjp(f, x)
        return pullback(torch.ones_like(output))[0]

    return derivative


def by_jvp(f):
    return lambda x: functx.jvp(f, (x,), (torch.ones_like(x),))[1]


def by_vmapped_jvp(f):
    def derivative(x):
        tangents = torch.ones_like(x).expand(1)
        return functx.vmap(lambda t: functx.jvp(f, (x,), (t,))[1])(tangents).squeeze(0)

    return derivative


MODES = {
    "grad": functx.grad,
    "vjp": by_vjp,
    "jvp": by_jvp,
    "jacrev": functx.jacrev,
    "jacfwd": functx.jacfwd,
    "vmapped_jvp": by_vmapped_jvp,
}

pairs = pytest.mark.parametrize(
    ("outer", "inner"),
    [pytest.param(MODES[a], MODES[b], id=f"{a}-{b}") for a in MODES for b in MODES],
)


@pairs
def test_the_classic(outer, inner):
    """d/dx (x * d/dy (x + y)) = 1; a confused implementation says 2."""
    assert_close(outer(lambda x: x * inner(lambda y: x + y)(ONE))(ONE), ONE)


@pairs
def test_product(outer, inner):
    """d/dx (x * d/dy (x * y)) = d/dx x^2 = 2x."""
    x = randn()
    assert_close(outer(lambda x: x * inner(lambda y: x * y)(ONE))(x), 2 * x)


@pairs
def test_inner_at_the_outer_variable(outer, inner):
    """d/dx (x * d/dy (x * y^2) at y = x) = d/dx 2x^3 = 6x^2."""
    x = randn()
    assert_close(outer(lambda x: x * inner(lambda y: x * y**2)(x))(x), 6 * x**2)


@pairs
def test_inner_function_that_ignores_its_variable(outer, inner):
    """d/dx (x^2 + d/dy x^3) = 2x: the outer perturbation is not the inner one."""
    x = randn()
    assert_close(outer(lambda x: x**2 + inner(lambda y: x**3)(x))(x), 2 * x)


@pairs
def test_inner_function_that_captures_only_the_outer_variable_in_place(outer, inner):
    x = randn()

    def f(x):
        def g(y):
            z = y * 1
            z.mul_(x).add_(x)
            return z

        return x * inner(g)(x)

    assert_close(outer(f)(x), 2 * x)


@pairs
def test_under_vmap(outer, inner):
    xs = randn(4)
    actual = functx.vmap(outer(lambda x: x * inner(lambda y: x * y**2)(x)))(xs)
    assert_close(actual, 6 * xs**2)


@pairs
def test_around_vmap(outer, inner):
    """The derivative of sum_i (x * d/dy (x * y * c_i)) = sum_i c_i x^2 is 2x sum c."""
    x, c = randn(), randn(3)

    def f(x):
        return functx.vmap(lambda c: x * inner(lambda y: x * y * c)(ONE))(c).sum()

    assert_close(outer(f)(x), 2 * x * c.sum())


@pytest.mark.parametrize("a", MODES)
@pytest.mark.parametrize("b", MODES)
def test_three_levels(a, b):
    x = randn()

    def f(x):
        def g(y):
            return y * MODES[b](lambda z: x + y * z)(ONE)

        return x * MODES[a](g)(x)

    # g(y) = y * y, its derivative at x is 2x, f(x) = 2x^2.
    assert_close(functx.grad(f)(x), 4 * x)
    assert_close(functx.jvp(f, (x,), (ONE,))[1], 4 * x)


def test_a_derivative_that_leaves_its_level_through_a_closure():
    """The pullback of an inner vjp is used after, and differentiated by the outer variable."""
    x = randn()

    def f(x):
        _, pullback = functx.vjp(lambda y: y**2 * x, x)
        return pullback(x)[0]  # x * 2x * x

    assert_close(functx.grad(f)(x), 6 * x**2)
    assert_close(functx.jvp(f, (x,), (ONE,))[1], 6 * x**2)
    assert_close(functx.jacfwd(f)(x), 6 * x**2)


def test_an_inner_output_that_is_the_outer_variable():
    x = randn()
    assert_close(functx.grad(lambda x: functx.jvp(lambda y: x, (ONE,), (ONE,))[0])(x), ONE)
    assert_close(functx.jvp(lambda x: functx.vjp(lambda y: x, ONE)[0], (x,), (ONE,))[1], ONE)
    inner = functx.jvp(lambda x: functx.jvp(lambda y: x, (ONE,), (ONE,)), (x,), (x,))
    (primal, inner_tangent), (tangent, inner_tangent_tangent) = inner
    assert_close(torch.stack([primal, tangent]), torch.stack([x, x]))
    zeros = torch.zeros(2, dtype=x.dtype)
    assert_close(torch.stack([inner_tangent, inner_tangent_tangent]), zeros)
