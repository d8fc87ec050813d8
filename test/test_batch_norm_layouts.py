"""Gradients of batch_norm where strides say little of how a tensor lies in memory: PyTorch's kernel
reads such weights and gradients at wrong places.

The references are gradients of the formula written out, by plain autograd.
"""

import pytest
import torch
from _reference import randn
from torch.nn import functional
from torch.testing import assert_close

from functx import grad, jvp, vmap

EPS = 1e-5


def by_formula(x, weight, bias, mean, var):
    if mean is None:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    column = lambda t: t[:, None, None]
    normed = (x - column(mean)) / (column(var) + EPS).sqrt()
    return normed * column(weight) + column(bias)


def by_operator(x, weight, bias, mean, var):
    return functional.batch_norm(x, mean, var, weight, bias, training=mean is None, eps=EPS)


def unsettled(x):
    """The same in the places of channels_last, with free strides for a dimension of size one."""
    tokens = x.flatten(2).transpose(1, 2).contiguous()  # [1, H * W, C]
    return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


def loss(norm, arrange=lambda x: x):
    """Its gradient comes to the operator as `arrange` leaves it."""

    def f(x, weight, bias, mean, var):
        y = norm(x, weight, bias, mean, var)
        return (arrange(y) * torch.arange(y.numel(), dtype=y.dtype).view(y.shape).cos()).sum()

    return f


def statistics(channels, training):
    return (None, None) if training else (randn(channels), randn(channels).exp())


SHAPES = [(1, 1, 1, 1), (2, 1, 1, 1), (1, 3, 1, 1), (1, 1, 2, 3)]


@pytest.mark.parametrize(
    ("shape", "training"),
    # To train, PyTorch wants more than one value in a channel.
    [(s, t) for s in SHAPES for t in (False, True) if not t or s[0] * s[2] * s[3] > 1],
)
def test_sizes_of_one(shape, training):
    xs, weight, bias = randn(4, *shape), randn(shape[1]), randn(shape[1])
    mean, var = statistics(shape[1], training)
    of_each = lambda norm: lambda x: grad(loss(norm), (0, 1, 2))(x, weight, bias, mean, var)
    expected = [of_each(by_formula)(x) for x in xs]
    actual = vmap(of_each(by_operator))(xs)
    for got, parts in zip(actual, zip(*expected, strict=True), strict=True):
        assert_close(got, torch.stack(parts), atol=1e-6, rtol=1e-6)


class Arranged(torch.autograd.Function):
    """The identity, whose gradient has free strides."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return unsettled(g)

    @staticmethod
    def vmap(info, in_dims, x):
        return Arranged.apply(x), in_dims[0]


@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_free_strides(training):
    x, weight, bias = randn(1, 5, 4, 3), randn(5), randn(5)
    mean, var = statistics(5, training)
    cotangent = unsettled(randn(1, 5, 4, 3))
    assert cotangent.is_contiguous(memory_format=torch.channels_last)

    def pulled(norm, x, cotangent):
        f = lambda x: (norm(x, weight, bias, mean, var) * cotangent).sum()
        return grad(f)(x)

    expected = pulled(by_formula, x, cotangent)
    xs, cotangents = x.expand(3, 1, 5, 4, 3), cotangent.expand(3, 1, 5, 4, 3)
    for dims in (0, 0), (0, None), (None, 0):
        args = [
            a if dim == 0 else b
            for a, b, dim in zip((xs, cotangents), (x, cotangent), dims, strict=True)
        ]
        actual = vmap(lambda x, c: pulled(by_operator, x, c), dims)(*args)
        assert_close(actual, expected.expand(3, 1, 5, 4, 3))
    tangent = randn(1, 5, 4, 3)
    got = jvp(lambda x: pulled(by_operator, x, cotangent), (x,), (tangent,))[1]
    assert_close(got, jvp(lambda x: pulled(by_formula, x, cotangent), (x,), (tangent,))[1])
