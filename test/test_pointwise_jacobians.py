"""The Jacobian of a function of single elements is diagonal, and the diagonal is the gradient of
the sum: by jacrev, where only the cotangents are mapped, and by jacfwd and hessian, wherever the
elements lie in memory and whatever library computes them."""

import contextlib
import re

import pytest
import torch
import torch.nn.functional as F
from _op_db import ENTRIES
from torch.testing import assert_close
from torch.testing._internal.opinfo.core import UnaryUfuncInfo

import functx

ACTIVATIONS = [
    F.celu,
    F.elu,
    F.gelu,
    F.hardshrink,
    F.hardsigmoid,
    F.hardswish,
    F.hardtanh,
    F.leaky_relu,
    F.logsigmoid,
    F.mish,
    F.relu,
    F.relu6,
    F.rrelu,
    F.selu,
    F.silu,
    F.softplus,
    F.softshrink,
    F.softsign,
    F.tanhshrink,
]
FUNCTIONS = {
    **{f.__name__: f for f in ACTIVATIONS},
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "prelu": lambda x: F.prelu(x, torch.full((3,), 0.25, dtype=x.dtype)),
    "threshold": lambda x: F.threshold(x, 0.1, 2.0),
}
# Not of one tensor alone, or not to a real number of the same dtype.
NOT_UNARY = re.compile(
    "frexp|prelu|threshold|mvlgamma|polygamma|^(bfloat16|double|float|half|cdouble|cfloat|chalf)$|fill"
)
UNARY = {
    name: entry.op
    for name, entry in ENTRIES.items()
    if isinstance(entry, UnaryUfuncInfo) and entry.supports_autograd and not NOT_UNARY.search(name)
}
ABOVE_ONE = {"acosh"}
# PyTorch has no second derivative of it, which is zero, and its backward kernel has 1 / 6 in single
# precision, whatever the dtype: jacrev is PyTorch's autograd, but jacfwd is not.
HARDSIGMOID = "hardsigmoid"

SHAPE = (2, 3, 2, 2)
LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[:1, :, :1].expand(SHAPE),
}
TOLERANCES = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-9},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def example(layout, dtype, name=""):
    """Numbers between 0.2 and 0.8, where these functions are smooth, or between 1.2 and 1.8."""
    x = 0.2 + (name in ABOVE_ONE) + 0.6 * torch.rand(SHAPE, dtype=torch.float64)
    return LAYOUTS[layout](x.to(dtype))


def gradient_of_sum(function, x):
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    return gradient


def diagonal(values):
    return torch.diag(values.flatten()).reshape(values.shape * 2)


def check_jacobians(name, function, x):
    gradient = gradient_of_sum(function, x)
    assert_close(functx.jacrev(function)(x), diagonal(gradient), **TOLERANCES[x.dtype])
    slope = torch.full_like(x, 1 / 6) if HARDSIGMOID in name else gradient
    assert_close(functx.jacfwd(function)(x), diagonal(slope), **TOLERANCES[x.dtype])


def check_hessian(name, function, x):
    """Of the sum of the values, each times a number of its own."""
    weights = torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype).reshape(x.shape)
    total = lambda x: (function(x) * weights).sum()
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf, create_graph=True)
    second = torch.zeros_like(x)
    if gradient.requires_grad and HARDSIGMOID not in name:
        second = torch.autograd.grad(gradient.sum(), leaf, materialize_grads=True)[0]
    assert_close(functx.hessian(total)(x), diagonal(second), **TOLERANCES[x.dtype])


def check_single_operands(function, x):
    """vmap(vjp) of one batched operand at a time, against a loop."""
    xs = torch.stack([x, 0.5 * x, 0.25 * x])
    cotangents = torch.stack([torch.ones_like(x), x, x * x])

    def pull(x, cotangent):
        return functx.vjp(function, x)[1](cotangent)[0]

    def pull_plain(x, cotangent):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x, cotangent)[0]

    for in_dims in (0, None), (None, 0), (0, 0):
        args = [a if d == 0 else a[1] for a, d in zip((xs, cotangents), in_dims, strict=True)]
        rows = [
            [a if d is None else a[b] for a, d in zip(args, in_dims, strict=True)] for b in range(3)
        ]
        expected = torch.stack([pull_plain(*row) for row in rows])
        assert_close(functx.vmap(pull, in_dims)(*args), expected, **TOLERANCES[x.dtype])


@pytest.mark.parametrize(("onednn", "count"), [(True, 1), (True, 2), (False, 1)])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation(name, layout, dtype, onednn, count):
    x = example(layout, dtype)
    with torch.backends.mkldnn.flags(enabled=onednn), threads(count):
        check_jacobians(name, FUNCTIONS[name], x)
        check_single_operands(FUNCTIONS[name], x)
        if dtype != torch.bfloat16:
            check_hessian(name, FUNCTIONS[name], x)


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    for dtype in torch.float64, torch.float32:
        if dtype in ENTRIES[name].dtypes:
            for layout in "contiguous", "channels_last":
                x = example(layout, dtype, name)
                check_jacobians(name, UNARY[name], x)
                check_hessian(name, UNARY[name], x)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_operands_of_a_backward_that_broadcast(dtype):
    """The kernels of these do not: oneDNN's by neither operand, log_sigmoid's by the gradient."""
    aten = torch.ops.aten
    whole, part = example("contiguous", dtype), example("contiguous", dtype)[0]
    for backward in aten.gelu_backward, lambda g, x: aten.log_sigmoid_backward(g, x, x.abs()):
        for grad, x, in_dims in (whole, part, (0, None)), (part, whole, (None, 0)):
            rows = [
                backward(grad[b] if in_dims[0] == 0 else grad, x[b] if in_dims[1] == 0 else x)
                for b in range(SHAPE[0])
            ]
            actual = functx.vmap(backward, in_dims)(grad, x)
            assert_close(actual, torch.stack(rows), **TOLERANCES[dtype])
