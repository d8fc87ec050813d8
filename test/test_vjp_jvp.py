"""vjp and jvp: several inputs and outputs, pytrees, aux, reuse of a pullback, zeros."""

import math
import timeit

import pytest
import torch
from _reference import (
    assert_equal_trees,
    autograd_grad,
    autograd_vjp,
    directional_derivative,
    forward_ad_jvp,
    numeric_jacobian,
    randn,
)
from torch.testing import assert_close
from torch.utils._pytree import tree_map

import functx


def two_outputs(x, y):
    return (x @ y).tanh(), x.sum() * y.exp().prod()


# ---- vjp -------------------------------------------------------------------------------------


def test_vjp_of_one_input():
    x, cotangent = randn(3), randn(2)

    def f(x):
        return torch.stack([x.prod(), x.sin().sum()])

    output, pullback = functx.vjp(f, x)
    assert_close(output, f(x))
    result = pullback(cotangent)
    assert isinstance(result, tuple)
    assert_equal_trees(result, (cotangent @ numeric_jacobian(f, x),))
    assert_equal_trees(result, autograd_vjp(f, (x,), cotangent))


def test_vjp_of_several_inputs_and_outputs():
    primals = randn(2, 3), randn(3, 2)
    cotangents = randn(2, 2), randn()
    outputs, pullback = functx.vjp(two_outputs, *primals)
    assert_equal_trees(outputs, two_outputs(*primals))
    assert_equal_trees(pullback(cotangents), autograd_vjp(two_outputs, primals, cotangents))


def test_vjp_of_pytrees():
    primals = {"w": randn(2, 2), "b": [randn(2)]}
    cotangent = {"out": (randn(2), randn())}

    def f(p):
        y = (p["w"] @ p["b"][0]).sin()
        return {"out": (y, y.prod())}

    outputs, pullback = functx.vjp(f, primals)
    assert_equal_trees(outputs, f(primals))
    w, b = autograd_vjp(
        lambda w, b: f({"w": w, "b": [b]})["out"],
        (primals["w"], primals["b"][0]),
        cotangent["out"],
    )
    assert_equal_trees(pullback(cotangent), ({"w": w, "b": [b]},))


def test_vjp_with_aux():
    x = randn(3)
    output, pullback, aux = functx.vjp(lambda x: (x.sin(), [x + 1]), x, has_aux=True)
    assert_close(output, x.sin())
    assert_close(aux[0], x + 1)
    assert_close(pullback(torch.ones_like(x))[0], x.cos())


def test_a_pullback_is_linear_and_can_be_called_again():
    x = randn(3)
    _, pullback = functx.vjp(lambda x: x.exp() * x.sum(), x)
    a, b = randn(3), randn(3)
    (together,), (left,), (right,) = pullback(2 * a - b), pullback(a), pullback(b)
    assert_close(together, 2 * left - right)
    assert_equal_trees(pullback(a), (left,))


def test_vmap_over_a_pullback():
    x, cotangents = randn(3), randn(5, 3)
    _, pullback = functx.vjp(lambda x: x.sin() * x.sum(), x)
    (actual,) = functx.vmap(pullback)(cotangents)
    assert_close(actual, torch.stack([pullback(c)[0] for c in cotangents]))
    assert_close(actual, cotangents @ numeric_jacobian(lambda x: x.sin() * x.sum(), x))


def test_a_pullback_can_be_differentiated():
    """The pullback is linear in its cotangent; its transpose is the jvp."""
    x, tangent = randn(3), randn(3)

    def f(x):
        return x.sin() * x.sum()

    _, pullback = functx.vjp(f, x)
    gradient = functx.grad(lambda c: pullback(c)[0] @ tangent)(torch.zeros_like(x))
    assert_close(gradient, directional_derivative(f, (x,), (tangent,)))
    leaf = randn(3).requires_grad_()
    (pullback(leaf)[0] @ tangent).backward()
    assert_close(leaf.grad, directional_derivative(f, (x,), (tangent,)))


def test_a_pullback_under_jvp():
    x, cotangent, tangent = randn(3), randn(3), randn(3)
    _, pullback = functx.vjp(torch.sin, x)
    output, derivative = functx.jvp(lambda c: pullback(c)[0], (cotangent,), (tangent,))
    assert_close(output, cotangent * x.cos())
    assert_close(derivative, tangent * x.cos())


def test_vjp_of_identity_unused_and_constant():
    x, y, c = randn(3), randn(2), randn(3)
    output, pullback = functx.vjp(lambda x: x, x)
    assert_close(output, x)
    assert_equal_trees(pullback(c), (c,))
    _, pullback = functx.vjp(lambda x, y: x * 2, x, y)
    assert_equal_trees(pullback(c), (2 * c, torch.zeros_like(y)))
    output, pullback = functx.vjp(lambda x: torch.ones(2, dtype=x.dtype), x)
    assert_equal_trees(pullback(output), (torch.zeros_like(x),))


def test_vjp_with_an_output_that_occurs_twice():
    x, a, b = randn(3), randn(3), randn(3)

    def f(x):
        y = x.sin()
        return y, y, x

    _, pullback = functx.vjp(f, x)
    assert_equal_trees(pullback((a, b, a)), ((a + b) * x.cos() + a,))


def test_vjp_of_the_same_tensor_twice():
    x, c = randn(3), randn(3)
    _, pullback = functx.vjp(lambda x, y: x * y**2, x, x)
    assert_equal_trees(pullback(c), (c * x**2, c * 2 * x * x))


def test_primal_output_is_detached_when_nothing_outside_is_tracked():
    output, pullback = functx.vjp(torch.sin, randn(3))
    assert not output.requires_grad
    assert not pullback(randn(3))[0].requires_grad


# ---- jvp -------------------------------------------------------------------------------------


def test_jvp_of_one_input():
    x, tangent = randn(3), randn(3)

    def f(x):
        return torch.stack([x.prod(), x.sin().sum()])

    output, derivative = functx.jvp(f, (x,), (tangent,))
    assert_close(output, f(x))
    assert_close(derivative, directional_derivative(f, (x,), (tangent,)))
    assert_close(derivative, forward_ad_jvp(f, (x,), (tangent,))[1])


def test_jvp_of_several_inputs_and_outputs():
    primals, tangents = (randn(2, 3), randn(3, 2)), (randn(2, 3), randn(3, 2))
    outputs, derivatives = functx.jvp(two_outputs, primals, tangents)
    assert_equal_trees(outputs, two_outputs(*primals))
    assert_equal_trees(derivatives, directional_derivative(two_outputs, primals, tangents))


def test_jvp_of_pytrees():
    primals = {"w": randn(2, 2), "b": [randn(2)]}
    tangents = tree_map(torch.rand_like, primals)

    def f(p):
        y = (p["w"] @ p["b"][0]).sin()
        return {"out": (y, y.prod())}

    outputs, derivatives = functx.jvp(f, (primals,), (tangents,))
    expected = directional_derivative(
        lambda w, b: f({"w": w, "b": [b]}),
        (primals["w"], primals["b"][0]),
        (tangents["w"], tangents["b"][0]),
    )
    assert_equal_trees(outputs, f(primals))
    assert_equal_trees(derivatives, expected)


def test_jvp_with_aux():
    x, tangent = randn(3), randn(3)
    output, derivative, aux = functx.jvp(
        lambda x: (x.sin(), {"a": x + 1}), (x,), (tangent,), has_aux=True
    )
    assert_close(output, x.sin())
    assert_close(derivative, x.cos() * tangent)
    assert_close(aux["a"], x + 1)


def test_jvp_of_identity_unused_and_constant():
    x, y, s, t = randn(3), randn(2), randn(3), randn(2)
    assert_equal_trees(functx.jvp(lambda x: x, (x,), (s,)), (x, s))
    assert_equal_trees(functx.jvp(lambda x, y: x * 2, (x, y), (s, t)), (2 * x, 2 * s))
    output, derivative = functx.jvp(lambda x: torch.ones(2), (x,), (s,))
    assert_close(output, torch.ones(2))
    assert_close(derivative, torch.zeros(2))
    output, derivative = functx.jvp(lambda x: y, (x,), (s,))
    assert_close(output, y)
    assert_close(derivative, torch.zeros_like(y))
    output, derivative = functx.jvp(lambda x: x.detach() * x, (x,), (s,))
    assert_close(derivative, x * s)


def test_jvp_of_the_same_tensor_twice():
    x, s, t = randn(3), randn(3), randn(3)
    _, derivative = functx.jvp(lambda x, y: x * y**2, (x, x), (s, t))
    assert_close(derivative, s * x**2 + 2 * x * x * t)
    _, derivative = functx.jvp(lambda x, y: x * y**2, (x, x), (s, s))
    assert_close(derivative, 3 * x**2 * s)
    _, derivative = functx.jvp(torch.sin, (x,), (x,))
    assert_close(derivative, x.cos() * x)


def test_jvp_is_linear_in_the_tangent():
    x, s, t = randn(3), randn(3), randn(3)

    def derivative(tangent):
        return functx.jvp(lambda x: x.exp() * x.sum(), (x,), (tangent,))[1]

    assert_close(derivative(2 * s - t), 2 * derivative(s) - derivative(t))
    assert_close(derivative(torch.zeros_like(x)), torch.zeros_like(x))


def test_vmap_over_tangents():
    x, tangents = randn(3), randn(5, 3)

    def f(x):
        return x.sin() * x.sum()

    outputs, derivatives = functx.vmap(lambda t: functx.jvp(f, (x,), (t,)))(tangents)
    assert_close(outputs, f(x).expand(5, 3))
    assert_close(derivatives, tangents @ numeric_jacobian(f, x).T)


def test_jvp_of_an_integer_intermediate():
    x, tangent = randn(5), randn(5)
    output, derivative = functx.jvp(lambda x: x[x.argsort()] * x.argmax(), (x,), (tangent,))
    order = x.argsort()
    assert_close(output, x[order] * x.argmax())
    assert_close(derivative, tangent[order] * x.argmax())


def test_jvp_with_an_output_without_derivative():
    x, tangent = randn(5), randn(5)
    outputs, derivatives = functx.jvp(lambda x: (x.sort().values, x > 0), (x,), (tangent,))
    assert_equal_trees(outputs, (x.sort().values, x > 0))
    assert_close(derivatives[0], tangent[x.argsort()])
    assert not derivatives[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_jvp_keeps_the_dtype(dtype):
    x, tangent = torch.randn(3).to(dtype), torch.randn(3).to(dtype)
    output, derivative = functx.jvp(lambda x: x * x * 0.5, (x,), (tangent,))
    assert output.dtype == derivative.dtype == dtype
    assert_close(derivative, x * tangent)


def test_jvp_of_a_complex_function():
    x, tangent = (torch.randn(3, dtype=torch.complex128) for _ in range(2))
    _, derivative = functx.jvp(lambda x: x.exp() * x.conj(), (x,), (tangent,))
    assert_close(derivative, x.exp() * tangent * x.conj() + x.exp() * tangent.conj())


def test_jvp_with_broadcasting_and_mixed_arguments():
    x, s = randn(3, 1), randn(3, 1)
    constant = randn(2)

    def f(x):
        return (constant * x).sum(0) / (1 + x.square().mean())

    assert_close(functx.jvp(f, (x,), (s,))[1], directional_derivative(f, (x,), (s,)))


def test_jvp_of_a_function_that_closes_over_a_tracked_tensor():
    weight, x, tangent = randn(3).requires_grad_(), randn(3), randn(3)
    output, derivative = functx.jvp(lambda x: (weight * x).sin(), (x,), (tangent,))
    (output + derivative).sum().backward()
    expected = autograd_grad(
        lambda w: ((w * x).sin() + (w * x).cos() * w * tangent).sum(), weight.detach()
    )
    assert_close(weight.grad, expected[0])


def test_jvp_of_primals_that_require_grad():
    x, tangent = randn(3).requires_grad_(), randn(3).requires_grad_()
    functx.jvp(torch.sin, (x,), (tangent,))[1].sum().backward()
    assert_close(x.grad, (-x.sin() * tangent).detach())
    assert_close(tangent.grad, x.cos().detach())


def nested_derivative(f, order):
    for _ in range(order):
        f = lambda x, f=f: functx.jvp(f, (x,), (torch.ones_like(x),))[1]
    return f


def test_derivatives_of_order_twelve():
    x = randn()
    assert_close(nested_derivative(torch.exp, 12)(x), x.exp())
    assert_close(nested_derivative(torch.sin, 12)(x), x.sin())
    assert_close(nested_derivative(lambda x: x**12, 12)(x), torch.full_like(x, math.factorial(12)))


def test_each_level_of_jvp_takes_twice_the_time():
    """As many times as it doubles the operators. It took four times as much at this depth."""
    x = randn()

    def seconds(order):
        f = nested_derivative(torch.exp, order)
        return min(timeit.repeat(lambda: f(x), number=1, repeat=5))

    assert seconds(12) / seconds(8) < 40
