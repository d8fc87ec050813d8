"""Faults that random programs have found, where no other file is about the kind."""

import math

import pytest
import torch
from _program_functions import Doubled, Square
from _reference import randn
from torch.nn import functional
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from functx import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

X = randn(3, 4)

# ---- writes into lists, where one of the tensors is a view ---------------------------------------

VIEWS = {
    "view": lambda x: (x * x).view(2, 2).view(4),
    "row": lambda x: torch.stack([x * x, x])[0],
    "column": lambda x: torch.stack([x * x, x], 1)[:, 0],
    "none": lambda x: x * x,
}


@pytest.mark.parametrize("name", VIEWS)
def test_lists_written_under_vmap_of_grad(name):
    def f(x):
        target = VIEWS[name](x)
        torch._foreach_add_([target], [3 * x])
        return target.sum()

    assert_close(vmap(grad(f))(X), 2 * X + 3)
    assert_close(vmap(jacrev(f))(X), 2 * X + 3)
    assert_close(vmap(jacfwd(f))(X), 2 * X + 3)


def test_lists_written_into_fresh_views():
    def f(x):
        target = torch.zeros(3, 4).t()
        torch._foreach_add_([target], [x[:, None]])
        return target.sum()

    actual = vmap(lambda _, x: grad(f)(x), (0, None))(X, X[0])
    assert_close(actual, torch.full_like(X, 3))


# ---- Functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (2, 3), (2, 2)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_function_mapped_in_a_gradient_that_all_examples_share(size, shape):
    weights = torch.arange(6.0).double()[: shape[0] * shape[1]].view(shape)
    loss = lambda y: (vmap(Square.apply)(y) * weights).sum()
    y = randn(*shape)
    actual = vmap(lambda _, y: grad(loss)(y), (0, None))(randn(size), y)
    assert_close(actual, (2 * y * weights).expand(size, *shape))


LAYOUTS = {
    "rows": lambda x: x.clone(),
    "columns": lambda x: x.mT.clone(),
    "computed columns": lambda x: x.mT + 0,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tangent_of_what_a_function_overwrites(layout):
    f = lambda x: Doubled.apply(LAYOUTS[layout](x))
    x = randn(2, 3, 4)
    ones = torch.ones_like(x)
    along = lambda x: linearize(f, x)[1](torch.ones_like(x))
    assert_close(vmap(along)(x), 2 * LAYOUTS[layout](ones))
    pulled = lambda x: vjp(lambda t: jvp(f, (x,), (t,))[1], x)[1](LAYOUTS[layout](x))[0]
    assert_close(vmap(pulled)(x), 2 * x)


# ---- what is computed again ----------------------------------------------------------------------

# Operators that are recorded otherwise where a second derivative is to come.
RECOMPUTED = {
    "dist": lambda x: torch.dist(x, torch.ones_like(x)),
    "det": lambda x: torch.linalg.det(torch.outer(x, x) + torch.eye(4).double()),
    "sinc": lambda x: (0.01 * x).sinc().sum(),
    "logcumsumexp": lambda x: x.logcumsumexp(0).sum(),
    "layer_norm": lambda x: functional.layer_norm(x, (4,)).sin().sum(),
}


def sinc_series(x):
    """That of `RECOMPUTED`, of which PyTorch's formula leaves few digits near zero."""
    square = (0.01 * math.pi * x) ** 2
    return (1 - square / 6 + square**2 / 120 - square**3 / 5040).sum()


TWICE = {
    "grad(grad)": lambda f: lambda x: grad(lambda x: grad(f)(x).sum())(x),
    "jacrev(jacrev)": lambda f: jacrev(jacrev(f)),
    "hessian": hessian,
    "vmap(grad(grad))": lambda f: lambda x: vmap(grad(lambda x: grad(f)(x).sum()))(x[None])[0],
}


@pytest.mark.parametrize("name", RECOMPUTED)
@pytest.mark.parametrize("transform", TWICE)
def test_checkpoints_of_what_is_recorded_otherwise(transform, name):
    f = RECOMPUTED[name]
    checkpointed = lambda x: checkpoint(f, x, use_reentrant=False)
    expected = torch.autograd.functional.hessian(sinc_series if name == "sinc" else f, X[0])
    if "grad" in transform:
        expected = expected.sum(0)
    assert_close(TWICE[transform](checkpointed)(X[0]), expected)


# ---- modes and points ----------------------------------------------------------------------------


@pytest.mark.parametrize("f", [lambda x: torch.frexp(x)[0], torch.linalg.matrix_exp])
def test_forward_mode_by_pytorch_in_inference_mode(f):
    x = randn(2, 2)
    expected = torch.autograd.functional.jacobian(f, x)
    with torch.inference_mode():
        assert_close(jacfwd(f)(x), expected)
        assert_close(jacfwd(f)(x.clone()), expected)
        assert_close(jvp(f, (x,), (x,))[1], (expected * x).sum((-1, -2)))


@pytest.mark.parametrize("shape", [(1,), (4,)])
def test_std_of_equal_numbers_twice(shape):
    x = torch.full(shape, 0.5, dtype=torch.float64)
    f = lambda x: x.std(0, correction=0)
    zeros = torch.zeros(*shape, *shape, dtype=torch.float64)
    for second in jacrev(jacfwd(f)), jacfwd(jacrev(f)), jacrev(jacrev(f)), jacfwd(jacfwd(f)):
        assert_close(second(x), zeros)


def test_elu_at_its_kink_as_in_reverse():
    x = torch.tensor([0.0, -0.5, 0.5], dtype=torch.float64)
    f = lambda x: functional.elu(x).sum()
    assert_close(jacfwd(grad(f))(x), jacrev(grad(f))(x))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    assert_close(jacfwd(grad(f))(x).diagonal(), torch.autograd.grad(gradient.sum(), leaf)[0])


@pytest.mark.parametrize("zero", [0j, 1 + 1j])
@pytest.mark.parametrize("f", [torch.sgn, lambda z: torch.view_as_complex(torch.view_as_real(z))])
def test_quotients_at_zero(f, zero):
    def along(t):
        z = torch.stack([t[0] * (1 + 0j) + zero, t[1] * 1j + zero])
        return torch.view_as_real(jvp(f, (z,), (torch.ones_like(z),))[1]).sum()

    assert grad(along)(torch.zeros(2, dtype=torch.float64)).isfinite().all()


# ---- results that are the same for every example -------------------------------------------------


def test_each_example_has_its_own_of_a_result_that_is_the_same():
    shared = X.clone()
    out = vmap(lambda x: shared)(X)
    assert out.stride(0) != 0
    out[0].zero_()
    assert_close(out[1], X)
    assert_close(shared, X)
    jacobian = jacrev(lambda x: torch.arange(3.0))(X)
    jacobian[0].copy_(X)
    assert not jacobian[1:].any()


# ---- which matrix was factored -------------------------------------------------------------------


@pytest.mark.parametrize("f", [torch.linalg.det, lambda a: torch.linalg.slogdet(a)[1]])
@pytest.mark.parametrize("dims", [(0, 0), (1, 0), (0, 1), (1, 1), (-1, 0), (0, -1)])
def test_determinants_of_examples_wherever_they_lie(dims, f):
    """PyTorch's formula goes by the strides of one example, and its kernel by those of all."""
    outer, inner = dims
    x = randn(3, 4, 2, 2) + 2 * torch.eye(2).double()
    moved = x.movedim(1, inner + 1 if inner >= 0 else inner)
    # The dimensions of an example, without those that are mapped outside of it.
    moved = moved.movedim(0, outer).contiguous()
    actual = vmap(vmap(grad(f), inner), outer)(moved)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(f(leaf).sum(), leaf)
    assert_close(actual, expected)


def test_powers_of_exponent_zero_and_one():
    """Of b ** e the derivative by b, at e = 0, is zero, but not the one of that by e: 1 / b."""
    base, exponent = torch.tensor(2.0).double(), torch.tensor(0.0).double()
    mixed = jacfwd(jacfwd(torch.pow, argnums=0), argnums=1)
    assert_close(mixed(base, exponent), 1 / base)
    f = lambda x: (x.square() + 1) ** x
    third = jacfwd(jacfwd(jacfwd(f)))(torch.tensor(1.0).double())
    assert_close(third.item(), 28.0254166375661, rtol=1e-12, atol=0)
    assert_close(jacfwd(torch.pow)(0 * base, exponent), torch.zeros_like(base))


# ---- what a transform returns beside -------------------------------------------------------------


@pytest.mark.parametrize("f", [torch.linalg.det, torch.linalg.cholesky, lambda x: x.clone().sin_()])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_aux_of_jacfwd_keeps_its_place_on_a_tape(f, chunk_size):
    x = X[:2, :2]
    x = x @ x.mT + torch.eye(2, dtype=x.dtype)

    def aux(x):
        return jacfwd(lambda x: ((y := f(x).sum()), y), has_aux=True, chunk_size=chunk_size)(x)[1]

    expected = torch.autograd.functional.jacobian(lambda x: f(x).sum(), x)
    assert_close(grad(aux)(x), expected)
    assert_close(jacrev(aux)(x), expected)
    assert_close(jvp(aux, (x,), (x,))[1], (expected * x).sum())
    leaf = x.clone().requires_grad_()
    assert_close(torch.autograd.grad(aux(leaf), leaf)[0], expected)


def test_a_tape_outside_sees_writes_after_a_function_that_jvp_turns_around():
    """Nothing that it saves goes unwatched, though hooks do not get it."""

    class Weighted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y * y

        @staticmethod
        def backward(ctx, gradient):
            x, y = ctx.saved_tensors
            return gradient * y * y, 2 * gradient * x * y

    def f(x):
        a = x.detach() * x
        result = Weighted.apply(a.detach(), a)
        a.fill_(-0.2)
        return result

    leaf = X[0].clone().requires_grad_()
    _, tangent = jvp(f, (leaf,), (X[1],))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        tangent.sum().backward()


# ---- strides that say little ---------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 3])
def test_weights_of_a_convolution_of_single_pixels(kernel):
    """Their strides look like channels_last and like contiguous."""
    images = randn(3, 1, 8, 1, 1).as_strided((3, 1, 8, 1, 1), (8, 8, 1, 8, 8))
    weight = randn(4, 8, kernel, kernel)
    f = lambda w, x: functional.conv2d(x, w, None, 2, kernel // 2).square().sum()
    expected = [torch.autograd.functional.jacobian(lambda w, x=x: f(w, x), weight) for x in images]
    assert_close(vmap(grad(f), (None, 0))(weight, images), torch.stack(expected))
