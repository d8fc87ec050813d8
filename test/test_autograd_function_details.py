"""torch.autograd.Function: derivatives that do not exist, arguments of rules, errors, hooks."""

import gc
import weakref

import pytest
import torch
from _functions import (
    Detaching,
    ForwardOnly,
    GeneratedWithJvp,
    Intermediate,
    NumpySin,
    OldStyle,
    Once,
    SavesOutput,
    WithJvp,
)
from _reference import assert_equal_trees, autograd_grad, randn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import functx

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
        (Once, "Once has no jvp staticmethod, .* backward is once_differentiable.*Define jvp"),
        (Detaching, "Detaching has no jvp staticmethod, and its backward detaches.*Define jvp"),
        (ForwardOnly, "ForwardOnly has no jvp staticmethod, .* there is no backward.*Define jvp"),
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


def test_a_vmap_rule_may_return_an_argument():
    class Both(torch.autograd.Function):
        @staticmethod
        def forward(x, y):
            return x.view_as(x), x * y

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def vmap(info, in_dims, x, y):
            return (x, x * y), (0, 0)

    x, y = randn(3, 4), randn(3, 4)
    assert_equal_trees(functx.vmap(Both.apply)(x, y), (x, x * y))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x, "to have two returns"),
        (lambda x: (x, (0, 0)), "does not fit the structure"),
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

    with pytest.raises(RuntimeError, match=f"Bad.*{message}"):
        functx.vmap(Bad.apply)(randn(4, 3))


def test_both_kinds_of_vmap_rule():
    class Both(NumpySin):
        generate_vmap_rule = True

    with pytest.raises(RuntimeError, match="Both has both generate_vmap_rule=True and a"):
        functx.vmap(Both.apply)(randn(4, 3))


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
    with pytest.raises(RuntimeError, match=r"TooFew.jvp has to return .*expected 1 but got 2"):
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
        output = functx.vmap(WithJvp.apply)(dual)
        actual = torch.autograd.forward_ad.unpack_dual(output).tangent
    assert_close(actual, 2 * tangent * batch.cos())


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
    assert_close(derivative(GeneratedWithJvp.apply, batch), 2 * batch.cos())


def test_compiled_code_has_the_function_in_its_graph():
    @torch.compile(backend="aot_eager", fullgraph=True)
    def f(x):
        return OldStyle.apply(x) * 2

    leaf = randn(3).requires_grad_()
    f(leaf).sum().backward()
    assert_close(leaf.grad, 4 * leaf.detach().cos())


@torch.library.custom_op("functx_function_test::sine", mutates_args=())
def sine(x: torch.Tensor) -> torch.Tensor:
    return x.sin()


sine.register_autograd(
    lambda ctx, gradient: 2 * gradient * ctx.saved_tensors[0].cos(),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)
sine.register_vmap(lambda info, in_dims, x: (sine(x), in_dims[0]))


def test_a_custom_operator_on_tapes_in_two_strata():
    batch = randn(4, 3)
    leaf = batch.clone().requires_grad_()
    (first,) = torch.autograd.grad((sine(leaf) ** 2).sum(), leaf, create_graph=True)
    (expected,) = torch.autograd.grad(first.sum(), leaf)
    inner = functx.vmap(functx.grad(lambda x: (sine(x) ** 2).sum()))
    assert_close(functx.grad(lambda b: inner(b).sum())(batch), expected)
    assert_close(functx.vmap(functx.grad(lambda b: inner(b[None]).sum()))(batch), expected)


class ProductWithSine(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, y):
        return x.sin() * y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        x, y = ctx.saved_tensors
        return gradient * x.cos() * y, gradient * x.sin()

    @staticmethod
    def jvp(ctx, x_tangent, y_tangent):
        x, y = ctx.saved_tensors
        tangent = 0 if y_tangent is None else y_tangent * x.sin()
        return tangent if x_tangent is None else tangent + x_tangent * x.cos() * y


def test_one_tensor_for_two_arguments():
    """Of which the function is differentiated by one: the other is a constant."""
    x = randn(3)

    def f(x, y):
        return ProductWithSine.apply(y, x).sum()

    zeros = torch.zeros(3, 3, dtype=x.dtype)
    assert_close(functx.hessian(f)(x, x), zeros)
    assert_close(functx.jacfwd(functx.grad(f))(x, x), zeros)
    assert_close(functx.jacrev(functx.jacfwd(f))(x, x), zeros)
    assert_close(functx.jvp(lambda y: f(x, y), (x,), (x,))[1], (x.cos() * x * x).sum())
    assert_close(functx.vmap(f, (None, 0))(x[0], x), x.sin() * x[0])
