"""A backward that is not linear in its gradients is the transpose of nothing: jvp says so.

Linear ones of every description pass, in every composition; the reference for them is plain
autograd, one row of the Jacobian at a time.
"""

import pytest
import torch
from _reference import autograd_grad, autograd_jacobian, randn
from torch.autograd import Function
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import functx
from functx import grad, hessian, jacfwd, jacrev, jvp, linearize, make_fx, register_jvp_rule, vmap

torch.manual_seed(0)
X, T = randn(4), randn(4)
WEIGHT = randn(4, 4)


def with_backward(backward, forward=None):
    class Given(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clone() if forward is None else forward(x)

    Given.backward = staticmethod(backward)
    return Given


def quantised(ctx, g):
    return (g * 8).round() / 8


def largest(ctx, g):
    """Keeps the gradients of the largest half."""
    return g * (g.abs() >= g.abs().median())


NONLINEAR = {
    "clipped": lambda ctx, g: (3 * g).clamp(-1, 1),
    "clipped far away": lambda ctx, g: g.clamp(-1000, 1000),
    "clipped by norm": lambda ctx, g: g * (1 / g.norm()).clamp(max=1),
    "normalised": lambda ctx, g: g / g.norm(),
    "sign": lambda ctx, g: g.sign(),
    "rectified": lambda ctx, g: g.clamp(min=0),
    "guided": lambda ctx, g: g.relu() * (ctx.saved_tensors[0] > -9),
    "absolute": lambda ctx, g: g.abs(),
    "squared": lambda ctx, g: g * g.abs(),
    "affine": lambda ctx, g: g + 1,
    "constant": lambda ctx, g: torch.ones_like(g),
    "rounded": quantised,
    "the largest": largest,
    "without the small": lambda ctx, g: torch.where(g.abs() > 1e-3, g, 0),
    "of its maximum": lambda ctx, g: g - g.abs().max(),
    "tanh": lambda ctx, g: g.tanh(),
    "by a condition": lambda ctx, g: g if functx.debug_unwrap(g).sum() > 0 else 2 * g,
    "in part detached": lambda ctx, g: g + g.detach(),
    "in part in numpy": lambda ctx, g: (
        g + torch.from_numpy(functx.debug_unwrap(g).detach().numpy())
    ),
}

LINEAR = {
    "scaled": lambda ctx, g: 3 * g,
    "tiny": lambda ctx, g: 1e-30 * g,
    "huge": lambda ctx, g: 1e30 * g,
    "with a matrix": lambda ctx, g: WEIGHT @ g,
    "straight through": lambda ctx, g: g * (ctx.saved_tensors[0].abs() < 1),
    "in place": lambda ctx, g: g.clone().mul_(2),
    "expanded": lambda ctx, g: g.sum().expand(4),
    "strided": lambda ctx, g: torch.stack([g, g], 1)[:, 0],
    "nothing": lambda ctx, g: None,
    "zeros": lambda ctx, g: torch.zeros_like(g),
    "centred": lambda ctx, g: g - g.mean(),
    "sorted by the input": lambda ctx, g: g[ctx.saved_tensors[0].argsort()],
    "through a view": lambda ctx, g: g.view(2, 2).T.reshape(4),
    "by fft": lambda ctx, g: torch.fft.ifft(torch.fft.fft(g) * torch.arange(1, 5)).real,
    "by a solver": lambda ctx, g: torch.linalg.solve(WEIGHT, g),
}

COMPOSITIONS = {
    "jvp": lambda f: jvp(f, (X,), (T,)),
    "vmap(jvp)": lambda f: vmap(lambda x, t: jvp(f, (x,), (t,)))(X[None], T[None]),
    "jvp(vmap)": lambda f: jvp(vmap(f), (X[None],), (T[None],)),
    "jacfwd": lambda f: jacfwd(f)(X),
    "vmap(jacfwd)": lambda f: vmap(jacfwd(f))(X[None]),
    "jvp(jvp)": lambda f: jvp(lambda x: jvp(f, (x,), (T,))[1], (X,), (T,)),
    "grad(jvp)": lambda f: grad(lambda t: jvp(f, (X,), (t,))[1].sum())(T),
    "linearize": lambda f: linearize(f, X),
    "linearize of two paths": lambda f: linearize(lambda x: f(x) + x, X),
    "hessian": lambda f: hessian(lambda x: f(x).sum())(X),
}


@pytest.mark.parametrize("kind", NONLINEAR)
@pytest.mark.parametrize("composition", ["jvp", "vmap(jvp)", "jacfwd", "linearize of two paths"])
def test_refused(kind, composition):
    function = with_backward(NONLINEAR[kind])
    with pytest.raises(RuntimeError, match=r"no jvp staticmethod.*Define jvp\(ctx, \*tangents\)"):
        COMPOSITIONS[composition](function.apply)
    assert functx._C.level_depth() == 0
    # In reverse it is what its author says.
    seed = T.clone()
    assert_close(
        functx.vjp(function.apply, X)[1](seed)[0],
        autograd_grad(lambda x: function.apply(x) @ T, X)[0],
    )


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_refused_in_every_composition(composition):
    function = with_backward(NONLINEAR["clipped"])
    with pytest.raises(RuntimeError, match="not linear in the gradients"):
        COMPOSITIONS[composition](function.apply)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_a_jvp_is_the_remedy(composition):
    function = with_backward(NONLINEAR["clipped"])
    function.jvp = staticmethod(lambda ctx, t: 3 * t)
    COMPOSITIONS[composition](function.apply)
    assert_close(jvp(function.apply, (X,), (T,))[1], 3 * T)


def jacobian_of(function, x):
    return autograd_jacobian(function.apply, x)[0]


@pytest.mark.parametrize("kind", LINEAR)
def test_linear_ones_are_transposed(kind):
    function = with_backward(LINEAR[kind])
    expected = torch.zeros(4, 4).double() if kind == "nothing" else jacobian_of(function, X)
    assert_close(jvp(function.apply, (X,), (T,))[1], expected @ T)
    assert_close(jacfwd(function.apply)(X), expected)
    assert_close(vmap(jacfwd(function.apply))(X[None])[0], expected)
    assert_close(jacfwd(vmap(function.apply))(X[None])[0, :, 0], expected)
    assert_close(linearize(function.apply, X)[1](T), expected @ T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", sorted(set(LINEAR) - {"tiny", "huge", "by fft", "by a solver"}))
def test_linear_to_rounding(kind, dtype):
    """Also of many elements, which sum up to more error."""
    backward = LINEAR[kind]
    n = 4 if kind in ("with a matrix", "expanded", "through a view") else 10000
    weight, function = WEIGHT.to(dtype), with_backward(backward)
    if kind == "with a matrix":
        function = with_backward(lambda ctx, g: weight @ g)
    x = torch.randn(n, dtype=torch.float64).to(dtype)
    t = torch.randn(n, dtype=torch.float64).to(dtype)
    tangent = jvp(function.apply, (x,), (t,))[1]
    if kind in ("scaled", "in place", "strided"):
        assert_close(tangent, {"scaled": 3, "in place": 2, "strided": 1}[kind] * t)


@pytest.mark.parametrize("kind", ["clipped", "sign", "affine", "in part detached", "rectified"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex128])
@pytest.mark.parametrize("shape", [(1,), (), (300,), (3, 0), (2, 3)])
def test_refused_whatever_the_shape_and_dtype(kind, dtype, shape):
    if dtype.is_complex and kind in ("clipped", "rectified", "sign"):
        pytest.skip("complex numbers have no order")
    function = with_backward(NONLINEAR[kind])
    x, t = torch.ones(shape, dtype=dtype), torch.full(shape, 0.7, dtype=dtype)
    if 0 in shape:
        assert jvp(function.apply, (x,), (t,))[1].shape == shape
        return
    with pytest.raises(RuntimeError, match="no jvp staticmethod"):
        jvp(function.apply, (x,), (t,))


def test_complex_numbers():
    weight = torch.complex(randn(4, 4), randn(4, 4))
    function = with_backward(lambda ctx, g: weight.conj().T @ g, forward=lambda x: weight @ x)
    z, t = torch.complex(X, T), torch.complex(T, X)
    assert_close(jvp(function.apply, (z,), (t,))[1], weight @ t)
    to_real = with_backward(
        lambda ctx, g: g * ctx.saved_tensors[0].sgn(), forward=lambda x: x.abs()
    )
    assert_close(jvp(to_real.apply, (z,), (t,))[1], (z.conj() * t).real / z.abs())


# ---- what the second run of the backward must not change -----------------------------------------


def test_a_backward_that_draws_random_numbers():
    """The same in both runs, and as many as one run draws."""

    def dropped(ctx, g):
        return g * (torch.rand(4) > 0.5)

    function = with_backward(dropped)
    torch.manual_seed(7)
    mask = torch.rand(4) > 0.5
    after = torch.rand(3)
    for derivative in (jvp, lambda f, x, t: (None, linearize(f, *x)[1](*t))):
        torch.manual_seed(7)
        tangent = derivative(function.apply, (X,), (T,))[1]
        assert_close(tangent, mask * T)
        assert_close(torch.rand(3), after)
    torch.manual_seed(7)
    mapped = vmap(lambda t: jvp(function.apply, (X,), (t,))[1], randomness="different")
    tangents = mapped(T.expand(50, 4))
    assert ((tangents == 0) | (tangents == T)).all()
    assert 0 < (tangents == 0).sum() < 200


def test_how_often_a_backward_runs():
    calls = []

    def counting(ctx, g):
        calls.append(g)
        return 2 * g

    function = with_backward(counting)
    grad(lambda x: function.apply(x).sum())(X)
    assert len(calls) == 1
    calls.clear()
    jvp(function.apply, (X,), (T,))
    assert len(calls) == 2  # to be recorded, and to be compared
    calls.clear()
    function.jvp = staticmethod(lambda ctx, t: 2 * t)
    jvp(function.apply, (X,), (T,))
    linearize(function.apply, X)[1](T)
    assert not calls


def test_a_backward_that_can_run_only_once():
    def forgetful(ctx, g):
        ctx.weights.pop()
        return g

    function = with_backward(forgetful)
    forward = function.forward

    def remembering(ctx, x):
        ctx.weights = [1]
        return forward(ctx, x)

    function.forward = staticmethod(remembering)
    with pytest.raises(
        RuntimeError, match=r"ran a second time.*failed then: pop from empty.*Define jvp"
    ):
        jvp(function.apply, (X,), (T,))


def test_a_program_that_is_traced_is_not_compared():
    function = with_backward(LINEAR["scaled"])
    traced = make_fx(lambda x, t: jvp(function.apply, (x,), (t,))[1])(X, T)
    assert_close(traced(X, T), 3 * T)
    symbolic = make_fx(lambda x, t: jvp(function.apply, (x,), (t,))[1], tracing_mode="symbolic")
    assert_close(symbolic(X, T)(X, T), 3 * T)
    with FlopCounterMode(display=False):
        assert_close(jvp(function.apply, (X,), (T,))[1], 3 * T)


def test_infinite_values_are_not_taken_for_nonlinear():
    function = with_backward(lambda ctx, g: g * torch.tensor([1.0, float("inf"), 1.0, 1.0]))
    tangent = jvp(function.apply, (X,), (T,))[1]
    assert_close(tangent, T * torch.tensor([1.0, float("inf"), 1.0, 1.0]))
    zero = jvp(with_backward(LINEAR["scaled"]).apply, (X,), (torch.zeros(4).double(),))[1]
    assert_close(zero, torch.zeros(4).double())


def test_two_inputs_and_two_outputs():
    class Mixing(Function):
        @staticmethod
        def forward(ctx, x, y, clip):
            ctx.save_for_backward(x, y)
            ctx.clip = clip
            return x * y, x + y

        @staticmethod
        def backward(ctx, product, total):
            x, y = ctx.saved_tensors
            of_y = (product * x + total).clamp(-1, 1) if ctx.clip else product * x + total
            return product * y + total, of_y, None

    call = lambda clip: lambda x, y: Mixing.apply(x, y, clip)
    output = jvp(call(False), (X, T), (T, X))[1]
    assert_close(output, (T * T + X * X, T + X))
    # Of the gradient that is not asked for, nothing has to be known.
    assert_close(jvp(lambda x: call(True)(x, X), (X,), (T,))[1], (X * T, T))
    with pytest.raises(RuntimeError, match="not linear"):
        jvp(call(True), (X, T), (T, X))
    assert_close(jacrev(call(False), (0, 1))(X, T)[1][1], torch.eye(4).double())


# ---- operators with a backward from torch.library ------------------------------------------------


@pytest.fixture
def operator(request):
    """A custom operator with the given backward, by a name that no other test has."""

    def define(backward):
        name = "".join(c if c.isalnum() else "_" for c in request.node.name)

        @torch.library.custom_op(f"nonlinear_{name}::copy", mutates_args=())
        def copy(x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy().copy())

        copy.register_autograd(backward, setup_context=save)
        return copy

    def save(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    return define


@pytest.mark.parametrize("kind", sorted(set(NONLINEAR) - {"in part in numpy", "constant"}))
@pytest.mark.parametrize("composition", ["jvp", "linearize of two paths"])
def test_operators_refused(kind, composition, operator):
    copy = operator(NONLINEAR[kind])
    with pytest.raises(NotImplementedError, match=r"functx.jvp: .*::copy has.*register_jvp_rule"):
        COMPOSITIONS[composition](copy)
    register_jvp_rule(copy, lambda primals, tangents: (copy(*primals), 5 * tangents[0]))
    assert_close(jvp(copy, (X,), (T,))[1], 5 * T)


@pytest.mark.filterwarnings("ignore:.*in a loop")
@pytest.mark.parametrize("composition", ["vmap(jvp)", "jacfwd", "jvp(jvp)", "hessian"])
def test_operators_refused_in_compositions(composition, operator):
    with pytest.raises(NotImplementedError, match=r"not linear in the gradients"):
        COMPOSITIONS[composition](operator(NONLINEAR["clipped"]))


@pytest.mark.parametrize("kind", sorted(set(LINEAR) - {"nothing"}))
def test_linear_operators_are_transposed(kind, operator):
    copy = operator(LINEAR[kind])
    expected = jacobian_of(with_backward(LINEAR[kind]), X)
    assert_close(jvp(copy, (X,), (T,))[1], expected @ T)
    assert_close(linearize(copy, X)[1](T), expected @ T)


def test_an_operator_whose_backward_draws_random_numbers(operator):
    copy = operator(lambda ctx, g: g * (torch.rand(4) > 0.5))
    torch.manual_seed(7)
    mask = torch.rand(4) > 0.5
    after = torch.rand(3)
    torch.manual_seed(7)
    assert_close(jvp(copy, (X,), (T,))[1], mask * T)
    assert_close(torch.rand(3), after)
