"""torch.autograd.Function where transforms of functx and of torch.func are nested in each other."""

import itertools

import pytest
import torch
from _reference import loop_vmap, numeric_jacobian, randn
from torch.testing import assert_close

import functx

SCALES = torch.tensor([0.5, -1.5], dtype=torch.float64)
WEIGHT = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
STEP = 1e-2


def maps(library):
    return {
        "vmap": lambda f: lambda x: library.vmap(lambda s: f(s * x))(SCALES).flatten()[:3],
        "grad": lambda f: library.grad(lambda x: f(x).sum()),
        "vjp": lambda f: lambda x: library.vjp(f, x)[1](x.cos())[0],
        "jvp": lambda f: lambda x: library.jvp(f, (x,), (x.cos(),))[1],
        "jacrev": lambda f: lambda x: library.jacrev(f)(x).sum(1),
        "jacfwd": lambda f: lambda x: library.jacfwd(f)(x).sum(1),
    }


THEIRS, OURS = maps(torch.func), maps(functx)
REFERENCE = {
    "vmap": lambda f: lambda x: loop_vmap(lambda s: f(s * x))(SCALES).flatten()[:3],
    "grad": lambda f: lambda x: numeric_jacobian(f, x, STEP).sum(0),
    "vjp": lambda f: lambda x: x.cos() @ numeric_jacobian(f, x, STEP),
    "jvp": lambda f: lambda x: numeric_jacobian(f, x, STEP) @ x.cos(),
    "jacrev": lambda f: lambda x: numeric_jacobian(f, x, STEP).sum(1),
    "jacfwd": lambda f: lambda x: numeric_jacobian(f, x, STEP).sum(1),
}
REVERSE = ["vmap", "grad", "vjp", "jacrev"]
NESTS = [
    ("vmap", "grad", "vmap"),
    ("grad", "vmap", "grad"),
    ("grad", "jvp", "vmap"),
    ("jvp", "grad", "vmap"),
    ("vmap", "jvp", "grad"),
]


def values(x, y):
    return x.sin() * y.sum(-1, keepdim=True), x * y


class Generated(torch.autograd.Function):
    """Two outputs; batched by torch.func on its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, y):
        return values(x, y)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient, of_product):
        x, y = ctx.saved_tensors
        of_y = (gradient * x.sin()).sum(-1, keepdim=True).expand(y.shape)
        of_x = gradient * x.cos() * y.sum(-1, keepdim=True)
        return of_x + of_product * y, of_y + of_product * x

    @staticmethod
    def jvp(ctx, of_x, of_y):
        x, y = ctx.saved_tensors
        tangent = of_x * x.cos() * y.sum(-1, keepdim=True)
        return tangent + x.sin() * of_y.sum(-1, keepdim=True), of_x * y + x * of_y


class WithRule(Generated):
    """Batched by a rule of its own; `vmap` counts how often it was asked."""

    generate_vmap_rule = False
    calls = 0

    @staticmethod
    def vmap(info, in_dims, x, y):
        WithRule.calls += 1
        x = x.expand(info.batch_size, 3) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        y = y.expand(info.batch_size, 3) if in_dims[1] is None else y.movedim(in_dims[1], 0)
        return Generated.apply(x, y), (0, 0)


class WithoutJvp(Generated):
    """torch.func has no forward mode for it; functx derives one from backward."""

    jvp = torch.autograd.Function.jvp


class OldStyle(WithoutJvp):
    """torch.func does not take it; functx hands it over in another form."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return values(x, y)

    setup_context = torch.autograd.Function.setup_context


class KeepingOld(torch.autograd.Function):
    """The square of sin. It keeps what is neither input nor output, and more than tensors."""

    @staticmethod
    def forward(ctx, x):
        sine = x.sin()
        ctx.save_for_backward(sine, x)
        ctx.factor = 2
        return sine**2

    @staticmethod
    def backward(ctx, gradient):
        sine, x = ctx.saved_tensors
        return ctx.factor * sine * x.cos() * gradient


class KeepingNew(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin() ** 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        (x,) = inputs
        ctx.save_for_backward(x.sin(), x)
        ctx.save_for_forward(x.sin(), x)
        ctx.factor = 2

    @staticmethod
    def backward(ctx, gradient):
        sine, x = ctx.saved_tensors
        return ctx.factor * sine * x.cos() * gradient

    jvp = backward


class InPlace(torch.autograd.Function):
    """Squares its argument in place; the second output has no derivative."""

    @staticmethod
    def forward(ctx, x):
        sign = x.sign()
        ctx.save_for_backward(x.clone())
        x.mul_(x)
        ctx.mark_dirty(x)
        ctx.mark_non_differentiable(sign)
        return x, sign

    @staticmethod
    def backward(ctx, gradient, _):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


def made_of(apply):
    def f(x):
        left, right = apply(x, 2 * x.cos())
        return left * right + apply(left, WEIGHT)[0]

    return f


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(OURS, repeat=2)))
@pytest.mark.parametrize("function", [Generated, WithRule], ids=lambda f: f.__name__)
def test_two_levels(function, outer, inner):
    x, f = randn(3), made_of(function.apply)
    expected = REFERENCE[outer](REFERENCE[inner](made_of(values)))(x)
    WithRule.calls = 0
    assert_close(THEIRS[outer](OURS[inner](f))(x), expected)
    assert_close(OURS[outer](THEIRS[inner](f))(x), expected)
    if function is WithRule and "vmap" in (outer, inner):
        assert WithRule.calls > 0


@pytest.mark.parametrize("nest", NESTS, ids="-".join)
def test_three_levels(nest):
    x, f = randn(3), made_of(Generated.apply)
    expected = made_of(values)
    theirs_outside = ours_outside = f
    for depth, name in enumerate(reversed(nest)):
        theirs, ours = (THEIRS, OURS) if depth % 2 == 0 else (OURS, THEIRS)
        theirs_outside, ours_outside = theirs[name](theirs_outside), ours[name](ours_outside)
        expected = REFERENCE[name](expected)
    assert_close(theirs_outside(x), expected(x))
    assert_close(ours_outside(x), expected(x))


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(REVERSE, OURS)))
def test_without_jvp(outer, inner):
    x = randn(3)
    expected = REFERENCE[outer](REFERENCE[inner](made_of(values)))(x)
    assert_close(THEIRS[outer](OURS[inner](made_of(WithoutJvp.apply)))(x), expected)


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(REVERSE, OURS)))
def test_old_style(outer, inner):
    x = randn(3)
    expected = REFERENCE[outer](REFERENCE[inner](made_of(values)))(x)
    assert_close(THEIRS[outer](OURS[inner](made_of(OldStyle.apply)))(x), expected)


@pytest.mark.parametrize("function", [KeepingOld, KeepingNew], ids=lambda f: f.__name__)
def test_what_is_kept_besides_inputs_and_outputs(function):
    x, f = randn(4, 3), function.apply
    expected = 2 * x.sin() * x.cos()
    assert_close(torch.func.grad(lambda x: functx.vmap(f)(x).sum())(x), expected)
    assert_close(torch.func.vmap(functx.grad(lambda x: f(x).sum()))(x), expected)
    assert_close(torch.func.vmap(lambda x: functx.jvp(f, (x,), (x,))[1])(x), expected * x)
    if function is KeepingNew:
        assert_close(torch.func.jvp(functx.vmap(f), (x,), (x,))[1], expected * x)


def test_in_place_and_constant_outputs():
    x = randn(4, 3)

    def f(x):
        y = x * 2
        changed, sign = InPlace.apply(y)
        return (y * changed * sign).sum()

    expected = 64 * x.abs() ** 3  # of 16 x^4 sign(x)
    assert_close(functx.vmap(functx.grad(f))(x), expected)
    # torch.func wants a function that writes in place to save its input elsewhere than its context.
    with pytest.raises(RuntimeError, match="returned as-is as output is being saved"):
        torch.func.vmap(functx.grad(f))(x)
    assert_close(torch.func.grad(lambda x: functx.vmap(f)(x).sum())(x), expected)
