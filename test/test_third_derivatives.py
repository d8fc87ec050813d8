"""Operators that save a statistic for their backward: derivatives of any order, by all routes.

A backward that takes what it saved for a constant has the right derivative, but this one may have
none that is right. The reference is a polynomial through values of the function.
"""

import pytest
import torch
from _curves import along, by_route, derivatives_at_zero, of_examples, routes
from _reference import randn
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import functx


def layer_norm(x):
    return functional.layer_norm(x[:12].view(3, 4), (4,), x[12:16], x[16:20])


def plain_layer_norm(x):
    return functional.layer_norm(x.view(3, 2, 2), (2, 2))


def layer_norm_with_bias(x):
    return torch.native_layer_norm(x[:12].view(3, 4), (4,), None, x[12:16], 1e-5)[0]


def layer_norm_of_constant(x):
    return functional.layer_norm(torch.arange(12.0).double().view(3, 4).sin(), (4,), x) * x


def batch_norm(x):
    return functional.batch_norm(
        x[:12].view(3, 2, 2), None, None, x[12:14], x[14:16], training=True
    )


def batch_norm_of_images(x):
    return functional.batch_norm(x.view(2, 2, 2, 2), None, None, training=True)


def batch_norm_in_evaluation(x):
    mean, var = torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 0.5]).double()
    return functional.batch_norm(x[:8].view(4, 2), mean, var, x[8:10], x[10:12])


def instance_norm(x):
    return functional.instance_norm(x[:12].view(2, 2, 3), weight=x[12:14], bias=x[14:16])


def group_norm(x):
    return functional.group_norm(x[:16].view(2, 4, 2), 2, x[16:20], x[20:24])


def rms_norm(x):
    return functional.rms_norm(x[:12].view(3, 4), (4,), x[12:16])


def weight_norm(dim):
    def f(x):
        rows = (3, 1) if dim == 0 else (1, 4)
        return torch._weight_norm(x[:12].view(3, 4), x[12 : 12 + max(rows)].view(rows), dim)

    return f


with torch.random.fork_rng():
    torch.manual_seed(0)
    LINEAR = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)).double()
    # A polynomial through values has nothing to say about a function with kinks, such as relu.
    LAYER = nn.TransformerEncoderLayer(
        4, 2, 4, dropout=0.0, activation="gelu", batch_first=True
    ).double()


def parametrized(x):
    names = {name: p.shape for name, p in LINEAR.named_parameters()}
    parts = x[:10].split([shape.numel() for shape in names.values()])
    params = {name: part.view(names[name]) for name, part in zip(names, parts, strict=True)}
    return functx.functional_call(LINEAR, params, (x[10:13].sin(),))


def transformer_layer(x):
    return LAYER(x.view(1, 3, 4))


def local_response_norm(x):
    return functional.local_response_norm(x.view(1, 4, 3), 2)


def logcumsumexp(x):
    weights = torch.tensor([1.0, 0.0, -2.0]).double()
    return torch.logcumsumexp(x.view(3, 4), 0) * weights[:, None]


# Functions of a vector, and its size.
CASES = {
    "layer_norm": (layer_norm, 20),
    "layer_norm without weight": (plain_layer_norm, 12),
    "layer_norm with bias only": (layer_norm_with_bias, 16),
    "layer_norm of a constant": (layer_norm_of_constant, 4),
    "batch_norm": (batch_norm, 16),
    "batch_norm of images": (batch_norm_of_images, 16),
    "batch_norm in evaluation": (batch_norm_in_evaluation, 12),
    "instance_norm": (instance_norm, 16),
    "group_norm": (group_norm, 24),
    "rms_norm": (rms_norm, 16),
    "weight_norm of rows": (weight_norm(0), 16),
    "weight_norm of columns": (weight_norm(1), 16),
    "parametrized by weight_norm": (parametrized, 13),
    "TransformerEncoderLayer": (transformer_layer, 12),
    "local_response_norm": (local_response_norm, 12),
    "logcumsumexp": (logcumsumexp, 12),
}
ORDERS = (1, 2, 3, 4)


def curve(name):
    f, size = CASES[name]
    return along(lambda x: f(x).sin().sum(), randn(size))


@pytest.mark.parametrize("name", CASES)
def test_all_routes(name):
    f = curve(name)
    expected = derivatives_at_zero(f, ORDERS[-1])
    zero = torch.zeros((), dtype=torch.float64)
    for order in ORDERS:
        for route in routes(order):
            actual = by_route(f, route)(zero).item()
            assert actual == pytest.approx(expected[order - 1], rel=1e-5, abs=1e-4), route
            actual = of_examples(by_route(f, route))(zero).item()
            assert actual == pytest.approx(expected[order - 1], rel=1e-5, abs=1e-4), route


@pytest.mark.parametrize("name", CASES)
def test_jacobians_of_jacobians(name):
    """Here a vmap comes between any two derivatives."""
    f, size = CASES[name]
    x, directions = randn(size), randn(2, size)
    g = lambda t: f(x + t @ directions).sin().sum()
    line = torch.tensor([0.6, -0.8], dtype=torch.float64)
    expected = derivatives_at_zero(lambda t: g(t * line), 3)
    zeros = torch.zeros(2, dtype=torch.float64)
    for order in (2, 3):
        for route in routes(order):
            tensor = g
            for mode in route:
                tensor = functx.jacrev(tensor) if mode == "grad" else functx.jacfwd(tensor)
            actual = tensor(zeros)
            for _ in range(order):
                actual = actual @ line
            assert actual.item() == pytest.approx(expected[order - 1], rel=1e-5, abs=1e-4), route


@pytest.mark.parametrize("name", CASES)
def test_under_no_grad(name):
    """Transforms don't care, and neither may statistics."""
    f = curve(name)
    expected = derivatives_at_zero(f, 3)[-1]
    with torch.no_grad():
        for route in routes(3):
            actual = by_route(f, route)(torch.zeros((), dtype=torch.float64)).item()
            assert actual == pytest.approx(expected, rel=1e-5, abs=1e-4), route


@pytest.mark.parametrize("name", CASES)
def test_ordinary_autograd_outside(name):
    """What a transform has recorded is differentiated when it is over."""
    f = curve(name)
    expected = derivatives_at_zero(f, 3)[-1]
    for route in routes(2):
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (actual,) = torch.autograd.grad(by_route(f, route)(t), t)
        assert actual.item() == pytest.approx(expected, rel=1e-5, abs=1e-4), route


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_of_gradients(dtype):
    """A weight in single precision beside values in half precision keeps its type."""
    x, weight = randn(3, 4).to(dtype), randn(4).float()
    loss = lambda x, weight: functional.layer_norm(x, (4,), weight, weight).float().sin().sum()
    inner = lambda x, weight: functx.grad(loss)(x, weight).float().square().sum()
    by_x, by_weight = functx.grad(inner, (0, 1))(x, weight)
    assert (by_x.dtype, by_weight.dtype) == (dtype, torch.float32)
    exact = functx.grad(inner, (0, 1))(x.double(), weight.double())
    tolerance = 1e-4 if dtype is torch.float32 else 0.1
    assert_close(by_x.double(), exact[0], rtol=tolerance, atol=tolerance)
    assert_close(by_weight.double(), exact[1], rtol=tolerance, atol=tolerance)
