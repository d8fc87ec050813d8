"""torch.autograd.Function inside transforms: old style, new style, and with rules of its own."""

import gc
import weakref

import numpy as np
import pytest
import torch
from _functions import (
    Detaching,
    ForwardOnly,
    GeneratedRule,
    Intermediate,
    OldStyle,
    Once,
    SavesOutput,
)
from _reference import assert_equal_trees, autograd_grad, numeric_hessian, randn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

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


# ---- what can't be differentiated further -------------------------------------------------------


def first_derivatives(f):
    """What a Function with a backward that is differentiable once can do."""
    return {
        "grad": lambda b: torch.stack([functx.grad(lambda x: f(x).sum())(x) for x in b]),
        "vmap(grad)": functx.vmap(functx.grad(lambda x: f(x).sum())),
        "grad(vmap)": functx.grad(lambda b: functx.vmap(f)(b).sum()),
        "jacrev": lambda b: functx.jacrev(functx.vmap(f))(b).sum((0, 1)),
    }


@pytest.mark.parametrize("function", [Once, Detaching, Intermediate, OldStyle])
def test_first_derivatives_of_any_backward(function):
    batch = randn(4, 3)
    expected = autograd_grad(lambda b: function.apply(b).sum(), batch)[0]
    for name, derivative in first_derivatives(function.apply).items():
        assert_close(derivative(batch), expected, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "second",
    [
        lambda f, b: functx.grad(lambda b: functx.grad(lambda b: (f(b) ** 2).sum())(b).sum())(b),
        lambda f, b: functx.vmap(functx.grad(functx.grad(lambda x: f(x) ** 2)))(b[0]),
        lambda f, b: functx.grad(
            lambda b: functx.vmap(functx.grad(lambda x: (f(x) ** 2).sum()))(b).sum()
        )(b),
        lambda f, b: functx.vmap(
            functx.grad(lambda b: functx.vmap(functx.grad(lambda x: f(x) ** 2))(b).sum())
        )(b),
        lambda f, b: functx.grad(
            lambda b: functx.grad(lambda b: (functx.vmap(f)(b) ** 2).sum())(b).sum()
        )(b),
    ],
    ids=[
        "grad(grad)",
        "vmap(grad(grad))",
        "grad(vmap(grad))",
        "vmap(grad(vmap))",
        "grad(grad(vmap))",
    ],
)
def test_once_differentiable_is_an_error_the_second_time(second):
    with pytest.raises(RuntimeError, match=r"differentiate twice.*once_differentiable"):
        second(Once.apply, randn(4, 3))


def test_once_differentiable_asks_only_what_is_differentiated():
    weight = randn(3).requires_grad_()
    batch = randn(4, 3)
    actual = functx.vmap(functx.grad(lambda x: (Once.apply(x * weight)).sum()))(batch)
    assert_close(actual.detach(), 2 * (batch * weight).cos().detach() * weight.detach())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Once, "Once has no jvp staticmethod, and backward is once_differentiable.*Define jvp"),
        (Detaching, "Detaching has no jvp staticmethod, and its backward detaches.*Define jvp"),
        (ForwardOnly, "ForwardOnly has no jvp staticmethod, and no backward either.*Define jvp"),
    ],
)
@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: functx.jvp(f, (x,), (x,)),
        lambda f, x: functx.vmap(functx.jacfwd(f))(x[None]),
        lambda f, x: functx.jvp(functx.vmap(f), (x,), (x,)),
    ],
    ids=["jvp", "vmap(jacfwd)", "jvp(vmap)"],
)
def test_no_way_to_a_jvp(function, message, transform):
    with pytest.raises(RuntimeError, match=message):
        transform(function.apply, randn(3))


def test_what_forward_keeps_has_tangents_in_forward_over_reverse():
    batch = randn(4, 3)
    f = Intermediate.apply
    expected = torch.diag_embed(6 * batch)
    assert_close(functx.vmap(functx.hessian(lambda x: f(x).sum()))(batch), expected)
    inner = functx.grad(lambda b: functx.vmap(f)(b).sum())
    assert_close(functx.jvp(inner, (batch,), (torch.ones_like(batch),))[1], 6 * batch)


# ---- details ------------------------------------------------------------------------------------


class Noisy(torch.autograd.Function):
    """What the backward pass sees is the noise of the forward pass."""

    @staticmethod
    def forward(ctx, x):
        noise = torch.rand(x.shape, dtype=x.dtype)
        ctx.save_for_backward(noise)
        return x * noise

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_random_forward(randomness):
    def f(b):
        return functx.vmap(Noisy.apply, randomness=randomness)(b)

    batch = torch.ones(50, 3, dtype=torch.float64)
    output, pull = functx.vjp(f, batch)
    assert_close(pull(batch)[0], 2 * output)
    output, tangent = functx.jvp(f, (batch,), (batch,))
    assert_close(tangent, 2 * output)
    assert (len(output.unique()) == 3) == (randomness == "same")
    with pytest.raises(RuntimeError, match="randomness"):
        functx.grad(lambda b: functx.vmap(Noisy.apply)(b).sum())(batch)


class SharedWeight(torch.autograd.Function):
    """Its inputs differ in whether they are batched."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return weight @ x, weight.sum()

    @staticmethod
    def backward(ctx, product, total):
        x, weight = ctx.saved_tensors
        return 2 * weight.T @ product, 2 * torch.outer(product, x) + 3 * total


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (1, 0)])
def test_gradients_of_shared_inputs(in_dims):
    size, inner = 4, 3
    x = randn(
        *((inner, size) if in_dims[0] == 1 else (size, inner) if in_dims[0] == 0 else (inner,))
    )
    weight = randn(*((size, 2, inner) if in_dims[1] == 0 else (2, inner)))

    def combine(product, total):
        return (product.sum(-1) * total).sum()

    def loop(x, weight):
        terms = []
        for i in range(size):
            args = [
                v if d is None else v.select(d, i)
                for v, d in zip((x, weight), in_dims, strict=True)
            ]
            terms.append(combine(*SharedWeight.apply(*args)))
        return torch.stack(terms).sum()

    def mapped(x, weight):
        return functx.vmap(lambda *args: combine(*SharedWeight.apply(*args)), in_dims)(
            x, weight
        ).sum()

    expected = autograd_grad(loop, x, weight)
    assert_equal_trees(functx.grad(mapped, argnums=(0, 1))(x, weight), expected)
    tangents = torch.randn_like(x), torch.randn_like(weight)
    directional = sum((g * t).sum() for g, t in zip(expected, tangents, strict=True))
    assert_close(functx.jvp(mapped, (x, weight), tangents)[1], directional)


def test_the_arguments_of_a_vmap_rule():
    seen = []

    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(x, options, factor=3):
            return x * factor, options["shift"] + x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def vmap(info, in_dims, x, options, factor):
            seen.append((info.batch_size, info.randomness, in_dims, factor))
            return (x * factor, options["shift"].unsqueeze(-1) + x.movedim(0, -1)), (0, -1)

    x, shift = randn(4, 2), randn(2)
    product, shifted = functx.vmap(
        lambda x: Scale.apply(x, {"shift": shift, "name": "s"}), randomness="same"
    )(x)
    assert_close(product, 3 * x)
    assert_close(shifted, x + shift)
    assert seen == [(4, "same", (0, {"shift": None, "name": None}, None), 3)]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x, "has to return two things"),
        (lambda x: (x, (0, 0)), "does not have the structure"),
        (lambda x: (x, 7), "no dimension of the batch size"),
    ],
)
def test_errors_of_vmap_rules(returned, message):
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def vmap(info, in_dims, x):
            return returned(x)

    with pytest.raises(ValueError, match=f"Bad.*{message}"):
        functx.vmap(Bad.apply)(randn(4, 3))


def test_both_kinds_of_vmap_rule():
    class Both(NumpySort):
        generate_vmap_rule = True

    with pytest.raises(RuntimeError, match="Both has a vmap staticmethod and generate_vmap_rule"):
        functx.vmap(lambda x: Both.apply(x, 0)[0])(randn(4, 3))


def test_wrong_numbers_of_derivatives():
    class TooFew(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, gradient):
            return gradient

        @staticmethod
        def jvp(ctx, x, y):
            return x, y

    x = randn(4)
    with pytest.raises(RuntimeError, match=r"TooFew.backward has to return .* 2, and returned 1"):
        functx.grad(lambda x: functx.vmap(TooFew.apply)(x, x).sum())(x)
    with pytest.raises(RuntimeError, match=r"TooFew.jvp has to return .* 1, and returned 2"):
        functx.jvp(lambda x: TooFew.apply(x, x), (x,), (x,))


def test_saved_tensor_hooks():
    packed = []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor

    batch = randn(4, 3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        gradient = functx.grad(lambda b: functx.vmap(OldStyle.apply)(b).sum())(batch)
    assert packed == [batch.shape]
    assert_close(gradient, 2 * batch.cos())


def test_native_forward_mode_around_vmap():
    batch, tangent = randn(4, 3), randn(4, 3)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(batch, tangent)
        output = functx.vmap(lambda x: NewStraightThrough.apply(x, 2.0, "name"))(dual)
        actual = torch.autograd.forward_ad.unpack_dual(output).tangent
    assert_close(actual, 2 * tangent * (1 + batch))


def test_nothing_is_kept_alive():
    saved = []

    def f(b):
        y = functx.vmap(SavesOutput.apply)(b)
        saved.append(weakref.ref(y))
        return y.sum()

    gc.collect()
    gc.disable()
    try:
        functx.grad(f)(randn(4, 3))
        functx.jvp(functx.grad(f), (randn(4, 3),), (randn(4, 3),))
        assert [ref() for ref in saved] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint(use_reentrant):
    batch, tangent = randn(4, 3), randn(4, 3)

    def f(x):
        return checkpoint(lambda x: OldStyle.apply(x) * x, x, use_reentrant=use_reentrant)

    derivative = 2 * batch.cos() * batch + batch.sin()
    assert_close(functx.vmap(f)(batch), batch.sin() * batch)
    assert_close(functx.jvp(f, (batch,), (tangent,))[1], derivative * tangent)
    assert_close(functx.jvp(functx.vmap(f), (batch,), (tangent,))[1], derivative * tangent)
    assert_close(functx.grad(lambda b: functx.vmap(f)(b).sum())(batch), derivative)


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f, b: functx.vmap(torch.func.grad(lambda x: f(x).sum()))(b),
        lambda f, b: functx.grad(lambda b: torch.func.vmap(f)(b).sum())(b),
        lambda f, b: functx.vmap(functx.grad(lambda x: torch.func.vmap(f)(x[None]).sum()))(b),
        lambda f, b: functx.jvp(torch.func.vmap(f), (b,), (torch.ones_like(b),))[1],
        lambda f, b: torch.func.vmap(functx.grad(lambda x: f(x).sum()))(b),
    ],
    ids=[
        "vmap(func.grad)",
        "grad(func.vmap)",
        "vmap(grad(func.vmap))",
        "jvp(func.vmap)",
        "func.vmap(grad)",
    ],
)
def test_beside_torch_func(derivative):
    batch = randn(4, 3)
    assert_close(derivative(NewCube.apply, batch), 3 * batch**2)


def test_what_is_not_done_inside_torch_func():
    with pytest.raises(NotImplementedError, match=r"GeneratedRule.*Use functx for the outer"):
        torch.func.grad(lambda b: functx.vmap(GeneratedRule.apply)(b).sum())(randn(4, 3))


def test_compiled_code_has_the_function_in_its_graph():
    @torch.compile(backend="aot_eager", fullgraph=True)
    def f(x):
        return OldStyle.apply(x) * 2

    leaf = randn(3).requires_grad_()
    f(leaf).sum().backward()
    assert_close(leaf.grad, 4 * leaf.detach().cos())
