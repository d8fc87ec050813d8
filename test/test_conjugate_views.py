"""Conjugate and negative views under the transforms: `x.conj()` and `x.conj().imag` set a bit that
says how to read the memory. A wrapper has the bits of its value, as PyTorch's compositions ask."""

import pytest
import torch
from _reference import assert_equal_trees, forward_ad_jvp, loop_vmap
from torch.nn import functional as F

import functx


def complex_randn(*shape):
    return torch.randn(shape, dtype=torch.complex128)


def conjugate_view(x):
    """Equal to x, held as the conjugate of what is in memory."""
    return x.conj().resolve_conj().conj() if x.is_complex() else x


def negative_view(x):
    """Equal to x, held as the negative of what is in memory."""
    return torch._neg_view(x.neg())


def real_parts_of_a_view(x):
    """Written to; the base has a tangent that is shared."""
    y = x * 1
    shared = y + 1
    y.diagonal().real.mul_(0.5)
    y.conj().imag.mul_(3)
    return y * shared


def conjugate_of_a_view(x):
    y = x + 1
    y.mT.conj()[0].mul_(torch.full((), 2j, dtype=x.dtype))
    return y


def complex_view_of_reals(x):
    y = torch.view_as_real(x.resolve_conj().resolve_neg()) + 1
    torch.view_as_complex(y)[1:].mul_(torch.full((), 2j, dtype=x.dtype))
    return y


def views_taken_before_the_base_is_written_to(x):
    y = torch.zeros_like(x)
    conjugate, real, imaginary = y.conj(), y.mT.conj().real, y[1:].conj().imag
    pairs = torch.view_as_real(y)
    y.copy_(x)
    y.mul_(x)
    return conjugate * 1, real * 1, imaginary * 1, pairs * 1


ANY = {
    "view_as_real": lambda x: torch.view_as_real(x.resolve_conj().resolve_neg()),
    "real_and_imag": lambda x: (x.real * 1, x.imag * 1, x.imag.resolve_neg().sum()),
    "real_of_conj": lambda x: (x.conj().real * 1, x.conj().imag * 1),
    "view_dtype": lambda x: x.resolve_conj().resolve_neg().view(torch.float64),
    "matmul": lambda x: x @ x.mH,
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x.conj()),
    "vdot": lambda x: torch.vdot(x[0], x[1]),
    "inverse": torch.linalg.inv,
    "solve": lambda x: torch.linalg.solve(x, x.conj()),
    "svd_values": torch.linalg.svdvals,
    "fft": torch.fft.fft,
    "hfft": torch.fft.hfft,
    "irfft": torch.fft.irfft,
    "angle": torch.angle,
    "abs": torch.abs,
    "exp": torch.exp,
    "sum": torch.sum,
    "prod": torch.prod,
    "cumsum": lambda x: torch.cumsum(x, 0),
    "norm": torch.linalg.norm,
    "cat": lambda x: torch.cat([x, x.conj()]),
    "stack": lambda x: torch.stack([x, x.conj()]),
    "where": lambda x: torch.where(x.real > 0, x, x.conj()),
    "masked_fill": lambda x: x.masked_fill(x.real > 0, 1j),
    "index_select": lambda x: torch.index_select(x, 0, torch.tensor([2, 0])),
    "index": lambda x: x[[0, 1], [1, 2]],
    "flip_roll": lambda x: x.flip(0).roll(1, 1),
    "pad": lambda x: F.pad(x, (1, 1)),
    "clone": torch.clone,
    "contiguous": lambda x: x.mT.contiguous(),
    "to": lambda x: x.to(torch.complex64),
    "conv": lambda x: F.conv1d(x[None], x[:, :, None]),
    "inplace": lambda x: x.clone().mul_(x).add_(x.conj()),
    "inplace_on_view": lambda x: x.clone().conj().mul_(2j).add_(1),
    "real_parts_of_a_view": real_parts_of_a_view,
    "conjugate_of_a_view": conjugate_of_a_view,
    "complex_view_of_reals": complex_view_of_reals,
    "views_taken_before": views_taken_before_the_base_is_written_to,
    "copy_into": lambda x: torch.zeros_like(x).copy_(x),
    "trace": torch.trace,
    "kron": lambda x: torch.kron(x, x.conj()),
    "loss": lambda x: F.l1_loss(x, x.conj()),
}
# By PyTorch: for functx they are linear.
NOT_DIFFERENTIABLE = {"view_dtype"}
each = pytest.mark.parametrize("f", ANY.values(), ids=ANY.keys())
each_view = pytest.mark.parametrize("view", [conjugate_view, negative_view])


def resolved(f):
    def call(*args):
        result = f(*args)
        results = result if isinstance(result, tuple) else (result,)
        return [x.resolve_conj().resolve_neg() for x in results]

    return call


@each
@each_view
def test_made_inside(f, view):
    x = complex_randn(3, 3, 3)
    g = resolved(lambda x: f(view(x)))
    assert_equal_trees(functx.vmap(g)(x), loop_vmap(g)(x))


@each
@each_view
def test_argument(f, view):
    x = complex_randn(3, 3, 3)
    g = resolved(f)
    assert_equal_trees(functx.vmap(g)(view(x)), loop_vmap(g)(x))
    assert_equal_trees(functx.vmap(g, in_dims=1)(view(x)), loop_vmap(g, in_dims=(1,))(x))


@each
@each_view
def test_nested(f, view):
    x = complex_randn(2, 2, 3, 3)
    g = resolved(lambda x: f(view(x)))
    assert_equal_trees(functx.vmap(functx.vmap(g))(x), loop_vmap(loop_vmap(g))(x))


@each
@each_view
def test_jvp(f, view):
    x, tangent = complex_randn(3, 3), complex_randn(3, 3)
    g = resolved(f)
    if f in [ANY[name] for name in NOT_DIFFERENTIABLE]:
        expected = g(x), g(tangent)
    else:
        expected = forward_ad_jvp(g, (x,), (tangent,))
    assert_equal_trees(functx.jvp(lambda x: g(view(x)), (x,), (tangent,)), expected)
    assert_equal_trees(functx.jvp(g, (view(x),), (view(tangent),)), expected)


@pytest.mark.parametrize("name", sorted(ANY.keys() - NOT_DIFFERENTIABLE))
@each_view
def test_vmap_of_gradients(name, view):
    x = complex_randn(3, 3, 3)

    def loss(x):
        return sum(y.abs().square().sum() for y in resolved(ANY[name])(view(x)))

    def gradient(x):
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(loss(x), x)[0].resolve_conj()

    assert_equal_trees(
        functx.vmap(functx.grad(loss))(x).resolve_conj(),
        loop_vmap(gradient)(x),
        rtol=1e-6,
        atol=1e-9,
    )


@pytest.mark.parametrize("transform", ["vmap", "jvp"])
def test_bits_show(transform):
    seen = []

    def f(x):
        for y in (x, x.conj(), x.conj().imag, x.conj().conj(), x.conj().resolve_conj()):
            seen.append((y.is_conj(), y.is_neg()))
        return x * 1

    x = complex_randn(3)
    functx.vmap(f)(x) if transform == "vmap" else functx.jvp(f, (x,), (x,))
    here = seen.copy()
    seen.clear()
    f(x)
    assert here == seen
