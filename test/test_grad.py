"""grad and grad_and_value: arguments, aux, pytrees, higher derivatives, values and zeros."""

import math

import pytest
import torch
from _reference import assert_equal_trees, autograd_grad, numeric_grad, randn
from torch.testing import assert_close

import functx


def mixed(x, y, z):
    return (x.sin() @ y).tanh().sum() * z.exp() + (x * x).mean()


def arguments():
    return randn(2, 3), randn(3, 2), randn()


@pytest.mark.parametrize("argnums", [0, 1, 2, -1, (0,), (0, 2), (2, 0), (0, 1, 2), (-1, 0)])
def test_argnums(argnums):
    args = arguments()
    reference = autograd_grad(mixed, *args)
    if isinstance(argnums, int):
        expected = reference[argnums]
    else:
        expected = tuple(reference[i] for i in argnums)
    assert_equal_trees(functx.grad(mixed, argnums=argnums)(*args), expected)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_against_finite_differences(index):
    args = list(arguments())

    def f(x):
        return mixed(*args[:index], x, *args[index + 1 :])

    assert_close(functx.grad(mixed, argnums=index)(*args), numeric_grad(f, args[index]))


def test_grad_and_value():
    args = arguments()
    gradient, value = functx.grad_and_value(mixed, argnums=(1, 0))(*args)
    reference = autograd_grad(mixed, *args)
    assert_equal_trees(gradient, (reference[1], reference[0]))
    assert_close(value, mixed(*args))
    assert not value.requires_grad
    assert not gradient[0].requires_grad


def test_aux():
    x = randn(3)

    def f(x):
        return x.square().sum(), {"double": 2 * x, "constant": torch.ones(2)}

    gradient, aux = functx.grad(f, has_aux=True)(x)
    assert_close(gradient, 2 * x)
    assert_close(aux["double"], 2 * x)
    assert_close(aux["constant"], torch.ones(2))
    assert not aux["double"].requires_grad

    gradient, (value, aux) = functx.grad_and_value(f, has_aux=True)(x)
    assert_close(gradient, 2 * x)
    assert_close(value, x.square().sum())
    assert_close(aux["double"], 2 * x)


def test_aux_of_a_nested_grad_carries_the_outer_derivative():
    x = randn()

    def outer(x):
        gradient, aux = functx.grad(lambda y: (y**3, y**2), has_aux=True)(x)
        return gradient + aux

    assert_close(functx.grad(outer)(x), 6 * x + 2 * x)


def test_value_of_a_nested_grad_and_value_carries_the_outer_derivative():
    x = randn()

    def outer(x):
        gradient, value = functx.grad_and_value(lambda y: y**3)(x)
        return gradient * value

    assert_close(functx.grad(outer)(x), 15 * x**4)


def test_pytree_argument():
    params = {"w": randn(3, 2), "layers": [randn(2), (randn(),)]}

    def f(params, x):
        b, (scale,) = params["layers"]
        return ((x @ params["w"] + b).tanh() * scale).sum()

    x = randn(4, 3)
    flat = autograd_grad(
        lambda w, b, s: f({"w": w, "layers": [b, (s,)]}, x),
        params["w"],
        params["layers"][0],
        params["layers"][1][0],
    )
    expected = {"w": flat[0], "layers": [flat[1], (flat[2],)]}
    assert_equal_trees(functx.grad(f)(params, x), expected)
    gradients = functx.grad(f, argnums=(0,))(params, x)
    assert_equal_trees(gradients, (expected,))


def test_other_arguments_pass_through():
    x = randn(3)

    def f(x, power, *rest, name, scale=1.0):
        assert rest == ("rest", None)
        assert name == "name"
        return (scale * x**power).sum()

    actual = functx.grad(f)(x, 3, "rest", None, name="name", scale=2.0)
    assert_close(actual, 6 * x**2)


def test_integer_tensors_may_be_arguments_that_are_not_differentiated():
    x, index = randn(4), torch.tensor([0, 0, 2])
    actual = functx.grad(lambda x, index: x[index].square().sum())(x, index)
    assert_close(actual, 2 * x * torch.tensor([2.0, 0, 1, 0], dtype=torch.float64))


@pytest.mark.parametrize("order", range(7))
def test_derivatives_of_any_order(order):
    f = torch.sin
    for _ in range(order):
        f = functx.grad(f)
    x = randn()
    assert_close(f(x), torch.sin(x + order * math.pi / 2))


def test_unused_input_gets_zeros():
    x, y = randn(3), randn(2, 2)
    gradients = functx.grad(lambda x, y: x.sum(), argnums=(0, 1))(x, y)
    assert_equal_trees(gradients, (torch.ones_like(x), torch.zeros_like(y)))


@pytest.mark.parametrize(
    "constant", [lambda x: torch.tensor(2.0), lambda x: x.detach().sum(), lambda x: x.new_ones(())]
)
def test_output_that_does_not_depend_on_the_input(constant):
    x = randn(3)
    assert_close(functx.grad(constant)(x), torch.zeros_like(x))


def test_output_that_is_the_input():
    x = randn()
    assert_close(functx.grad(lambda x: x)(x), torch.ones_like(x))
    gradient, value = functx.grad_and_value(lambda x: x)(x)
    assert_close(gradient, torch.ones_like(x))
    assert_close(value, x)


def test_output_that_is_another_argument():
    x, y = randn(), randn()
    gradients = functx.grad(lambda x, y: y, argnums=(0, 1))(x, y)
    assert_equal_trees(gradients, (torch.zeros_like(x), torch.ones_like(y)))


def test_the_same_tensor_twice_has_two_gradients():
    x = randn(3)
    gradients = functx.grad(lambda x, y: (x * y**2).sum(), argnums=(0, 1))(x, x)
    assert_equal_trees(gradients, (x**2, 2 * x * x))
    assert_close(functx.grad(lambda x, y: (x * y**2).sum())(x, x), x**2)
    gradients = functx.grad(lambda pair: (pair[0] * pair[1] ** 2).sum())([x, x])
    assert_equal_trees(gradients, [x**2, 2 * x * x])


def test_closure_over_the_differentiated_tensor_is_a_constant():
    x = randn(3)
    assert_close(functx.grad(lambda y: (x * y).sum())(x), x)


def test_the_input_is_left_alone():
    x = randn(3)
    functx.grad(lambda x: x.square().sum())(x)
    assert not x.requires_grad
    assert x.grad is None
    leaf = randn(3).requires_grad_()
    functx.grad(lambda x: x.square().sum())(leaf)
    assert leaf.requires_grad
    assert leaf.grad is None


def test_control_flow_and_python_numbers_from_values():
    def f(x):
        if x.sum() > 0:
            return (x * x[0].item()).sum()
        return (x**3).sum()

    x = torch.tensor([1.5, 2.0], dtype=torch.float64)
    assert_close(functx.grad(f)(x), torch.full_like(x, 1.5))
    assert_close(functx.grad(f)(-x), 3 * x**2)


def test_loop_and_recursion():
    def power(x, n):
        return x * power(x, n - 1) if n else torch.ones_like(x)

    x = randn()
    assert_close(functx.grad(power)(x, 5), 5 * x**4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floating_dtypes(dtype):
    x = torch.tensor([1.0, -2.0, 0.5], dtype=dtype)
    assert_close(functx.grad(lambda x: (x * x).sum())(x), 2 * x)


def test_complex_input():
    x = torch.randn(3, dtype=torch.complex128)

    def f(x):
        return (x.exp() * x.conj()).abs().sum()

    assert_close(functx.grad(f)(x), autograd_grad(f, x)[0])


def test_a_function_with_the_signature_star_args():
    args = arguments()
    actual = functx.grad(lambda *args: mixed(*args), argnums=(0, 2))(*args)
    reference = autograd_grad(mixed, *args)
    assert_equal_trees(actual, (reference[0], reference[2]))


def test_functions_keep_their_name():
    assert functx.grad(mixed).__name__ == "mixed"
    assert functx.grad_and_value(mixed).__name__ == "mixed"


def test_as_a_decorator():
    @functx.grad
    def f(x):
        return (x**3).sum()

    x = randn(2)
    assert_close(f(x), 3 * x**2)


def test_grad_of_a_function_that_uses_grad_as_a_layer():
    """A gradient flow: the output is built from a gradient of an energy, twice."""
    weight, x = randn(3, 3), randn(3)

    def energy(x, weight):
        return (weight @ x).tanh().square().sum()

    def loss(weight, gradient):
        y = x
        for _ in range(2):
            y = y - 0.1 * gradient(y, weight)
        return y.square().sum()

    def plain_gradient(y, weight):
        if not y.requires_grad:
            y = y.detach().requires_grad_()
        return torch.autograd.grad(energy(y, weight), y, create_graph=True)[0]

    actual = functx.grad(lambda w: loss(w, functx.grad(energy)))(weight)
    assert_close(actual, autograd_grad(lambda w: loss(w, plain_gradient), weight)[0])


@pytest.mark.parametrize("has_aux", [(), "", 0, None])
def test_has_aux_is_read_as_a_truth_value(has_aux):
    x = torch.tensor([0.3, 0.4])
    f = lambda x: x.square().sum()
    for transform in (functx.grad, functx.jacrev, functx.jacfwd):
        assert_close(transform(f, has_aux=has_aux)(x), 2 * x)
    assert_close(functx.grad_and_value(f, has_aux=has_aux)(x)[0], 2 * x)
    assert_close(functx.vjp(f, x, has_aux=has_aux)[1](torch.tensor(1.0))[0], 2 * x)
    assert_close(functx.jvp(f, (x,), (x,), has_aux=has_aux)[1], 2 * f(x))


def test_the_remainder_of_a_number_of_which_pytorch_has_no_gradient():
    x = torch.tensor([0.7, 1.2, 2.9], dtype=torch.float64)
    f = lambda x: (5.3 % x).square().sum()
    expected = -2 * (5.3 % x) * (5.3 / x).floor()
    assert_close(functx.grad(f)(x), expected)
    assert_close(functx.vmap(functx.grad(f))(x), expected)
    assert_close(functx.hessian(f)(x), torch.diag(2 * (5.3 / x).floor() ** 2))
