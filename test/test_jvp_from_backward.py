"""jvp of operators that have a derivative in reverse mode only: their backward, transposed."""

import gc
import itertools
import math
import weakref

import numpy as np
import pytest
import torch
from _custom_ops import define_product, in_numpy, looping
from _op_db import ENTRIES, samples
from _reference import assert_equal_trees, autograd_vjp, randn
from torch import Tensor
from torch.testing import assert_close

from functx import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

# ---- an operator in numpy that can be differentiated any number of times -----------------------


@pytest.fixture
def wave(namespace):
    """`wave(x, n)` is the nth derivative of the sine."""

    @torch.library.custom_op(f"{namespace}::wave", mutates_args=())
    def wave(x: Tensor, n: int) -> Tensor:
        return in_numpy(lambda x: np.sin(x + n * np.pi / 2))(x)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.n = inputs[1]

    def backward(ctx, gradient):
        return gradient * wave(*ctx.saved_tensors, ctx.n + 1), None

    wave.register_autograd(backward, setup_context=setup)
    return wave


def sine(x, n):
    return (x + n * math.pi / 2).sin()


X, S, T, R = randn(4), randn(4), randn(4), randn(4)
XS, TS = randn(3, 4), randn(3, 4)
EYE = torch.eye(4, dtype=torch.float64)


def along(f, t):
    return lambda x: jvp(f, (x,), (t,))[1]


COMPOSITIONS = {
    "jvp": (lambda f: jvp(f, (X,), (T,)), lambda: (sine(X, 0), sine(X, 1) * T)),
    "jvp of jvp": (lambda f: along(along(f, S), T)(X), lambda: sine(X, 2) * S * T),
    "jvp of jvp of jvp": (
        lambda f: along(along(along(f, S), T), R)(X),
        lambda: sine(X, 3) * S * T * R,
    ),
    "vmap of jvp": (
        lambda f: vmap(lambda x, t: jvp(f, (x,), (t,)))(XS, TS),
        lambda: (sine(XS, 0), sine(XS, 1) * TS),
    ),
    "vmap of jvp, a shared tangent": (lambda f: vmap(along(f, T))(XS), lambda: sine(XS, 1) * T),
    "vmap of jvp, a shared primal": (
        lambda f: vmap(lambda t: along(f, t)(X))(TS),
        lambda: sine(X, 1) * TS,
    ),
    "jvp of vmap": (
        lambda f: jvp(vmap(f), (XS,), (TS,)),
        lambda: (sine(XS, 0), sine(XS, 1) * TS),
    ),
    "vmap of vmap of jvp": (
        lambda f: vmap(vmap(along(f, T)))(XS[None]),
        lambda: (sine(XS, 1) * T)[None],
    ),
    "vmap of jvp of jvp": (
        lambda f: vmap(along(along(f, S), T))(XS),
        lambda: sine(XS, 2) * S * T,
    ),
    "jvp of vmap of jvp": (
        lambda f: jvp(vmap(along(f, S)), (XS,), (TS,))[1],
        lambda: sine(XS, 2) * S * TS,
    ),
    "grad of jvp": (
        lambda f: grad(lambda x: along(f, T)(x).sum())(X),
        lambda: sine(X, 2) * T,
    ),
    "grad of the output of jvp": (
        lambda f: grad(lambda x: jvp(f, (x,), (T,))[0].sum())(X),
        lambda: sine(X, 1),
    ),
    "jvp of grad": (
        lambda f: along(grad(lambda x: f(x).sum()), T)(X),
        lambda: sine(X, 2) * T,
    ),
    "vmap of grad of jvp": (
        lambda f: vmap(grad(lambda x: along(f, T)(x).sum()))(XS),
        lambda: sine(XS, 2) * T,
    ),
    "vmap of jvp of grad": (
        lambda f: vmap(along(grad(lambda x: f(x).sum()), T))(XS),
        lambda: sine(XS, 2) * T,
    ),
    "grad of jvp of grad": (
        lambda f: grad(lambda x: along(grad(lambda x: f(x).sum()), T)(x).sum())(X),
        lambda: sine(X, 3) * T,
    ),
    "jacfwd": (lambda f: jacfwd(f)(X), lambda: sine(X, 1).diag()),
    "jacfwd of jacfwd": (
        lambda f: jacfwd(jacfwd(f))(X),
        lambda: sine(X, 2)[:, None, None] * EYE[:, :, None] * EYE[:, None],
    ),
    "hessian": (
        lambda f: hessian(lambda x: f(x).sum())(X),
        lambda: sine(X, 2).diag(),
    ),
    "jacrev of jacfwd": (
        lambda f: jacrev(jacfwd(lambda x: f(x).sum()))(X),
        lambda: sine(X, 2).diag(),
    ),
    "linearize": (
        lambda f: linearize(f, X)[1](T),
        lambda: sine(X, 1) * T,
    ),
    "linearize of jvp": (
        lambda f: linearize(along(f, S), X)[1](T),
        lambda: sine(X, 2) * S * T,
    ),
    "vmap of jacfwd": (
        lambda f: vmap(jacfwd(f))(XS),
        lambda: sine(XS, 1).diag_embed(),
    ),
}


@pytest.mark.parametrize("composition", COMPOSITIONS)
@looping
def test_compositions(composition, wave):
    transform, expected = COMPOSITIONS[composition]
    assert_equal_trees(transform(lambda x: wave(x, 0)), expected())


@pytest.mark.parametrize("composition", COMPOSITIONS)
@looping
def test_compositions_between_other_operators(composition, wave):
    """What comes in is a result, and what goes out is an argument, of operators with rules."""
    transform, expected = COMPOSITIONS[composition]
    assert_equal_trees(transform(lambda x: (wave(x * 1, 0) * 2).view(-1) / 2), expected())


def test_broadcasting_and_two_tangents(namespace):
    product = define_product(namespace)
    x, y, s, t = randn(4), randn(4), randn(4), randn(4)
    assert_close(jvp(product, (x, y), (s, t)), (x * y, s * y + x * t))
    assert_close(jvp(lambda x: product(x, x), (x,), (s,))[1], 2 * x * s)
    second = jvp(lambda x, y: jvp(product, (x, y), (s, t))[1], (x, y), (t, s))[1]
    assert_close(second, s * s + t * t)
    constant = jvp(lambda x: product(x, y), (x,), (s,))
    assert_close(constant, (x * y, s * y))


@pytest.mark.parametrize("outside", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_grad_mode_outside_does_not_matter(outside, wave):
    with outside():
        output, tangent = jvp(lambda x: wave(x, 0), (X,), (T,))
    assert_close(tangent, sine(X, 1) * T)
    assert not output.requires_grad
    assert not tangent.requires_grad


def test_plain_autograd_sees_through_it(wave):
    x, t = X.clone().requires_grad_(), T.clone().requires_grad_()
    output, tangent = jvp(lambda x: wave(x, 0), (x,), (t,))
    gradients = torch.autograd.grad(output.sum() + 2 * tangent.sum(), (x, t))
    assert_equal_trees(gradients, (sine(X, 1) + 2 * sine(X, 2) * T, 2 * sine(X, 1)))


def test_hooks_for_saved_tensors_are_left_alone(wave):
    def refuse(tensor):
        raise AssertionError("packed")

    with torch.autograd.graph.saved_tensors_hooks(refuse, refuse):
        _, tangent = jvp(lambda x: wave(x, 0), (X,), (T,))
    assert_close(tangent, sine(X, 1) * T)

    def f(x):
        return torch.utils.checkpoint.checkpoint(
            along(lambda x: wave(x, 0), T), x, use_reentrant=False
        )

    assert_close(grad(lambda x: f(x).sum())(X), sine(X, 2) * T)


def test_what_was_recorded_is_freed(namespace):
    saved = []

    @torch.library.custom_op(f"{namespace}::double", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return in_numpy(lambda x: 2 * x)(x)

    def setup(ctx, inputs, output):
        large = torch.ones(1000)
        saved.append(weakref.ref(large))
        ctx.large = large

    double.register_autograd(lambda ctx, g: 2 * g, setup_context=setup)
    output, tangent = jvp(double, (X,), (T,))
    gc.collect()
    assert saved[0]() is None
    assert_close((output, tangent), (2 * X, 2 * T))


# ---- arguments and results of all kinds --------------------------------------------------------


@pytest.fixture
def mix(namespace):
    """A weighted sum of tensors, its square, its signs and the pieces of it."""

    @torch.library.custom_op(f"{namespace}::mix", mutates_args=())
    def mix(
        xs: list[Tensor], weight: Tensor | None, index: Tensor, scale: float, *, power: int = 1
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        total = sum(xs) * scale * (1 if weight is None else weight)
        total = total[index] ** power
        return total, total.sign().long(), [total[:1] * 2, total[1:] * 3]

    def setup(ctx, inputs, keyword_only_inputs, output):
        xs, weight, index, ctx.scale = inputs
        ctx.count, ctx.power = len(xs), keyword_only_inputs["power"]
        ctx.save_for_backward(*xs, *([] if weight is None else [weight]), index)

    def backward(ctx, total_gradient, _, piece_gradients):
        *xs, index = ctx.saved_tensors
        xs, weight = (xs[:-1], xs[-1]) if len(xs) > ctx.count else (xs, None)
        g = torch.zeros_like(xs[0][index]) if total_gradient is None else total_gradient
        pieces = [
            torch.zeros_like(p) if q is None else q
            for p, q in zip((g[:1], g[1:]), piece_gradients, strict=True)
        ]
        g = g + torch.cat([2 * pieces[0], 3 * pieces[1]])
        factor = 1 if weight is None else weight
        inside = (sum(xs) * ctx.scale * factor)[index]
        g = torch.zeros_like(xs[0]).index_add(0, index, g * ctx.power * inside ** (ctx.power - 1))
        by_x = g * ctx.scale * factor
        by_weight = None if weight is None else (g * ctx.scale * sum(xs)).sum_to_size(weight.shape)
        return [by_x] * len(xs), by_weight, None, None

    mix.register_autograd(backward, setup_context=setup)
    return mix


def mix_reference(xs, weight, index, scale, power=1):
    total = (sum(xs) * scale * (1 if weight is None else weight))[index] ** power
    return total, total.sign().long(), [total[:1] * 2, total[1:] * 3]


@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize(
    ("active", "with_weight"),
    [
        *itertools.product(["first", "second", "both"], [False, True]),
        ("weight", True),
    ],
)
def test_lists_options_integers_and_several_results(active, with_weight, power, mix):
    x, y, weight, index = randn(4), randn(4), randn(4), torch.tensor([2, 0, 0])
    weight = weight if with_weight else None
    chosen = {"first": (x,), "second": (y,), "both": (x, y), "weight": (weight,)}[active]
    tangents = tuple(torch.randn_like(each) for each in chosen)

    def call(op):
        def f(*inputs):
            values = {"x": x, "y": y, "weight": weight}
            names = {"first": "x", "second": "y", "both": "xy", "weight": ["weight"]}[active]
            values.update(zip(names, inputs, strict=True))
            return op([values["x"], values["y"]], values["weight"], index, 0.5, power=power)

        return f

    output, tangent = jvp(lambda *a: call(mix)(*a)[::2], chosen, tangents)
    expected, signs, pieces = call(mix_reference)(*chosen)
    assert_equal_trees(output, (expected, pieces))
    # <u, J t> = <J^T u, t>
    for _ in range(4):
        u = [torch.randn_like(each) for each in (expected, *pieces)]
        forward = sum((a * b).sum() for a, b in zip(u, (tangent[0], *tangent[1]), strict=True))
        pulled = autograd_vjp(
            lambda *a: (lambda r: (r[0], *r[2]))(call(mix_reference)(*a)), chosen, tuple(u)
        )
        assert_close(forward, sum((a * b).sum() for a, b in zip(pulled, tangents, strict=True)))
    _, dual_signs = jvp(
        lambda *a: (lambda r: (r[0], (r[1] > 5).double()))(call(mix)(*a)), chosen, tangents
    )[1]
    assert_close(dual_signs, torch.zeros(3).double())
    assert torch.equal(call(mix)(*chosen)[1], signs)


def test_a_result_that_does_not_depend_on_what_has_a_tangent(namespace):
    @torch.library.custom_op(f"{namespace}::both", mutates_args=())
    def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, y * 3

    both.register_autograd(lambda ctx, g, h: (2 * g, 3 * h))
    x, y, t = randn(4), randn(3), randn(4)
    assert_equal_trees(
        jvp(lambda x: both(x, y), (x,), (t,)), ((2 * x, 3 * y), (2 * t, torch.zeros_like(y)))
    )


def test_a_backward_that_gives_nothing_is_a_derivative_of_zero(namespace):
    @torch.library.custom_op(f"{namespace}::steps", mutates_args=())
    def steps(x: Tensor) -> Tensor:
        return x.round()

    steps.register_autograd(lambda ctx, g: None)
    assert_equal_trees(jvp(steps, (X,), (T,)), (X.round(), torch.zeros_like(X)))


def test_complex_numbers(namespace):
    @torch.library.custom_op(f"{namespace}::turn", mutates_args=())
    def turn(z: Tensor, w: Tensor) -> Tensor:
        return in_numpy(lambda z, w: z.conj() * w)(z, w)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def backward(ctx, g):
        z, w = ctx.saved_tensors
        return g.conj() * w, g * z

    turn.register_autograd(backward, setup_context=setup)
    z, w, s, t = (torch.complex(randn(3), randn(3)) for _ in range(4))
    expected = (z.conj() * w, s.conj() * w + z.conj() * t)
    assert_equal_trees(jvp(turn, (z, w), (s, t)), expected)


@looping
def test_random_numbers_are_drawn_once(namespace):
    """Primal and tangent see the same mask, and the generator is left where it always is."""

    @torch.library.custom_op(f"{namespace}::drop", mutates_args=())
    def drop(x: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.rand(x.shape, dtype=x.dtype)
        return x * mask, mask

    def setup(ctx, inputs, output):
        ctx.save_for_backward(output[1])

    drop.register_autograd(lambda ctx, g, _: g * ctx.saved_tensors[0], setup_context=setup)
    for _ in range(2):
        torch.manual_seed(3)
        (y, mask), (tangent, mask_tangent) = jvp(drop, (X,), (T,))
        after = torch.rand(1)
        torch.manual_seed(3)
        expected, expected_mask = drop(X)
        assert_equal_trees((y, mask, after), (expected, expected_mask, torch.rand(1)))
        assert_close(tangent, T * mask)
        assert_close(mask_tangent, torch.zeros_like(mask))
    (y, mask), (tangent, _) = vmap(lambda x: jvp(drop, (x,), (T,)), randomness="different")(XS)
    assert_close(y, XS * mask)
    assert_close(tangent, T * mask)


def test_an_operator_that_writes_goes_by_the_one_that_returns(namespace):
    for schema in (
        "scale(Tensor x, float by) -> Tensor",
        "scale_(Tensor(a!) x, float by) -> Tensor(a!)",
        "scale.out(Tensor x, float by, *, Tensor(a!) out) -> Tensor(a!)",
    ):
        name, rest = schema.split("(", 1)
        torch.library.define(f"{namespace}::{name}", f"({rest}")
    torch.library.impl(f"{namespace}::scale", "cpu")(lambda x, by: in_numpy(lambda x: x * by)(x))
    torch.library.impl(f"{namespace}::scale_", "cpu")(lambda x, by: x.copy_(x.detach() * by))
    torch.library.impl(f"{namespace}::scale.out", "cpu")(lambda x, by, *, out: out.copy_(x * by))
    torch.library.register_autograd(
        f"{namespace}::scale",
        lambda ctx, g: (g * ctx.by, None),
        setup_context=lambda ctx, inputs, output: setattr(ctx, "by", inputs[1]),
    )
    ops = getattr(torch.ops, namespace)

    def f(x):
        y = x * 1
        ops.scale_(y[1:], 3.0)
        out = torch.zeros(2, 4, dtype=x.dtype)
        ops.scale.out(y, 2.0, out=out[1])
        return out * x

    expected = torch.stack([torch.zeros(4).double(), 4 * X * T * torch.tensor([1.0, 3, 3, 3])])
    assert_close(jvp(f, (X,), (T,))[1], expected)
    second = torch.stack([torch.zeros(4).double(), 4 * S * T * torch.tensor([1.0, 3, 3, 3])])
    assert_close(along(along(f, S), T)(X), second)


# ---- errors -------------------------------------------------------------------------------------


def define(namespace, backward=None):
    @torch.library.custom_op(f"{namespace}::halve", mutates_args=())
    def halve(x: Tensor) -> Tensor:
        return in_numpy(lambda x: x / 2)(x)

    if backward is not None:
        halve.register_autograd(backward)
    return halve


def in_numpy_backward(ctx, g):
    return torch.from_numpy(g.numpy() / 2)


def detaching_backward(ctx, g):
    return g.detach() / 2


def raising_backward(ctx, g):
    raise NotImplementedError("no derivative of this one")


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        (None, "could not be differentiated to get one: .* no autograd formula was registered"),
        (in_numpy_backward, r"could not be differentiated to get one: .*numpy\(\)"),
        (detaching_backward, "what autograd does not see"),
        (torch.autograd.function.once_differentiable(lambda ctx, g: g / 2), "once_differentiable"),
        (raising_backward, "could not be differentiated to get one: no derivative of this one"),
    ],
)
@pytest.mark.parametrize("transform", ["jvp", "vmap of jvp", "jacfwd"])
@looping
def test_errors(transform, backward, message, namespace):
    halve = define(namespace, backward)
    call, _ = COMPOSITIONS[transform]
    with pytest.raises(RuntimeError, match=message) as caught:
        call(halve)
    assert isinstance(caught.value, NotImplementedError)
    assert f"functx.jvp: {namespace}::halve" in str(caught.value)
    assert "functx.register_jvp_rule" in str(caught.value)
    assert_close(halve(X), X / 2)


@looping
def test_an_operator_without_autograd_kernel(namespace):
    torch.library.define(f"{namespace}::halve", "(Tensor x) -> Tensor")
    torch.library.impl(f"{namespace}::halve", "cpu")(in_numpy(lambda x: x / 2))
    halve = getattr(torch.ops, namespace).halve
    for transform in ("jvp", "vmap of jvp", "jvp of jvp", "jacfwd"):
        with pytest.raises(
            NotImplementedError,
            match=r"functx.jvp: .*::halve has no derivative, neither .* functx.register_jvp",
        ):
            COMPOSITIONS[transform][0](halve)


class Refusal(Exception):
    pass


def test_other_exceptions_of_a_backward_arrive_as_they_are(namespace):
    def backward(ctx, g):
        raise Refusal("not today")

    halve = define(namespace, backward)
    with pytest.raises(Refusal, match="not today"):
        jvp(halve, (X,), (T,))
    with pytest.raises(Refusal, match="not today"):
        vjp(halve, X)[1](T)


def test_without_tangents_no_derivative_is_asked_for(namespace):
    halve = define(namespace)
    output, tangent = jvp(lambda x: x + halve(S), (X,), (T,))
    assert_close((output, tangent), (X + S / 2, T))


# ---- PyTorch's own ---------------------------------------------------------------------------

# Those whose backward PyTorch can differentiate; the others have rules.
ONLY_REVERSE = [
    "cholesky",
    "ormqr",
    "index_reduce.mean",
    "index_reduce.prod",
    "index_reduce.amin",
    "index_reduce.amax",
    "nn.functional.grid_sample",
]


def pairing(us, vs):
    return sum((u.conj() * v).real.sum() for u, v in zip(us, vs, strict=True))


@pytest.mark.parametrize("name", ONLY_REVERSE)
@pytest.mark.filterwarnings("ignore")
def test_operators_of_pytorch_without_forward_formula(name):
    """<u, J t> = <J^T u, t>, where plain autograd gives the right side."""
    op = ENTRIES[name]
    checked = 0
    for sample in samples(op, torch.float64, 8):
        call = sample.bind(op.op)
        for position, x in enumerate(sample.tensors):
            if not x.is_floating_point():
                continue

            def f(x, position=position, call=call, tensors=tuple(sample.tensors)):
                return call(*tensors[:position], x, *tensors[position + 1 :])

            output = f(x)
            cotangents = [tuple(torch.randn_like(o) for o in output) for _ in range(3)]
            try:
                pulled = [autograd_vjp(f, (x,), u)[0] for u in cotangents]
            except RuntimeError:
                continue  # this argument has no derivative at all
            t = torch.randn_like(x)
            primal, tangent = jvp(f, (x,), (t,))
            assert_equal_trees(primal, output)
            for u, g in zip(cotangents, pulled, strict=True):
                assert_close(pairing(u, tangent), pairing((g,), (t,)))
            checked += 1
    assert checked > 0
