"""Operators whose gradient PyTorch can't differentiate again: under functx.grad it can be."""

import pytest
import torch
from _reference import loop_vmap, numeric_jacobian, randn
from torch.nn import functional
from torch.testing import assert_close

import functx

INDICES, OFFSETS = torch.tensor([0, 2, 1, 4, 4, 2]), torch.tensor([0, 2, 2, 5])
TARGETS, LENGTHS = torch.tensor([[1, 2], [2, 2]]), (torch.tensor([5, 4]), torch.tensor([2, 1]))
LABELS = torch.tensor([2, 0, 1])


def bags(mode, **options):
    def f(x):
        table = x.view(5, 2)
        return functional.embedding_bag(INDICES, table, OFFSETS, mode=mode, **options)

    return f


def weighted_bags(x):
    return functional.embedding_bag(
        INDICES, x[:10].view(5, 2), OFFSETS, mode="sum", per_sample_weights=x[10:16]
    )


def ctc(x):
    return functional.ctc_loss(x.view(5, 2, 3).log_softmax(-1), TARGETS, *LENGTHS)


def attention(x, **options):
    query, key, value = x.view(3, 1, 1, 3, 2)
    return functional.scaled_dot_product_attention(query, key, value, **options)


def segments(reduce, **given):
    return lambda x: torch.segment_reduce(x.view(6, 2), reduce, **given, unsafe=True)


def layer_norm(x):
    return torch.native_layer_norm(x[:12].view(3, 4), (4,), None, x[12:16], 1e-5)[0]


# Functions of a vector, and its size.
CASES = {
    "cdist": (lambda x: torch.cdist(x[:6].view(3, 2), x[6:].view(2, 2), p=3.0), 10),
    "cdist of norm 2": (lambda x: torch.cdist(x[:6].view(3, 2), x[6:].view(2, 2)), 10),
    "pdist": (lambda x: functional.pdist(x.view(4, 3)), 12),
    "pdist of norm 4": (lambda x: functional.pdist(x.view(4, 3), p=4.0), 12),
    "ctc_loss": (ctc, 30),
    "hardsigmoid": (lambda x: functional.hardsigmoid(x * 2), 6),
    "multi_margin_loss": (lambda x: functional.multi_margin_loss(x.view(3, 4), LABELS, p=2), 12),
    "multi_margin_loss with weights": (
        lambda x: functional.multi_margin_loss(
            x.view(3, 4), LABELS, p=2, weight=torch.arange(4.0).double(), reduction="sum"
        ),
        12,
    ),
    "multilabel_margin_loss": (
        lambda x: functional.multilabel_margin_loss(x.view(3, 4), LABELS[:, None].expand(3, 4)),
        12,
    ),
    "embedding_bag sum": (bags("sum"), 10),
    "embedding_bag mean": (bags("mean"), 10),
    "embedding_bag max": (bags("max"), 10),
    "embedding_bag with weights": (weighted_bags, 16),
    "segment_reduce sum": (segments("sum", lengths=torch.tensor([2, 1, 3])), 12),
    "segment_reduce mean": (segments("mean", offsets=torch.tensor([0, 2, 3, 6])), 12),
    "segment_reduce max": (segments("max", lengths=torch.tensor([2, 1, 3])), 12),
    "segment_reduce prod": (segments("prod", lengths=torch.tensor([2, 1, 3])), 12),
    "attention": (attention, 18),
    "causal attention": (lambda x: attention(x, is_causal=True), 18),
    "native_layer_norm without a weight": (layer_norm, 16),
}


def loss(f):
    """One whose gradient goes through that of `f` with a gradient that depends on `x`, too."""
    return lambda x: f(x).sin().sum()


def plain_gradient(f):
    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(loss(f)(x), x)[0]

    return gradient


@pytest.mark.parametrize("name", CASES)
def test_hessian_in_reverse(name):
    f, size = CASES[name]
    x = randn(size)
    expected = numeric_jacobian(plain_gradient(f), x)
    assert_close(functx.jacrev(functx.grad(loss(f)))(x), expected, rtol=1e-5, atol=1e-6)
    assert_close(functx.hessian(loss(f))(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_of_a_batch(name):
    f, size = CASES[name]
    x = randn(2, size)
    expected = loop_vmap(lambda x: numeric_jacobian(plain_gradient(f), x))(x)
    actual = functx.vmap(functx.jacrev(functx.grad(loss(f))))(x)
    assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_that_plain_autograd_differentiates(name):
    """It is recorded inside, for a tape outside of all transforms."""
    f, size = CASES[name]
    x = randn(size).requires_grad_()
    v = randn(size)
    (actual,) = torch.autograd.grad(functx.grad(loss(f))(x), x, v)
    assert_close(actual, v @ numeric_jacobian(plain_gradient(f), x.detach()), rtol=1e-5, atol=1e-6)


def test_logaddexp_of_ties_and_infinities():
    """PyTorch's gradient is not a number where both arguments are the same infinity."""
    inf = float("inf")
    x = torch.tensor([1.0, 2.0, -inf, 3.0, inf, -inf, inf], dtype=torch.float64)
    y = torch.tensor([1.0, -inf, 4.0, 2.5, 1.0, -inf, inf], dtype=torch.float64)
    total = lambda x, y: torch.logaddexp(x, y).sum()
    by_both = functx.grad(lambda x, y: functx.grad(total)(x, y).sum(), (0, 1))
    curvature = (torch.sigmoid(x - y) * torch.sigmoid(y - x)).nan_to_num(0)
    assert_close(by_both(x, y), (curvature, -curvature))
    assert_close(functx.grad(functx.grad(lambda x: total(x, y[0])))(x[0]), curvature[0])


def test_norm_of_nothing():
    """PyTorch has a gradient of its gradient that is not a number."""
    gradient = functx.grad(lambda x, scale: scale * torch.linalg.vector_norm(x, 3.5))
    slope = functx.grad(lambda scale: gradient(torch.empty(0), scale).sum())
    assert_close(slope(torch.tensor(2.0)), torch.tensor(0.0))
