"""Transforms as maps from functions R^n -> R^m to functions R^n -> R^k: any number of them compose.

`APPLY` builds the maps from functx, `REFERENCE` from eighth-order central differences. The
reference works on functions of the last dimension of its argument: all points of a stencil are one
leading dimension more, with no vmap and no autograd anywhere.
"""

import torch
from _reference import STENCIL

import functx

SCALES = torch.tensor([0.5, -1.2], dtype=torch.float64)
STEP = 0.01  # differences of differences of differences: exact to about 4e-9


# ---- functx ----------------------------------------------------------------------------------


def apply_vmap(f):
    """Batched in dim 1, out dim -1, and closes over `x`, which an outer transform may hold."""

    def mapped(x):
        columns = x[:, None] * SCALES + 0.3
        return functx.vmap(lambda c: f(c + 0.1 * x), in_dims=1, out_dims=-1)(columns).flatten()

    return mapped


def apply_grad(f):
    return functx.grad(lambda x: f(x).sin().sum())


def apply_vjp(f):
    def mapped(x):
        out, pullback = functx.vjp(f, x)
        return torch.cat([out, *pullback(out.cos())])

    return mapped


def apply_jvp(f):
    def mapped(x):
        return torch.cat(functx.jvp(f, (x,), (x.sin(),)))

    return mapped


def apply_jacrev(f):
    return lambda x: functx.jacrev(f)(x).flatten()


def apply_jacfwd(f):
    return lambda x: functx.jacfwd(f)(x).flatten()


APPLY = {
    "vmap": apply_vmap,
    "grad": apply_grad,
    "vjp": apply_vjp,
    "jvp": apply_jvp,
    "jacrev": apply_jacrev,
    "jacfwd": apply_jacfwd,
}


# ---- finite differences ----------------------------------------------------------------------


def difference(f, x, directions):
    """Derivatives of `f` at x (..., n) along directions (..., d, n), shape (..., d, m)."""
    steps = torch.tensor([s * k * STEP for k, _ in STENCIL for s in (1, -1)], dtype=x.dtype)
    weights = torch.tensor([s * w / STEP for _, w in STENCIL for s in (1, -1)], dtype=x.dtype)
    points = x[..., None, None, :] + steps[:, None] * directions[..., :, None, :]
    return torch.einsum("...dsm,s->...dm", f(points), weights)


def jacobian(f, x):
    """Shape (..., m, n)."""
    unit_vectors = torch.eye(x.shape[-1], dtype=x.dtype)
    return difference(f, x, unit_vectors.expand(*x.shape[:-1], -1, -1)).mT


def reference_vmap(f):
    def mapped(x):
        rows = x[..., None, :] * SCALES[:, None] + 0.3 + 0.1 * x[..., None, :]
        return f(rows).mT.flatten(-2)

    return mapped


def reference_grad(f):
    return lambda x: jacobian(lambda y: f(y).sin().sum(-1, keepdim=True), x).squeeze(-2)


def reference_vjp(f):
    def mapped(x):
        out = f(x)
        return torch.cat([out, torch.einsum("...m,...mn->...n", out.cos(), jacobian(f, x))], -1)

    return mapped


def reference_jvp(f):
    return lambda x: torch.cat([f(x), difference(f, x, x.sin()[..., None, :]).squeeze(-2)], -1)


def reference_jacobian(f):
    return lambda x: jacobian(f, x).flatten(-2)


REFERENCE = {
    "vmap": reference_vmap,
    "grad": reference_grad,
    "vjp": reference_vjp,
    "jvp": reference_jvp,
    "jacrev": reference_jacobian,
    "jacfwd": reference_jacobian,
}


def compose(maps, names, f):
    """compose(maps, ["vmap", "grad"], f) is vmap(grad(f))."""
    for name in reversed(names):
        f = maps[name](f)
    return f


# ---- functions of the last dimension, R^2 -> R^m ---------------------------------------------

WEIGHT = torch.tensor([[0.7, -0.4, 0.2], [0.1, 0.5, -0.9]], dtype=torch.float64)


def dense(x):
    return torch.tanh(x @ WEIGHT + 0.1)


def products(x):
    a, b = x[..., 0], x[..., 1]
    return torch.stack([a * b, a.sin() - b, torch.exp(0.5 * b)], -1)


def writes_in_place(x):
    y = x.new_zeros(*x.shape[:-1], 3)
    y[..., 0] = x.sum(-1)
    y[..., 1:] += x
    y[..., 1:].mul_(x[..., :1])
    return y.sin_()


def attention(x):
    scores = x[..., :, None] * x[..., None, :]
    return torch.einsum("...ij,...j->...i", torch.softmax(scores, -1), x.cos())


def selects(x):
    y = torch.where(x > 0.2, x * x, x / (2 + x))
    return torch.cat([y, y.prod(-1, keepdim=True)], -1)[..., [2, 0, 1]]


FUNCTIONS = {f.__name__: f for f in (dense, products, writes_in_place, attention, selects)}
