"""torch.autograd.Function inside transforms: old style, new style, and with rules of its own."""

import numpy as np
import pytest
import torch
from _reference import assert_equal_trees, autograd_grad, numeric_hessian, randn
from torch.testing import assert_close

import functx


class OldCube(torch.autograd.Function):
    """forward(ctx, ...), no setup_context: torch.func refuses it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


class OldStraightThrough(torch.autograd.Function):
    """Its backward is not the derivative of its forward, so gradients show whether it was used."""

    @staticmethod
    def forward(ctx, x, scale, name):
        ctx.scale = scale
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return ctx.scale * gradient * (1 + x), None, None


class NewCube(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * tangent


class NewStraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, scale, name):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.scale = inputs[1]

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return ctx.scale * gradient * (1 + x), None, None

    @staticmethod
    def jvp(ctx, tangent, _scale, _name):
        (x,) = ctx.saved_tensors
        return ctx.scale * tangent * (1 + x)


def straight_through_gradient(x):
    """Of (round(x) * x).sum() where round is a straight-through function of scale 2."""
    return x.round() + x * 2 * (1 + x)


cubes = pytest.mark.parametrize("cube", [OldCube, NewCube], ids=["old", "new"])
straight = pytest.mark.parametrize(
    "function", [OldStraightThrough, NewStraightThrough], ids=["old", "new"]
)


@cubes
def test_under_every_transform(cube):
    x, tangent = randn(4), randn(4)
    assert_close(functx.vmap(cube.apply)(x), x**3)
    assert_close(functx.grad(lambda x: cube.apply(x).sum())(x), 3 * x**2)
    assert_close(functx.vmap(functx.grad(cube.apply))(x), 3 * x**2)
    assert_close(functx.grad(lambda x: functx.vmap(cube.apply)(x).sum())(x), 3 * x**2)
    assert_close(functx.vjp(cube.apply, x)[1](tangent)[0], 3 * x**2 * tangent)
    assert_close(functx.jacrev(cube.apply)(x), torch.diag(3 * x**2))
    assert_close(functx.grad(functx.grad(cube.apply))(x[0]), 6 * x[0])
    assert_close(functx.vmap(functx.grad(functx.grad(cube.apply)))(x), 6 * x)
    assert_close(functx.jvp(cube.apply, (x,), (tangent,))[1], 3 * x**2 * tangent)
    assert_close(functx.jacfwd(cube.apply)(x), torch.diag(3 * x**2))


@cubes
@pytest.mark.parametrize("outer", [functx.jacrev, functx.jacfwd], ids=["jacrev", "jacfwd"])
def test_second_derivatives(cube, outer):
    x = randn(3)

    def f(x):
        return cube.apply(x.sin() * x.sum()).sum()

    expected = numeric_hessian(lambda x: ((x.sin() * x.sum()) ** 3).sum(), x)
    assert_close(outer(functx.grad(f))(x), expected)


@straight
def test_its_own_backward_is_used(function):
    x = randn(4) * 3

    def f(x):
        return (function.apply(x, 2.0, "name") * x).sum()

    expected = straight_through_gradient(x)
    assert_close(functx.grad(f)(x), expected)
    assert_close(functx.vmap(functx.grad(f))(x[:, None])[:, 0], expected)
    assert_close(functx.jacrev(lambda x: f(x)[None])(x), expected[None])


@straight
def test_its_own_backward_is_used_when_autograd_is_outside_vmap(function):
    x = randn(4) * 3
    expected = straight_through_gradient(x)

    def f(x):
        return functx.vmap(lambda x: function.apply(x, 2.0, "name") * x)(x).sum()

    assert_close(functx.grad(f)(x), expected)
    leaf = x.clone().requires_grad_()
    f(leaf).backward()
    assert_close(leaf.grad, expected)


def test_its_own_jvp_is_used():
    x, tangent = randn(4) * 3, randn(4)
    expected = 2 * tangent * (1 + x)

    def f(x):
        return NewStraightThrough.apply(x, 2.0, "name")

    output, derivative = functx.jvp(f, (x,), (tangent,))
    assert_close(output, x.round())
    assert_close(derivative, expected)
    assert_close(functx.vmap(lambda x, t: functx.jvp(f, (x,), (t,))[1])(x, tangent), expected)
    assert_close(functx.jvp(functx.vmap(f), (x,), (tangent,))[1], expected)
    assert_close(functx.jacfwd(f)(x), torch.diag(2 * (1 + x)))


class TwoInputsThreeOutputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        index = (x * y).argsort()
        ctx.save_for_backward(x, y)
        ctx.mark_non_differentiable(index)
        ctx.needed = ctx.needs_input_grad
        return x * y, index, x + y

    @staticmethod
    def backward(ctx, product, _index, total):
        x, y = ctx.saved_tensors
        return (
            product * y + total if ctx.needs_input_grad[0] else None,
            product * x + total if ctx.needs_input_grad[1] else None,
        )


def test_several_inputs_and_outputs():
    x, y = randn(5, 3), randn(5, 3)

    def reference(x, y):
        return ((x * y)[(x * y).argsort()] * (x + y)).sum()

    def f(x, y):
        product, index, total = TwoInputsThreeOutputs.apply(x, y)
        return (product[index] * total).sum()

    assert_close(functx.grad(f)(x[0], y[0]), autograd_grad(reference, x[0], y[0])[0])
    actual = functx.vmap(functx.grad(f, argnums=(0, 1)))(x, y)
    pairs = [autograd_grad(reference, a, b) for a, b in zip(x, y, strict=True)]
    assert_equal_trees(actual, tuple(torch.stack(c) for c in zip(*pairs, strict=True)))
    shared = functx.vmap(functx.grad(f, argnums=1), in_dims=(0, None))(x, y[0])
    assert_close(shared, torch.stack([autograd_grad(reference, a, y[0])[1] for a in x]))


class ScaleInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_a_function_that_changes_its_input():
    x = randn(4, 3)

    def f(x):
        y = x.sin()
        return (ScaleInPlace.apply(y) + y).sum()

    assert_close(functx.grad(f)(x[0]), 4 * x[0].cos())
    assert_close(functx.vmap(functx.grad(f))(x), 4 * x.cos())


class NumpySort(torch.autograd.Function):
    """What torch.func's documentation shows: NumPy inside, and a vmap rule of its own."""

    @staticmethod
    def forward(x, dim):
        array = x.numpy()
        index = np.argsort(array, axis=dim)
        return torch.from_numpy(np.take_along_axis(array, index, dim)), torch.from_numpy(index)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.dim = inputs[1]

    @staticmethod
    def backward(ctx, gradient, _index):
        (index,) = ctx.saved_tensors
        result = torch.zeros_like(gradient).scatter(ctx.dim, index, gradient)
        return result, None

    @staticmethod
    def vmap(info, in_dims, x, dim):
        x = x.movedim(in_dims[0], 0)
        return NumpySort.apply(x, dim if dim < 0 else dim + 1), (0, 0)


def test_a_vmap_rule_of_its_own():
    x = randn(4, 3)
    assert_close(functx.vmap(lambda x: NumpySort.apply(x, 0)[0])(x), x.sort(1).values)

    def f(x):
        return (NumpySort.apply(x, -1)[0] * torch.arange(3.0, dtype=x.dtype)).sum()

    rank = x.argsort(1).argsort(1).to(x.dtype)
    assert_close(functx.grad(f)(x[0]), rank[0])
    assert_close(functx.vmap(functx.grad(f))(x), rank)
