"""`register_jvp_rule` for operators of the user's own and PyTorch's."""

import gc
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from _custom_ops import define_product, in_numpy, looping
from _reference import assert_equal_trees, autograd_grad, randn
from torch import Tensor
from torch.testing import assert_close

import functx
from functx import grad, hessian, jacfwd, jacrev, jvp, linearize, register_jvp_rule, vjp, vmap

X, Y, S, T, R = randn(4), randn(4), randn(4), randn(4), randn(4)
XS, TS = randn(3, 4), randn(3, 4)


def along(f, t):
    return lambda x: jvp(f, (x,), (t,))[1]


class Recorder:
    """A rule that notes its calls."""

    def __init__(self, rule):
        self.rule = rule
        self.calls = []

    def __call__(self, primals, tangents, **kwargs):
        self.calls.append((primals, tangents, kwargs))
        return self.rule(primals, tangents, **kwargs)


def define_power(namespace, with_backward=True):
    """x ** n in numpy, where autograd does not see."""

    @torch.library.custom_op(f"{namespace}::power", mutates_args=())
    def power(x: Tensor, n: int = 2) -> Tensor:
        return in_numpy(lambda x: x**n)(x)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.n = inputs[1]

    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * ctx.n * power(x, ctx.n - 1), None

    if with_backward:
        power.register_autograd(backward, setup_context=setup)

    @Recorder
    def rule(primals, tangents):
        x, n = (*primals, 2)[:2]
        return power(x, n), n * power(x, n - 1) * tangents[0]

    register_jvp_rule(power, rule)
    return power, rule


COMPOSITIONS = {
    "jvp": (lambda f: jvp(f, (X,), (T,)), lambda: (X**3, 3 * X**2 * T)),
    "jvp of jvp": (lambda f: along(along(f, S), T)(X), lambda: 6 * X * S * T),
    "jvp of jvp of jvp": (lambda f: along(along(along(f, S), T), R)(X), lambda: 6 * S * T * R),
    "vmap of jvp": (
        lambda f: vmap(lambda x, t: jvp(f, (x,), (t,)))(XS, TS),
        lambda: (XS**3, 3 * XS**2 * TS),
    ),
    "vmap of jvp, a shared primal": (
        lambda f: vmap(lambda t: along(f, t)(X))(TS),
        lambda: 3 * X**2 * TS,
    ),
    "jvp of vmap": (lambda f: jvp(vmap(f), (XS,), (TS,)), lambda: (XS**3, 3 * XS**2 * TS)),
    "vmap of jvp of jvp": (lambda f: vmap(along(along(f, S), T))(XS), lambda: 6 * XS * S * T),
    "jvp of vmap of jvp": (
        lambda f: jvp(vmap(along(f, S)), (XS,), (TS,))[1],
        lambda: 6 * XS * S * TS,
    ),
    "grad of jvp": (lambda f: grad(lambda x: along(f, T)(x).sum())(X), lambda: 6 * X * T),
    "jvp of grad": (lambda f: along(grad(lambda x: f(x).sum()), T)(X), lambda: 6 * X * T),
    "vmap of grad of jvp": (
        lambda f: vmap(grad(lambda x: along(f, T)(x).sum()))(XS),
        lambda: 6 * XS * T,
    ),
    "vmap of jvp of grad": (
        lambda f: vmap(along(grad(lambda x: f(x).sum()), T))(XS),
        lambda: 6 * XS * T,
    ),
    "jacfwd": (lambda f: jacfwd(f)(X), lambda: torch.diag(3 * X**2)),
    "jacfwd of jacfwd": (
        lambda f: jacfwd(jacfwd(lambda x: f(x).sum()))(X),
        lambda: torch.diag(6 * X),
    ),
    "hessian": (lambda f: hessian(lambda x: f(x).sum())(X), lambda: torch.diag(6 * X)),
    "jacrev of jacfwd": (
        lambda f: jacrev(jacfwd(lambda x: f(x).sum()))(X),
        lambda: torch.diag(6 * X),
    ),
    "linearize of jvp": (lambda f: linearize(along(f, S), X)[1](T), lambda: 6 * X * S * T),
}


@pytest.mark.parametrize("composition", COMPOSITIONS)
@looping
def test_compositions(composition, namespace):
    transform, expected = COMPOSITIONS[composition]
    power, rule = define_power(namespace)
    assert_equal_trees(transform(lambda x: power(x * 1, 3).view(-1)), expected())
    assert rule.calls


def test_reverse_mode_does_not_ask_for_the_rule(namespace):
    power, rule = define_power(namespace)
    assert_close(grad(lambda x: power(x, 3).sum())(X), 3 * X**2)
    assert_close(power(X), X**2)
    assert_close(vmap(lambda x: power(X, 2) * x)(XS), X**2 * XS)
    assert not rule.calls


@looping
def test_a_rule_is_enough(namespace):
    """Without a backward there is still forward mode, of every order."""
    power, _ = define_power(namespace, with_backward=False)
    assert_close(along(along(lambda x: power(x, 3), S), T)(X), 6 * X * S * T)
    assert_close(vmap(along(power, T))(XS), 2 * XS * T)
    assert_close(jacfwd(jacfwd(power))(X).diagonal().diagonal(), torch.full((4,), 2.0).double())


# ---- what a rule gets, and what it may return ----------------------------------------------------


def test_what_a_rule_is_given(namespace):
    @torch.library.custom_op(f"{namespace}::op", mutates_args=())
    def op(
        x: Tensor,
        n: int,
        ys: list[Tensor],
        z: Tensor | None,
        dtype: torch.dtype,
        flag: bool = False,
        *,
        scale: float = 1.0,
    ) -> Tensor:
        return x * n

    @register_jvp_rule(op)
    @Recorder
    def rule(primals, tangents, **kwargs):
        return primals[0] * primals[1], None

    y = randn(2)
    jvp(lambda x, w: op(x, 3, [y, w], None, torch.float32), (X, Y), (S, T))
    jvp(lambda x, w: op(y, 3, [x], w, torch.float32, True, scale=2.0), (X, Y), (S, T))
    (primals, tangents, kwargs), second = rule.function.calls
    assert isinstance(primals, tuple)
    assert isinstance(tangents, tuple)
    assert_close(primals[0], X)
    assert primals[1] == 3
    assert_equal_trees(primals[2], [y, Y])
    assert primals[3:] == (None, torch.float32)
    assert_close(tangents[0], S)
    assert tangents[1] is None
    assert tangents[2][0] is None
    assert_close(tangents[2][1], T)
    assert tangents[3:] == (None, None)
    assert kwargs == {}
    assert second[0][0] is y
    assert second[1][0] is None
    assert_close(second[1][3], T)
    assert second[0][5] is True
    assert len(second[1]) == 6
    assert second[2] == {"scale": 2.0}


def test_the_rule_is_not_called_without_tangents(namespace):
    power, rule = define_power(namespace)
    output, tangent = jvp(lambda x: x + power(Y), (X,), (T,))
    assert_close((output, tangent), (X + Y**2, T))
    # Here the argument belongs to the level.
    output, tangent = jvp(lambda x: x + power(torch.ones(4)), (X,), (T,))
    assert_close((output, tangent), (X + 1, T))
    assert not rule.calls


def test_several_outputs_and_zero_tangents(namespace):
    @torch.library.custom_op(f"{namespace}::parts", mutates_args=())
    def parts(x: Tensor) -> tuple[Tensor, Tensor, list[Tensor], int]:
        return x.sin(), x.argsort(), [x * 2, x * 3], x.dim()

    def f(x):
        sine, order, (twice, thrice), rank = parts(x)
        return sine, twice, thrice * rank, order.double()

    (t,) = (T,)
    zero = torch.zeros(4).double()
    results = (X.sin(), X * 2, X * 3, X.argsort().double())

    def with_tangents(*tangents):
        return lambda primals, _: (parts(*primals), tangents)

    for tangents, expected in [
        ((T * X.cos(), None, [2 * T, 3 * T], None), (t * X.cos(), 2 * t, 3 * t, zero)),
        ((None, None, (2 * T, None), None), (zero, 2 * t, zero, zero)),
        ([T, None, None, None], (t, zero, zero, zero)),
    ]:
        handle = register_jvp_rule(parts, with_tangents(*tangents))
        assert_equal_trees(jvp(f, (X,), (T,)), (results, expected))
        handle.remove()
    handle = register_jvp_rule(parts, lambda primals, _: (parts(*primals), None))
    assert_equal_trees(jvp(f, (X,), (T,)), (results, (zero,) * 4))


def test_outputs_that_are_arguments_are_copied(namespace):
    @torch.library.custom_op(f"{namespace}::scaled_gradient", mutates_args=())
    def scaled_gradient(x: Tensor) -> Tensor:
        return x.clone()

    @register_jvp_rule(scaled_gradient)
    def rule(primals, tangents):
        return primals[0], tangents[0]

    def f(x):
        x = x * 1
        y = scaled_gradient(x)
        y[0] = 5.0
        y[1:].mul_(2)
        return x, y

    output, tangent = jvp(f, (X,), (T,))
    factor = torch.tensor([0.0, 2, 2, 2])
    assert_equal_trees(output, (X, torch.cat([torch.full((1,), 5.0).double(), 2 * X[1:]])))
    assert_equal_trees(tangent, (T, T * factor))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x, t: x, r"two things, \(output, tangent\), but returned a Tensor"),
        (lambda x, t: (x, t, t), "a tuple of 3"),
        (lambda x, t: (x, t[:2]), r"tangent of shape \(2,\) for an output of shape \(4,\)"),
        (lambda x, t: (x, t.float()), "dtype torch.float32 for an output of dtype torch.float64"),
        (lambda x, t: (x, t.to("meta")), "device meta for an output of device cpu"),
        (lambda x, t: (x.long(), t), "a tangent for an output of torch.int64"),
        (lambda x, t: (x, 1.0), "a float for the tangent"),
    ],
)
def test_errors_about_what_a_rule_returned(returned, message, namespace):
    power, rule = define_power(namespace)
    rule.rule = lambda primals, tangents: returned(primals[0], tangents[0])
    with pytest.raises(RuntimeError, match=f"functx.jvp: the rule of {namespace}::power") as error:
        jvp(power, (X,), (T,))
    assert re.search(message, str(error.value))
    with pytest.raises(RuntimeError, match=message):
        vmap(along(power, T))(XS)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x, t: (x, t), "has 2 outputs, but its rule returned a Tensor"),
        (lambda x, t: ((x,), (t,)), "has 2 outputs, but its rule returned a tuple of 1"),
        (lambda x, t: ((x, x), (t,)), "2 outputs, but a tuple of 1 for their tangents"),
        (lambda x, t: ((x, x), t), "2 outputs, but a Tensor for their tangents"),
    ],
)
def test_wrong_numbers_of_outputs(returned, message, namespace):
    @torch.library.custom_op(f"{namespace}::parts", mutates_args=())
    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin(), x.cos()

    register_jvp_rule(parts, lambda primals, tangents: returned(primals[0], tangents[0]))
    with pytest.raises(RuntimeError, match=message):
        jvp(parts, (X,), (T,))


class Refusal(Exception):
    pass


@looping
def test_exceptions_of_a_rule_arrive(namespace):
    power, rule = define_power(namespace)
    good = rule.rule

    def refuse(primals, tangents):
        raise Refusal("not today")

    rule.rule = refuse
    for transform in (along(power, T), jacfwd(power), grad(lambda x: along(power, T)(x).sum())):
        with pytest.raises(Refusal, match="not today"):
            transform(X)
    rule.rule = good
    assert_close(along(power, T)(X), 2 * X * T)


# ---- operators of PyTorch ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "function"),
    [
        (torch.ops.aten.sin.default, torch.sin),  # has a typed rule
        ("aten::sin", torch.sin),
        (torch.ops.aten.sin, torch.sin),
        ("aten::sin.default", torch.sin),
        ("aten::special_entr", torch.special.entr),  # PyTorch's formula
        ("aten::special_expit", torch.special.expit),  # is composed of others
        ("aten::square", torch.square),  # as well, with a typed kernel
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_a_rule_comes_before_those_of_functx(op, function):
    x, t = torch.rand(4, dtype=torch.float64), T
    # Not the derivative, to see that it is used.
    rule = Recorder(lambda primals, tangents: (function(*primals) + 1, 10 * tangents[0]))
    handle = register_jvp_rule(op, rule)
    try:
        assert_equal_trees(jvp(function, (x,), (t,)), (function(x) + 1, 10 * t))
        assert len(rule.calls) == 1
        assert_close(vmap(along(function, t))(XS.abs()), (10 * t).expand(3, 4))
        assert_close(vmap(function)(XS.abs()), function(XS.abs()))
        assert_close(
            grad(lambda x: function(x).sum())(x), autograd_grad(lambda x: function(x).sum(), x)[0]
        )
    finally:
        handle.remove()
    count = len(rule.calls)
    expected = autograd_grad(lambda x: function(x).sum(), x)[0] * t
    assert_equal_trees(jvp(function, (x,), (t,)), (function(x), expected))
    assert len(rule.calls) == count


def test_a_composite_operator_under_a_tape_is_taken_apart():
    rule = Recorder(lambda primals, tangents: (primals[0] ** 2, 10 * tangents[0]))
    handle = register_jvp_rule("aten::square", rule)
    try:
        assert_close(along(grad(lambda x: torch.square(x).sum()), T)(X), 2 * T)
        assert not rule.calls
        assert_close(along(torch.square, T)(X), 10 * T)
        assert len(rule.calls) == 1
    finally:
        handle.remove()


def test_the_rule_of_a_backward_operator_is_reached():
    @register_jvp_rule("aten::tanh_backward")
    def rule(primals, tangents):
        return torch.ops.aten.tanh_backward(*primals), torch.full_like(primals[0], 7.0)

    try:
        assert_close(along(grad(lambda x: x.tanh().sum()), T)(X), torch.full((4,), 7.0).double())
    finally:
        rule.remove()


def test_rules_of_both_kinds_for_one_operator(namespace):
    product = define_product(namespace)
    batching = functx.register_batching_rule(product, lambda info, dims, x, y: (x * y + 1, 0))
    forward = register_jvp_rule(product, lambda p, t: (product(*p), t[0] * 5))
    assert_close(vmap(product)(XS, XS), XS * XS + 1)
    assert_close(along(lambda x: product(x, Y), T)(X), 5 * T)
    assert_close(
        vmap(lambda x: jvp(lambda x: product(x, Y.expand_as(x) + 0 * x), (x,), (T,)))(XS),
        (XS * Y + 1, (5 * T).expand(3, 4)),
    )
    batching.remove()
    assert_close(along(lambda x: product(x, Y), T)(X), 5 * T)
    forward.remove()
    assert_close(along(lambda x: product(x, Y), T)(X), Y * T)


def test_the_last_rule_applies_until_it_is_removed(namespace):
    product = define_product(namespace)

    def scaled(factor):
        return lambda primals, tangents: (product(*primals), factor * tangents[0])

    first, second = (register_jvp_rule(product, scaled(factor)) for factor in (2, 3))
    f = along(lambda x: product(x, Y), T)
    assert_close(f(X), 3 * T)
    second.remove()
    assert_close(f(X), 2 * T)
    second.remove()
    first.remove()
    assert_close(f(X), Y * T)


def test_in_place_operators_of_a_library_use_the_rule(namespace):
    torch.library.define(f"{namespace}::scale", "(Tensor x, float by) -> Tensor")
    torch.library.define(f"{namespace}::scale_", "(Tensor(a!) x, float by) -> Tensor(a!)")
    torch.library.impl(f"{namespace}::scale", "cpu")(lambda x, by: in_numpy(lambda x: x * by)(x))
    torch.library.impl(f"{namespace}::scale_", "cpu")(lambda x, by: x.copy_(x.detach() * by))
    ops = getattr(torch.ops, namespace)
    register_jvp_rule(f"{namespace}::scale", lambda p, t: (ops.scale(*p), t[0] * p[1]))

    def f(x):
        y = x * x
        view = y[1:]
        assert ops.scale_(view, 3.0) is view
        return y

    assert_close(along(f, T)(X), 2 * X * T * torch.tensor([1.0, 3, 3, 3]))


# ---- registration --------------------------------------------------------------------------------


def test_what_a_registration_returns(namespace):
    product = define_product(namespace)

    @register_jvp_rule(f"{namespace}::product")
    def rule(primals, tangents):
        return product(*primals), tangents[0]

    assert_equal_trees(rule((X, Y), (T, None)), (X * Y, T))
    assert rule.operator == f"{namespace}::product"
    assert f"{namespace}::product" in repr(rule)
    assert isinstance(rule, functx.JvpRule)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("functx_nobody::nothing", "there is no operator functx_nobody::nothing"),
        ("aten::add", r"aten::add\.Tensor"),
        ("aten::sin.nope", r"aten::sin\.nope"),
        (torch.ops.aten.add, r"aten::add\.Tensor"),
        (torch.sin, "is not an operator"),
        ("sin", "there is no operator sin"),
    ],
)
def test_errors_about_the_operator(op, message):
    with pytest.raises(ValueError, match=f"functx.register_jvp_rule: .*{message}"):
        register_jvp_rule(op, lambda primals, tangents: None)
    with pytest.raises(ValueError, match=message):
        register_jvp_rule(op)(lambda primals, tangents: None)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("aten::sin_", "writes to its argument self"),
        ("aten::sin.out", "takes the tensor out by keyword only"),
        ("aten::select.int", "returns a view of its argument self"),
    ],
)
def test_operators_that_cannot_have_a_rule(op, message):
    with pytest.raises(NotImplementedError, match=f"functx.register_jvp_rule: .*{message}"):
        register_jvp_rule(op, lambda primals, tangents: None)


def test_nothing_is_kept_alive(namespace):
    product = define_product(namespace)
    seen = []

    def rule(primals, tangents):
        seen.extend(weakref.ref(each) for each in (primals[0], tangents[0]))
        return product(*primals), tangents[0]

    forgotten = weakref.ref(rule)
    handle = register_jvp_rule(product, rule)
    del rule
    jvp(product, (randn(4), randn(4)), (randn(4), randn(4)))
    handle.remove()
    del handle
    gc.collect()
    assert forgotten() is None
    assert [each() for each in seen] == [None, None]


def test_in_another_thread(namespace):
    power, _ = define_power(namespace)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(along(lambda x: power(x, 3), T)(X)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_close(result, 3 * X**2 * T)


def test_pulled_back(namespace):
    power, _ = define_power(namespace)
    assert_close(vjp(along(power, T), X)[1](S)[0], 2 * T * S)


def test_the_code_in_the_guide_runs():
    guide = Path(__file__).parent.parent / "docs" / "adding_a_jvp_rule.md"
    blocks = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 7
    subprocess.run([sys.executable, "-c", "".join(blocks)], check=True)
