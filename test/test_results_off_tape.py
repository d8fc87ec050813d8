"""What a transform returns is on a tape only if something outside of it is tracked."""

import pytest
import torch
from torch.testing import assert_close

import functx

X = torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64)
S = torch.tensor(2.0, dtype=torch.float64)


def f(x):
    return x.exp().sum()


def by_pullback(f):
    return lambda x: functx.vjp(f, x)[1](torch.ones((), dtype=x.dtype))[0]


def by_linearize(f):
    return lambda x: functx.linearize(f, x)[1](x)


# Derivatives by a tensor that the function around them does not differentiate by.
INNER = {
    "grad": functx.grad,
    "vjp": by_pullback,
    "jacrev": functx.jacrev,
    "linearize": by_linearize,
    "grad of grad": lambda f: functx.grad(lambda x: functx.grad(f)(x).sum()),
    "vmap of grad": lambda f: lambda x: functx.vmap(functx.grad(f))(torch.stack([x, x])),
    "jvp of grad": lambda f: lambda x: functx.jvp(functx.grad(f), (x,), (x,))[1],
}
OUTER = {
    "grad": functx.grad,
    "vjp": by_pullback,
    "jacrev": functx.jacrev,
    "linearize": by_linearize,
    "hessian": functx.hessian,
    "jvp of grad": lambda f: lambda s: functx.jvp(functx.grad(f), (s,), (s,))[1],
    "vmap of grad": lambda f: lambda s: functx.vmap(functx.grad(f))(torch.stack([s, s])),
    "grad with aux": lambda f: lambda s: functx.grad(lambda s: (f(s), f(s)), has_aux=True)(s)[1],
    "value": lambda f: lambda s: functx.grad_and_value(f)(s)[1],
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", OUTER)
def test_a_derivative_inside_by_a_constant(outer, inner):
    """The leaf of the inner tape is in the graph of the outer one, but nobody asks for its
    gradient."""
    result = OUTER[outer](lambda s: INNER[inner](lambda x: s**3 * f(x))(X).sum())(S)
    assert not result.requires_grad
    assert result.abs().sum() > 0


def test_a_pullback_from_outside():
    _, pullback = functx.vjp(f, X)
    assert not functx.grad(lambda c: pullback(c)[0].sum())(S).requires_grad


@pytest.mark.parametrize("inner", INNER)
def test_a_tape_around_both(inner):
    """It still has all of the derivatives."""

    def loss(s):
        return INNER[inner](lambda x: s**3 * f(x))(X).sum()

    expected = 6 * loss(torch.ones_like(S)) * S
    assert_close(functx.grad(lambda s: functx.grad(loss)(s))(S), expected)
    tracked = S.clone().requires_grad_()
    (actual,) = torch.autograd.grad(functx.grad(loss)(tracked), tracked)
    assert_close(actual, expected)


def test_a_leaf_of_the_user():
    """A tensor that plain autograd tracks is seen through two transforms."""
    weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    result = functx.grad(lambda s: functx.grad(lambda x: weight * s**2 * f(x))(X).sum())(S)
    (by_weight,) = torch.autograd.grad(result, weight)
    assert_close(by_weight, 2 * S * X.exp().sum())
