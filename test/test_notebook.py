"""Every computation of the Jacobians-and-Hessians notebook, against plain autograd and loops."""

from functools import partial

import pytest
import torch
from _reference import assert_equal_trees, autograd_jacobian, randn
from torch.nn import functional as F
from torch.testing import assert_close

from functx import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap


def predict(weight, bias, x):
    return F.linear(x, weight, bias).tanh()


def problem(d_in, d_out, batch=None):
    x = randn(d_in) if batch is None else randn(batch, d_in)
    return randn(d_out, d_in) / d_in**0.5, randn(d_out), x


def analytic_jacobian(weight, bias, x):
    y = predict(weight, bias, x)
    return (1 - y**2)[:, None] * weight


def analytic_hessian(weight, bias, x):
    y = predict(weight, bias, x)
    return (-2 * y * (1 - y**2))[:, None, None] * weight[:, :, None] * weight[:, None, :]


def row_by_row(weight, bias, x):
    """The notebook's own loop: one backward per unit vector."""
    x = x.clone().requires_grad_()
    rows = [
        torch.autograd.grad(predict(weight, bias, x), x, unit)[0]
        for unit in torch.eye(bias.numel(), dtype=x.dtype)
    ]
    return torch.stack(rows)


def test_vmap_over_a_pullback_is_the_jacobian():
    weight, bias, x = problem(16, 16)
    _, pullback = vjp(partial(predict, weight, bias), x)
    (actual,) = vmap(pullback)(torch.eye(16, dtype=x.dtype))
    assert_close(actual, row_by_row(weight, bias, x))
    assert_close(actual, analytic_jacobian(weight, bias, x))


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
@pytest.mark.parametrize(("d_in", "d_out"), [(16, 16), (32, 2048), (2048, 32)])
def test_jacobian_with_respect_to_the_features(jacobian, d_in, d_out):
    weight, bias, x = problem(d_in, d_out)
    actual = jacobian(predict, argnums=2)(weight, bias, x)
    assert actual.shape == (d_out, d_in)
    assert_close(actual, analytic_jacobian(weight, bias, x))
    if d_out <= 32:
        assert_close(actual, row_by_row(weight, bias, x))


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobian_with_respect_to_the_parameters(jacobian):
    weight, bias, x = problem(16, 16)
    actual = jacobian(predict, argnums=(0, 1))(weight, bias, x)
    assert actual[0].shape == (16, 16, 16)
    assert_equal_trees(actual, autograd_jacobian(lambda w, b: predict(w, b, x), weight, bias))


@pytest.mark.parametrize(
    "second",
    [
        lambda f: hessian(f, argnums=2),
        lambda f: jacfwd(jacfwd(f, argnums=2), argnums=2),
        lambda f: jacrev(jacrev(f, argnums=2), argnums=2),
        lambda f: jacfwd(jacrev(f, argnums=2), argnums=2),
        lambda f: jacrev(jacfwd(f, argnums=2), argnums=2),
    ],
    ids=["hessian", "fwdfwd", "revrev", "fwdrev", "revfwd"],
)
def test_hessian(second):
    weight, bias, x = problem(24, 8)
    actual = second(predict)(weight, bias, x)
    assert actual.shape == (8, 24, 24)
    assert_close(actual, analytic_hessian(weight, bias, x))


@pytest.mark.slow
def test_hessian_at_the_size_of_the_notebook():
    weight, bias, x = problem(512, 32)
    expected = analytic_hessian(weight, bias, x)
    assert_close(hessian(predict, argnums=2)(weight, bias, x), expected)
    assert_close(jacfwd(jacfwd(predict, argnums=2), argnums=2)(weight, bias, x), expected)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_batch_jacobian(jacobian):
    weight, bias, x = problem(31, 33, batch=64)
    actual = vmap(jacobian(predict, argnums=2), in_dims=(None, None, 0))(weight, bias, x)
    assert actual.shape == (64, 33, 31)
    assert_close(actual, torch.stack([analytic_jacobian(weight, bias, row) for row in x]))


def test_batch_jacobian_by_summing_the_outputs():
    weight, bias, x = problem(31, 33, batch=64)

    def summed(weight, bias, x):
        return predict(weight, bias, x).sum(0)

    actual = jacrev(summed, argnums=2)(weight, bias, x).movedim(1, 0)
    assert_close(actual, torch.stack([row_by_row(weight, bias, row) for row in x]))


def test_batch_hessian():
    weight, bias, x = problem(11, 13, batch=16)
    actual = vmap(hessian(predict, argnums=2), in_dims=(None, None, 0))(weight, bias, x)
    assert actual.shape == (16, 13, 11, 11)
    assert_close(actual, torch.stack([analytic_hessian(weight, bias, row) for row in x]))


def hvp_forward_over_reverse(f, primals, tangents):
    return jvp(grad(f), primals, tangents)[1]


def hvp_reverse_over_reverse(f, primals, tangents):
    _, pullback = vjp(grad(f), *primals)
    return pullback(*tangents)[0]


def hvp_reverse_over_forward(f, primals, tangents):
    return grad(lambda x: jvp(f, (x,), tangents)[1])(*primals)


@pytest.mark.parametrize(
    "hvp", [hvp_forward_over_reverse, hvp_reverse_over_reverse, hvp_reverse_over_forward]
)
def test_hessian_vector_product(hvp):
    x, tangent = randn(2048), randn(2048)

    def f(x):
        return x.sin().sum()

    assert_close(hvp(f, (x,), (tangent,)), -x.sin() * tangent)


@pytest.mark.parametrize(
    "hvp", [hvp_forward_over_reverse, hvp_reverse_over_reverse, hvp_reverse_over_forward]
)
def test_hessian_vector_product_of_the_model(hvp):
    weight, bias, x = problem(24, 8)
    tangent = randn(24)
    expected = analytic_hessian(weight, bias, x).sum(0) @ tangent
    assert_close(hvp(lambda x: predict(weight, bias, x).sum(), (x,), (tangent,)), expected)


def test_vector_hessian_products_of_a_batch():
    weight, bias, x = problem(24, 8, batch=5)
    tangents = randn(5, 24)

    def product(x, tangent):
        return hvp_forward_over_reverse(lambda x: predict(weight, bias, x).sum(), (x,), (tangent,))

    expected = [
        analytic_hessian(weight, bias, a).sum(0) @ t for a, t in zip(x, tangents, strict=True)
    ]
    assert_close(vmap(product)(x, tangents), torch.stack(expected))


def test_everything_in_single_precision():
    weight, bias, x = (t.float() for t in problem(16, 16))
    expected = analytic_jacobian(weight, bias, x)
    assert_close(jacrev(predict, argnums=2)(weight, bias, x), expected)
    assert_close(jacfwd(predict, argnums=2)(weight, bias, x), expected)
    assert_close(hessian(predict, argnums=2)(weight, bias, x), analytic_hessian(weight, bias, x))
