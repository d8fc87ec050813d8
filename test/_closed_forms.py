"""An elementwise function under every transform, with what has to come out in closed form."""

from typing import Any, NamedTuple

import torch

import functx


def square_of_sine(x):
    return x.sin().square()


class Case(NamedTuple):
    # Of a function that computes the square of the sine, a function of a matrix.
    transform: Any
    # What it is of a matrix, whatever the transform was done with.
    expected: Any


def _scalar(f):
    return lambda x: f(x).sum()


def _slope(f):
    """The derivative, by forward mode."""
    return lambda x: functx.jvp(f, (x,), (torch.ones_like(x),))[1]


CASES = {
    "vmap": Case(lambda f: functx.vmap(f), square_of_sine),
    "vmap-vmap": Case(lambda f: functx.vmap(functx.vmap(f)), square_of_sine),
    "grad": Case(lambda f: functx.grad(_scalar(f)), lambda x: (2 * x).sin()),
    "vmap-grad": Case(lambda f: functx.vmap(functx.grad(_scalar(f))), lambda x: (2 * x).sin()),
    "grad-vmap": Case(
        lambda f: functx.grad(lambda x: functx.vmap(_scalar(f))(x).sum()), lambda x: (2 * x).sin()
    ),
    "vjp": Case(lambda f: lambda x: functx.vjp(f, x)[1](x)[0], lambda x: x * (2 * x).sin()),
    "vmap-of-vjp_fn": Case(
        lambda f: lambda x: functx.vmap(functx.vjp(f, x[0])[1])(x)[0],
        lambda x: x * (2 * x[0]).sin(),
    ),
    "jvp": Case(lambda f: lambda x: functx.jvp(f, (x,), (x,))[1], lambda x: x * (2 * x).sin()),
    "vmap-jvp": Case(lambda f: functx.vmap(_slope(f)), lambda x: (2 * x).sin()),
    "jvp-vmap": Case(lambda f: _slope(functx.vmap(f)), lambda x: (2 * x).sin()),
    "linearize": Case(
        lambda f: lambda x: functx.linearize(f, x)[1](x), lambda x: x * (2 * x).sin()
    ),
    "jacrev": Case(lambda f: lambda x: functx.jacrev(f)(x[0]), lambda x: (2 * x[0]).sin().diag()),
    "jacfwd": Case(lambda f: lambda x: functx.jacfwd(f)(x[0]), lambda x: (2 * x[0]).sin().diag()),
    "hessian": Case(
        lambda f: lambda x: functx.hessian(_scalar(f))(x[0]),
        lambda x: (2 * (2 * x[0]).cos()).diag(),
    ),
    "vmap-hessian": Case(
        lambda f: functx.vmap(functx.hessian(_scalar(f))),
        lambda x: torch.diag_embed(2 * (2 * x).cos()),
    ),
    "grad-grad": Case(
        lambda f: functx.grad(_scalar(functx.grad(_scalar(f)))), lambda x: 2 * (2 * x).cos()
    ),
    "grad-vmap-grad": Case(
        lambda f: functx.grad(_scalar(functx.vmap(functx.grad(_scalar(f))))),
        lambda x: 2 * (2 * x).cos(),
    ),
    "vmap-grad-grad": Case(
        lambda f: functx.vmap(functx.grad(_scalar(functx.grad(_scalar(f))))),
        lambda x: 2 * (2 * x).cos(),
    ),
    "jvp-grad": Case(
        lambda f: lambda x: functx.jvp(functx.grad(_scalar(f)), (x,), (x,))[1],
        lambda x: 2 * x * (2 * x).cos(),
    ),
    "jvp-vmap-grad": Case(
        lambda f: _slope(functx.vmap(functx.grad(_scalar(f)))), lambda x: 2 * (2 * x).cos()
    ),
    "vmap-jvp-grad": Case(
        lambda f: functx.vmap(_slope(functx.grad(_scalar(f)))), lambda x: 2 * (2 * x).cos()
    ),
    "grad-jvp": Case(lambda f: functx.grad(_scalar(_slope(f))), lambda x: 2 * (2 * x).cos()),
    "grad-jvp-grad": Case(
        lambda f: functx.grad(_scalar(_slope(functx.grad(_scalar(f))))),
        lambda x: -4 * (2 * x).sin(),
    ),
    "jvp-jvp-grad": Case(
        lambda f: _slope(_slope(functx.grad(_scalar(f)))), lambda x: -4 * (2 * x).sin()
    ),
    "grad-vmap-grad-vmap": Case(
        lambda f: functx.grad(_scalar(functx.vmap(functx.grad(lambda x: functx.vmap(f)(x).sum())))),
        lambda x: 2 * (2 * x).cos(),
    ),
}
