"""jacrev, jacfwd and hessian: shapes, argnums, pytrees, aux, chunks, zeros, under vmap."""

import pytest
import torch
from _reference import (
    assert_equal_trees,
    autograd_hessian,
    autograd_jacobian,
    numeric_hessian,
    numeric_jacobian,
    randn,
    stack_trees,
)
from torch.testing import assert_close

import functx

both = pytest.mark.parametrize("jacobian", [functx.jacrev, functx.jacfwd], ids=["jacrev", "jacfwd"])


def curved(x, y):
    return torch.tanh(x @ y) * x.sum()


@both
@pytest.mark.parametrize(
    ("input_shape", "output_shape"),
    [
        ((), ()),
        ((), (3,)),
        ((3,), ()),
        ((1,), (1,)),
        ((2, 3), (4,)),
        ((2, 3), (4, 2)),
        ((5,), (2,)),
    ],
)
def test_shapes(jacobian, input_shape, output_shape):
    x, weight = randn(*input_shape), randn(*output_shape)

    def f(x):
        return (weight * x.sin().sum() + x.square().mean()).cos()

    actual = jacobian(f)(x)
    assert actual.shape == output_shape + input_shape
    assert_close(actual, autograd_jacobian(f, x)[0])
    assert_close(actual, numeric_jacobian(f, x))


@both
@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (0, 1), (1, 0)])
def test_argnums(jacobian, argnums):
    args = randn(2, 3), randn(3)
    reference = autograd_jacobian(curved, *args)
    if isinstance(argnums, int):
        expected = reference[argnums]
    else:
        expected = tuple(reference[i] for i in argnums)
    assert_equal_trees(jacobian(curved, argnums=argnums)(*args), expected)


@both
def test_pytrees_in_and_out(jacobian):
    params = {"w": randn(2, 2), "b": [randn(2)]}
    x = randn(2)

    def f(params, x):
        y = (params["w"] @ x + params["b"][0]).sin()
        return {"y": y, "loss": (y.sum(),)}

    def reference(select):
        w, b = autograd_jacobian(
            lambda w, b: select(f({"w": w, "b": [b]}, x)), params["w"], params["b"][0]
        )
        return {"w": w, "b": [b]}

    expected = {
        "y": reference(lambda out: out["y"]),
        "loss": (reference(lambda out: out["loss"][0]),),
    }
    assert_equal_trees(jacobian(f)(params, x), expected)


@both
def test_several_outputs_of_several_arguments(jacobian):
    args = randn(2, 3), randn(3)

    def f(x, y):
        return curved(x, y), x.exp()

    expected = (
        autograd_jacobian(curved, *args),
        autograd_jacobian(lambda x, y: x.exp(), *args),
    )
    assert_equal_trees(jacobian(f, argnums=(0, 1))(*args), expected)


@both
def test_aux(jacobian):
    x = randn(3)
    actual, aux = jacobian(lambda x: (x.sin(), {"y": x + 1}), has_aux=True)(x)
    assert_close(actual, torch.diag(x.cos()))
    assert_close(aux["y"], x + 1)


@both
def test_zeros_identity_and_constants(jacobian):
    x, y = randn(3), randn(2)
    eye = torch.eye(3, dtype=x.dtype)
    assert_close(jacobian(lambda x: x)(x), eye)
    assert_equal_trees(
        jacobian(lambda x, y: 2 * x, argnums=(0, 1))(x, y),
        (2 * eye, torch.zeros(3, 2, dtype=x.dtype)),
    )
    constant = torch.ones(2, dtype=x.dtype)
    assert_close(jacobian(lambda x: constant)(x), torch.zeros(2, 3, dtype=x.dtype))
    outputs = jacobian(lambda x: (x, constant))(x)
    assert_equal_trees(outputs, (eye, torch.zeros(2, 3, dtype=x.dtype)))


@both
def test_the_same_tensor_twice(jacobian):
    x = randn(3)
    actual = jacobian(lambda x, y: x * y**2, argnums=(0, 1))(x, x)
    assert_equal_trees(actual, (torch.diag(x**2), torch.diag(2 * x * x)))


@both
def test_closure_and_other_arguments(jacobian):
    x, weight = randn(3), randn(3)
    actual = jacobian(lambda x, power, *, scale: scale * weight * x**power)(x, 3, scale=2.0)
    assert_close(actual, torch.diag(6 * weight * x**2))


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5, 100])
def test_jacrev_in_chunks(chunk_size):
    args = randn(3, 2), randn(2)

    def f(x, y):
        return curved(x, y), y.exp()

    actual = functx.jacrev(f, argnums=(0, 1), chunk_size=chunk_size)(*args)
    expected = (autograd_jacobian(curved, *args), autograd_jacobian(lambda x, y: y.exp(), *args))
    assert_equal_trees(actual, expected)


@both
def test_under_vmap(jacobian):
    xs, y = randn(4, 2, 3), randn(3)
    actual = functx.vmap(jacobian(curved, argnums=(0, 1)), in_dims=(0, None))(xs, y)
    expected = stack_trees([autograd_jacobian(curved, x, y) for x in xs])
    assert_equal_trees(actual, expected)


@both
def test_around_vmap(jacobian):
    x = randn(3, 2)
    actual = jacobian(functx.vmap(lambda row: row.prod() * row, in_dims=0))(x)
    expected = autograd_jacobian(lambda x: x.prod(1, keepdim=True) * x, x)[0]
    assert_close(actual, expected)


@both
def test_result_can_be_differentiated_by_autograd(jacobian):
    x, weight = randn(3), randn(3, 3).requires_grad_()
    jacobian(lambda x: (weight @ x).tanh())(x).square().sum().backward()
    copy = weight.detach().clone().requires_grad_()
    y = (copy @ x).tanh()
    ((1 - y**2)[:, None] * copy).square().sum().backward()
    assert_close(weight.grad, copy.grad)


@both
def test_float32(jacobian):
    x = torch.randn(4)
    actual = jacobian(torch.sin)(x)
    assert actual.dtype == torch.float32
    assert_close(actual, torch.diag(x.cos()))


@both
def test_non_contiguous_input_and_output(jacobian):
    x = randn(3, 2).T

    def f(x):
        return x.T.sin()

    assert_close(jacobian(f)(x), autograd_jacobian(f, x)[0])


def test_jacfwd_randomness():
    """Each column of the Jacobian is an example of a vmap, with its own random numbers or not."""
    x = torch.randn(3)

    def f(x):
        return x.sum() * torch.rand(())

    same = functx.jacfwd(f, randomness="same")(x)
    assert same.unique().numel() == 1
    different = functx.jacfwd(f, randomness="different")(x)
    assert different.unique().numel() == 3
    with pytest.raises(RuntimeError, match="randomness"):
        functx.jacfwd(f)(x)


def test_hessian_of_two_arguments():
    x, y = randn(2), randn(3)

    def f(x, y):
        return (x.sum() * y.sin()).sum() + (x**3).prod()

    def joined(z):
        return f(z[:2], z[2:])

    full = autograd_hessian(joined, torch.cat([x, y]))
    actual = functx.hessian(f, argnums=(0, 1))(x, y)
    expected = ((full[:2, :2], full[:2, 2:]), (full[2:, :2], full[2:, 2:]))
    assert_equal_trees(actual, expected)
    assert_close(functx.hessian(f, argnums=1)(x, y), full[2:, 2:])


def test_hessian_of_pytrees():
    params = {"a": randn(2), "b": randn()}

    def f(params):
        return (params["a"].sin() * params["b"] ** 2).sum()

    actual = functx.hessian(f)(params)
    a, b = params["a"], params["b"]
    expected = {
        "a": {"a": torch.diag(-a.sin() * b**2), "b": 2 * b * a.cos()},
        "b": {"a": 2 * b * a.cos(), "b": 2 * a.sin().sum()},
    }
    assert_equal_trees(actual, expected)


def test_hessian_of_a_matrix_valued_function():
    x = randn(2)

    def f(x):
        return torch.outer(x, x).exp()

    assert_close(functx.hessian(f)(x), numeric_hessian(f, x))


def test_hessian_of_linear_and_constant_functions_is_zero():
    x = randn(3)
    zeros = torch.zeros(3, 3, dtype=x.dtype)
    assert_close(functx.hessian(lambda x: x.sum())(x), zeros)
    assert_close(functx.hessian(lambda x: x.new_ones(()))(x), zeros)


def test_third_derivatives():
    x = randn(2)

    def f(x):
        return (x[0] ** 3 * x[1] ** 2).sin()

    expected = numeric_jacobian(lambda x: autograd_hessian(f, x), x)
    for jacobian in (functx.jacrev, functx.jacfwd):
        assert_close(jacobian(functx.hessian(f))(x), expected)
