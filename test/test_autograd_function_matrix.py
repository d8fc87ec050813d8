"""Every kind of autograd.Function in every composition, against loops and plain autograd."""

import pytest
import torch
from _functions import KINDS
from _reference import autograd_grad, autograd_jacobian, basis, randn
from torch.testing import assert_close

import functx
from functx import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

kinds = pytest.mark.parametrize("kind", KINDS)


def smooth(f):
    """`f` between other operators: what is around a Function has derivatives too."""
    return lambda x: f(x * x.cos()) * x


def loss(f):
    return lambda x: (smooth(f)(x) ** 2).sum()


def value(f, x):
    return smooth(f)(x.clone()).detach()


def jacobian(f, x):
    return autograd_jacobian(smooth(f), x)[0]


def gradient(f, x):
    return autograd_grad(loss(f), x)[0]


def hessian_matrix(f, x):
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(f)(x), x, create_graph=True)
    rows = [torch.autograd.grad(first, x, u, retain_graph=True)[0] for u in basis(first)]
    return torch.stack(rows)


def stacked(reference, f, batch):
    return torch.stack([reference(f, x) for x in batch])


def of_batch(f):
    return lambda batch: vmap(f)(batch).sum()


def directional(f):
    """The derivative in the direction of ones."""
    return lambda x: jvp(f, (x,), (torch.ones_like(x),))[1]


def linearized(f):
    """The same, by a linear map."""
    return lambda x: linearize(f, x)[1](torch.ones_like(x))


# Name: the composition, which is given f and a batch, and what it should be.
COMPOSITIONS = {
    "vmap": (lambda f, b: vmap(smooth(f))(b), lambda f, b: stacked(value, f, b)),
    "vmap of columns": (
        lambda f, b: vmap(smooth(f), in_dims=1, out_dims=1)(b.T.contiguous()).T,
        lambda f, b: stacked(value, f, b),
    ),
    "vmap(vmap)": (
        lambda f, b: vmap(vmap(smooth(f)))(b.view(2, 2, 3)).view(4, 3),
        lambda f, b: stacked(value, f, b),
    ),
    "grad": (lambda f, b: grad(loss(f))(b[0]), lambda f, b: gradient(f, b[0])),
    "vmap(grad)": (lambda f, b: vmap(grad(loss(f)))(b), lambda f, b: stacked(gradient, f, b)),
    "grad(vmap)": (
        lambda f, b: grad(of_batch(loss(f)))(b),
        lambda f, b: stacked(gradient, f, b),
    ),
    "grad(vmap(vmap))": (
        lambda f, b: grad(lambda b: vmap(vmap(loss(f)))(b).sum())(b.view(2, 2, 3)).view(4, 3),
        lambda f, b: stacked(gradient, f, b),
    ),
    "vmap(grad(vmap))": (
        lambda f, b: vmap(grad(of_batch(loss(f))))(b.view(2, 2, 3)).view(4, 3),
        lambda f, b: stacked(gradient, f, b),
    ),
    "vmap(vjp)": (
        lambda f, b: vmap(lambda x: vjp(smooth(f), x)[1](x)[0])(b),
        lambda f, b: torch.stack([x @ jacobian(f, x) for x in b]),
    ),
    "vmap of vjp_fn": (
        lambda f, b: vmap(vjp(smooth(f), b[0])[1])(b)[0],
        lambda f, b: b @ jacobian(f, b[0]),
    ),
    "vmap of vjp_fn of vmap": (
        lambda f, b: vmap(vjp(vmap(smooth(f)), b)[1])(b.expand(2, 4, 3))[0][1],
        lambda f, b: torch.stack([x @ jacobian(f, x) for x in b]),
    ),
    "jacrev": (lambda f, b: jacrev(smooth(f))(b[0]), lambda f, b: jacobian(f, b[0])),
    "jacrev(vmap)": (
        lambda f, b: jacrev(vmap(smooth(f)))(b).diagonal(dim1=0, dim2=2).movedim(-1, 0),
        lambda f, b: stacked(jacobian, f, b),
    ),
    "vmap(jacrev)": (
        lambda f, b: vmap(jacrev(smooth(f)))(b),
        lambda f, b: stacked(jacobian, f, b),
    ),
    "jvp": (
        lambda f, b: directional(smooth(f))(b[0]),
        lambda f, b: jacobian(f, b[0]).sum(1),
    ),
    "vmap(jvp)": (
        lambda f, b: vmap(directional(smooth(f)))(b),
        lambda f, b: stacked(jacobian, f, b).sum(2),
    ),
    "jvp(vmap)": (
        lambda f, b: directional(vmap(smooth(f)))(b),
        lambda f, b: stacked(jacobian, f, b).sum(2),
    ),
    "vmap(jvp(vmap))": (
        lambda f, b: vmap(directional(vmap(smooth(f))))(b.view(2, 2, 3)).view(4, 3),
        lambda f, b: stacked(jacobian, f, b).sum(2),
    ),
    "jacfwd": (lambda f, b: jacfwd(smooth(f))(b[0]), lambda f, b: jacobian(f, b[0])),
    "vmap(jacfwd)": (
        lambda f, b: vmap(jacfwd(smooth(f)))(b),
        lambda f, b: stacked(jacobian, f, b),
    ),
    "jacfwd(vmap)": (
        lambda f, b: jacfwd(vmap(smooth(f)))(b).diagonal(dim1=0, dim2=2).movedim(-1, 0),
        lambda f, b: stacked(jacobian, f, b),
    ),
    "linearize": (
        lambda f, b: linearized(smooth(f))(b[0]),
        lambda f, b: jacobian(f, b[0]).sum(1),
    ),
    "vmap of jvp_fn": (
        lambda f, b: vmap(linearize(smooth(f), b[0])[1])(b),
        lambda f, b: b @ jacobian(f, b[0]).T,
    ),
    "vmap(linearize)": (
        lambda f, b: vmap(linearized(smooth(f)))(b),
        lambda f, b: stacked(jacobian, f, b).sum(2),
    ),
    "linearize(vmap)": (
        lambda f, b: linearized(vmap(smooth(f)))(b),
        lambda f, b: stacked(jacobian, f, b).sum(2),
    ),
    "linearize(grad)": (
        lambda f, b: linearized(grad(loss(f)))(b[0]),
        lambda f, b: hessian_matrix(f, b[0]).sum(1),
    ),
    "grad(linearize)": (
        lambda f, b: grad(linearized(loss(f)))(b[0]),
        lambda f, b: hessian_matrix(f, b[0]).sum(1),
    ),
    "jvp(linearize)": (
        lambda f, b: directional(linearized(loss(f)))(b[0]),
        lambda f, b: hessian_matrix(f, b[0]).sum(),
    ),
    "vmap(linearize(vmap(grad)))": (
        lambda f, b: vmap(linearized(vmap(grad(loss(f)))))(b.view(2, 2, 3)).view(4, 3),
        lambda f, b: stacked(hessian_matrix, f, b).sum(2),
    ),
    "hessian": (lambda f, b: hessian(loss(f))(b[0]), lambda f, b: hessian_matrix(f, b[0])),
    "vmap(hessian)": (
        lambda f, b: vmap(hessian(loss(f)))(b),
        lambda f, b: stacked(hessian_matrix, f, b),
    ),
    "jacrev(jacrev)": (
        lambda f, b: jacrev(jacrev(loss(f)))(b[0]),
        lambda f, b: hessian_matrix(f, b[0]),
    ),
    "jacfwd(jacfwd)": (
        lambda f, b: jacfwd(jacfwd(loss(f)))(b[0]),
        lambda f, b: hessian_matrix(f, b[0]),
    ),
    "jacrev(jacfwd)": (
        lambda f, b: jacrev(jacfwd(loss(f)))(b[0]),
        lambda f, b: hessian_matrix(f, b[0]),
    ),
    "vmap(jacrev(jacfwd))": (
        lambda f, b: vmap(jacrev(jacfwd(loss(f))))(b),
        lambda f, b: stacked(hessian_matrix, f, b),
    ),
    "grad(jvp)": (
        lambda f, b: grad(directional(loss(f)))(b[0]),
        lambda f, b: hessian_matrix(f, b[0]).sum(1),
    ),
    "jvp(grad)": (
        lambda f, b: directional(grad(loss(f)))(b[0]),
        lambda f, b: hessian_matrix(f, b[0]).sum(1),
    ),
    "jvp(grad(vmap))": (
        lambda f, b: directional(grad(of_batch(loss(f))))(b),
        lambda f, b: stacked(hessian_matrix, f, b).sum(2),
    ),
    "jvp(vmap(grad))": (
        lambda f, b: directional(vmap(grad(loss(f))))(b),
        lambda f, b: stacked(hessian_matrix, f, b).sum(2),
    ),
    "grad(vmap(grad))": (
        lambda f, b: grad(lambda b: vmap(grad(loss(f)))(b).sum())(b),
        lambda f, b: stacked(hessian_matrix, f, b).sum(2),
    ),
    "grad(vmap(jvp))": (
        lambda f, b: grad(of_batch(directional(loss(f))))(b),
        lambda f, b: stacked(hessian_matrix, f, b).sum(2),
    ),
    "grad(grad(vmap))": (
        lambda f, b: grad(lambda b: grad(of_batch(loss(f)))(b).sum())(b),
        lambda f, b: stacked(hessian_matrix, f, b).sum(2),
    ),
    "vmap(grad(jvp(vmap)))": (
        lambda f, b: vmap(grad(directional(of_batch(loss(f)))))(b.view(2, 2, 3)).view(4, 3),
        lambda f, b: stacked(hessian_matrix, f, b).sum(2),
    ),
}


@kinds
@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_own_rules_in_every_composition(kind, composition):
    actual, expected = COMPOSITIONS[composition]
    f, batch = KINDS[kind], randn(4, 3)
    assert_close(actual(f, batch), expected(f, batch))


@kinds
def test_plain_autograd_around_vmap(kind):
    f, batch = KINDS[kind], randn(4, 3)
    leaf = batch.clone().requires_grad_()
    (first,) = torch.autograd.grad(of_batch(loss(f))(leaf), leaf, create_graph=True)
    assert_close(first.detach(), stacked(gradient, f, batch))
    (second,) = torch.autograd.grad(first.sum(), leaf)
    assert_close(second, stacked(hessian_matrix, f, batch).sum(2))


@kinds
def test_no_level_is_left_behind(kind):
    functx.vmap(functx.grad(loss(KINDS[kind])))(randn(2, 3))
    assert functx._C.level_depth() == 0
