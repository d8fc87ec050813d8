"""linearize goes by the rules of jvp: for Functions, operators of others, and in what it refuses.

What has no derivative that can be had, raises; a path that goes by it never counts as zero beside
others. References are derivatives written down here.
"""

import gc
import threading

import pytest
import torch
from _reference import assert_equal_trees, randn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.testing import assert_close

import functx
from functx import grad, jacfwd, jacrev, jvp, linearize, vjp, vmap

torch.manual_seed(0)
X, T, S = randn(3), randn(3), randn(3)


class Square(Function):
    """The classes below differ in how their derivatives are computed."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


def square(name, **methods):
    return type(name, (Square,), {key: staticmethod(f) for key, f in methods.items()})


def saved(ctx):
    return ctx.saved_tensors[0]


def inner_autograd(ctx, g):
    with torch.enable_grad():
        x = saved(ctx).detach().requires_grad_()
        return torch.autograd.grad(x * x, x, g.detach())[0]


def under_no_grad(ctx, g):
    with torch.no_grad():
        return 2 * saved(ctx) * g


def in_numpy(ctx, g):
    return torch.from_numpy(2 * saved(ctx).detach().numpy() * g.detach().numpy())


def in_part_detached(ctx, g):
    return 0.5 * saved(ctx) * g + 1.5 * saved(ctx) * g.detach()


def never(ctx, g):
    raise AssertionError("a given jvp is to be used")


UNDIFFERENTIABLE = {
    "once_differentiable": (once_differentiable(Square.backward), NotImplementedError),
    "detach": (lambda ctx, g: 2 * saved(ctx) * g.detach(), RuntimeError),
    "detach, in part": (in_part_detached, RuntimeError),
    "no_grad": (under_no_grad, RuntimeError),
    "numpy": (in_numpy, RuntimeError),
    "an inner torch.autograd.grad": (inner_autograd, RuntimeError),
}


def beside(f):
    """`f` on one of two paths: the other one is not to hide that it has no derivative."""
    return lambda x: f(x) + x


DERIVATIVES = {
    "linearize": lambda f: linearize(f, X)[1](T),
    "vmap of the map": lambda f: vmap(linearize(f, X)[1])(T[None])[0],
    "vmap": lambda f: vmap(lambda x: linearize(f, x)[1](T))(X[None])[0],
    "of vmap": lambda f: linearize(vmap(f), X[None])[1](T[None])[0],
    "under grad": lambda f: grad(lambda t: (linearize(f, X)[1](t) * S).sum())(T),
}


@pytest.mark.parametrize("kind", UNDIFFERENTIABLE)
@pytest.mark.parametrize("where", DERIVATIVES)
def test_what_jvp_cannot_differentiate(kind, where):
    backward, error = UNDIFFERENTIABLE[kind]
    function = square(kind, backward=backward)
    message = r"no jvp staticmethod.*Define jvp"
    if kind == "numpy" and where in ("vmap", "of vmap"):
        message = r"\.numpy\(\) was called"
    with pytest.raises(error, match=message):
        DERIVATIVES[where](beside(function.apply))
    assert functx._C.level_depth() == 0


@pytest.mark.parametrize("kind", UNDIFFERENTIABLE)
@pytest.mark.parametrize("where", DERIVATIVES)
def test_a_given_jvp_is_used(kind, where):
    function = square(
        kind, backward=UNDIFFERENTIABLE[kind][0], jvp=lambda ctx, t: 2 * saved(ctx) * t
    )
    expected = (2 * X + 1) * (S if where == "under grad" else T)
    assert_close(DERIVATIVES[where](beside(function.apply)), expected)
    function = square("never", backward=never, jvp=lambda ctx, t: 2 * saved(ctx) * t)
    assert_close(DERIVATIVES[where](beside(function.apply)), expected)


def test_the_example_of_the_report():
    function = square("S", backward=once_differentiable(Square.backward))
    x = torch.tensor([1.0, 2.0])
    with pytest.raises(NotImplementedError, match="S has no jvp staticmethod"):
        linearize(lambda x: function.apply(x) + x, x)
    function = square(
        "S",
        backward=once_differentiable(Square.backward),
        jvp=lambda ctx, t: 2 * saved(ctx) * t,
    )
    for derivative in (
        lambda f: linearize(f, x)[1](torch.ones(2)),
        lambda f: jvp(f, (x,), (torch.ones(2),))[1],
    ):
        assert_close(derivative(lambda x: function.apply(x) + x), torch.tensor([3.0, 5.0]))


@pytest.mark.parametrize("where", DERIVATIVES)
@pytest.mark.parametrize("computes", ["in numpy", "detached"])
def test_a_jvp_that_takes_tangents_off_the_tape(where, computes):
    def jvp_in_numpy(ctx, t):
        return torch.from_numpy(2 * saved(ctx).numpy() * functx.debug_unwrap(t).detach().numpy())

    rules = {"in numpy": jvp_in_numpy, "detached": lambda ctx, t: 2 * saved(ctx) * t.detach()}
    function = square("Sly", jvp=rules[computes])
    if computes == "in numpy" and where in ("vmap", "of vmap"):
        pytest.skip("the class has no numpy array inside of vmap, with linearize or without")
    with pytest.raises(RuntimeError, match=r"functx.linearize: Sly.jvp computes .* functx.jvp"):
        DERIVATIVES[where](beside(function.apply))
    assert_close(jvp(beside(function.apply), (X,), (T,))[1], (2 * X + 1) * T)


def test_a_jvp_that_is_zero_or_none():
    for nothing in (lambda ctx, t: None, lambda ctx, t: torch.zeros(3).double()):
        function = square("Nothing", jvp=nothing)
        assert_close(linearize(beside(function.apply), X)[1](T), T)


# ---- operators of others -------------------------------------------------------------------------


@pytest.fixture
def halve(namespace):
    @torch.library.custom_op(f"{namespace}::halve", mutates_args=())
    def halve(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() / 2)

    return halve


@pytest.fixture
def namespace(request):
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    return f"linearize_{name}"


@pytest.mark.parametrize("way", ["jvp rule", "backward"])
def test_operators_with_derivatives(halve, way):
    if way == "backward":
        halve.register_autograd(lambda ctx, g: g / 2)
    else:
        halve.register_autograd(never)
        functx.register_jvp_rule(
            halve, lambda primals, tangents: (halve(*primals), tangents[0] / 2)
        )
    assert_close(linearize(beside(halve), X)[1](T), 1.5 * T)
    assert_close(vmap(linearize(beside(halve), X)[1])(T[None])[0], 1.5 * T)


def test_operators_without_derivatives(halve):
    halve.register_autograd(lambda ctx, g: g.detach() / 2)
    with pytest.raises(NotImplementedError, match="register_jvp_rule"):
        linearize(beside(halve), X)

    @functx.register_jvp_rule(halve)
    def rule(primals, tangents):
        return halve(*primals), tangents[0].detach() / 2

    assert_close(jvp(beside(halve), (X,), (T,))[1], 1.5 * T)
    with pytest.raises(RuntimeError, match=r"functx.linearize: the jvp rule of .*::halve computes"):
        linearize(beside(halve), X)


# ---- no second derivative is needed ------------------------------------------------------------


def overwritten(x):
    """`exp` saves its result for the backward pass, and that is changed."""
    y = x.exp()
    y.mul_(2)
    return y * x


def test_in_place_after_a_saved_value_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"overwrites in place .* clone\(\) .* functx.jvp"):
        linearize(overwritten, X)
    assert_close(jvp(overwritten, (X,), (T,))[1], 2 * X.exp() * (X + 1) * T)
    cloned = linearize(lambda x: x.exp().clone().mul_(2) * x, X)[1](T)
    assert_close(cloned, 2 * X.exp() * (X + 1) * T)


def test_values_computed_under_no_grad_are_constants_as_to_grad():
    def f(x):
        with torch.no_grad():
            y = x * x
            z = Square.apply(x) + square("With", jvp=lambda ctx, t: 2 * saved(ctx) * t).apply(x)
        return y * x + z

    assert_close(linearize(f, X)[1](T), X * X * T)
    assert_close(vmap(linearize(f, X)[1])(T[None])[0], X * X * T)
    with torch.no_grad():
        _, jvp_fn = linearize(Square.apply, X)
        assert_close(jvp_fn(T), 2 * X * T)


# ---- where the map is used -----------------------------------------------------------------------


def f(x):
    return (x.sin() * x).cumsum(0)


def derivative(x, t):
    return ((x.cos() * x + x.sin()) * t).cumsum(0)


def test_in_another_thread_and_after_the_levels_around_it():
    kept = {}

    def run(x, t):
        _, kept["map"] = linearize(f, x.detach())
        return kept["map"](t)

    assert_close(
        grad(lambda t: run(X, t).sum())(T),
        vjp(lambda t: derivative(X, t), T)[1](torch.ones(3).double())[0],
    )
    assert_close(kept["map"](S), derivative(X, S))  # its level outside is over
    results = []
    thread = threading.Thread(target=lambda: results.append(kept["map"](S)))
    thread.start()
    thread.join()
    assert_close(results[0], derivative(X, S))


def test_a_map_that_outlives_the_vmap_it_was_made_in():
    kept = []

    def run(x):
        output, jvp_fn = linearize(f, x)
        kept.append(jvp_fn)
        return output

    vmap(run)(torch.stack([X, S]))
    with pytest.raises(RuntimeError, match="escaped"):
        kept[0](T) + 1


def test_primals_that_are_tracked_outside():
    x = X.clone().requires_grad_()
    output, jvp_fn = linearize(f, x)
    assert output.requires_grad
    pushed = jvp_fn(T)
    (gradient,) = torch.autograd.grad(pushed.sum(), x)
    y = X.clone().requires_grad_()
    assert_close(gradient, torch.autograd.grad(derivative(y, T).sum(), y)[0])
    output, jvp_fn = linearize(f, X)
    assert not output.requires_grad
    assert not jvp_fn(T).requires_grad


def test_several_inputs_of_several_kinds():
    z = torch.complex(X, S)

    def g(z, x, empty, scalar):
        return {"a": (z * x).abs(), "b": [z.conj() * scalar, empty.sum() + x.sum()]}

    tangents = torch.complex(T, X), S, torch.empty(0, 2).double(), torch.tensor(0.5).double()
    primals = z, X, torch.empty(0, 2).double(), torch.tensor(2.0).double()
    output, jvp_fn = linearize(g, *primals)
    expected, slopes = torch.func.jvp(g, primals, tangents)
    assert_equal_trees(output, expected)
    assert_equal_trees(jvp_fn(*tangents), slopes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype):
    x, t = X.to(dtype), T.to(dtype)
    tolerances = {"rtol": 0.05, "atol": 0.05} if dtype is not torch.float32 else {}
    actual = linearize(lambda x: Square.apply(x).sin() + x.float().to(dtype), x)[1](t)
    exact = (2 * x.double() * (x.double() ** 2).cos() + 1) * t.double()
    assert_close(actual, exact.to(dtype), **tolerances)


def test_models_by_closed_compositions():
    weights = [randn(4, 3), randn(4, 4), randn(2, 4)]

    def mlp(x, *weights):
        for weight in weights:
            x = torch.nn.functional.softplus(weight @ x)
        return x

    _, jvp_fn = linearize(lambda x: mlp(x, *weights), X)
    jacobian = torch.autograd.functional.jacobian(lambda x: mlp(x, *weights), X)
    assert_close(vmap(jvp_fn)(torch.eye(3).double()).T, jacobian)
    assert_close(jacfwd(jvp_fn)(T), jacobian)
    assert_close(jacrev(jvp_fn)(T), jacobian)


def test_nothing_is_kept_but_what_the_map_needs():
    def count():
        gc.collect()
        return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())

    def run():
        output, jvp_fn = linearize(lambda x: f(Square.apply(x)), X)
        jvp_fn(T)
        vmap(jvp_fn)(T[None])
        return output

    run()
    before = count()
    for _ in range(5):
        run()
    assert count() == before
