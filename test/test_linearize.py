"""`linearize` under other transforms, over them, and of pytrees.

The function is f(x) = sin(A x), whose derivatives of every order are written down here.
"""

import gc
import weakref

import pytest
import torch
from _reference import assert_equal_trees, autograd_grad, randn
from torch.testing import assert_close

from functx import (
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    make_fx,
    vjp,
    vmap,
)

torch.manual_seed(0)
A = randn(4, 3)
X, S, T, W = randn(3), randn(3), randn(3), randn(3)
XS, TS = randn(5, 3), randn(5, 3)
EYE = torch.eye(3, dtype=torch.float64)


def f(x):
    return (A @ x).sin()


def first(x, t):
    return (A @ x).cos() * (A @ t)


def second(x, t, s):
    return -(A @ x).sin() * (A @ t) * (A @ s)


def third(x, t, s, r):
    return -(A @ x).cos() * (A @ t) * (A @ s) * (A @ r)


def columns(derivative):
    return torch.stack([derivative(e) for e in EYE], -1)


def rows(function, *batches):
    return torch.stack([function(*each) for each in zip(*batches, strict=True)])


def along(t):
    """The derivative along t, as a function of the point."""
    return lambda x: linearize(f, x)[1](t)


def total(function):
    return lambda x: function(x).sum()


CASES = {
    "alone": (along(T), lambda: first(X, T)),
    "output": (lambda x: linearize(f, x)[0], lambda: f(X)),
    # of the linear map
    "vmap of the map": (
        lambda x: vmap(linearize(f, x)[1])(TS),
        lambda: rows(lambda t: first(X, t), TS),
    ),
    "vmap of the map, other dims": (
        lambda x: vmap(linearize(f, x)[1], 1, 1)(TS.T),
        lambda: rows(lambda t: first(X, t), TS).T,
    ),
    "vmap of vmap of the map": (
        lambda x: vmap(vmap(linearize(f, x)[1]))(TS[None]),
        lambda: rows(lambda t: first(X, t), TS)[None],
    ),
    "jvp of the map": (lambda x: jvp(linearize(f, x)[1], (S,), (T,))[1], lambda: first(X, T)),
    "vjp of the map": (
        lambda x: vjp(linearize(f, x)[1], T)[1](torch.ones(4).double())[0],
        lambda: columns(lambda e: first(X, e)).sum(0),
    ),
    "grad of the map": (
        lambda x: grad(total(linearize(f, x)[1]))(T),
        lambda: columns(lambda e: first(X, e)).sum(0),
    ),
    "jacfwd of the map": (
        lambda x: jacfwd(linearize(f, x)[1])(T),
        lambda: columns(lambda e: first(X, e)),
    ),
    "jacrev of the map": (
        lambda x: jacrev(linearize(f, x)[1])(T),
        lambda: columns(lambda e: first(X, e)),
    ),
    "linearize of the map": (
        lambda x: linearize(linearize(f, x)[1], S)[1](T),
        lambda: first(X, T),
    ),
    # inside
    "inside jvp": (lambda x: jvp(along(T), (x,), (S,)), lambda: (first(X, T), second(X, T, S))),
    "output inside jvp": (
        lambda x: jvp(lambda x: linearize(f, x)[0], (x,), (S,))[1],
        lambda: first(X, S),
    ),
    "inside jvp, tangent too": (
        lambda x: jvp(lambda x, t: linearize(f, x)[1](t), (x, T), (S, W))[1],
        lambda: second(X, T, S) + first(X, W),
    ),
    "inside grad": (
        lambda x: grad(total(along(T)))(x),
        lambda: columns(lambda e: second(X, T, e)).sum(0),
    ),
    "inside grad of the tangent": (
        lambda x: grad(lambda t: linearize(f, x)[1](t).sum())(T),
        lambda: columns(lambda e: first(X, e)).sum(0),
    ),
    "inside jacrev": (lambda x: jacrev(along(T))(x), lambda: columns(lambda e: second(X, T, e))),
    "inside jacfwd": (lambda x: jacfwd(along(T))(x), lambda: columns(lambda e: second(X, T, e))),
    "inside hessian": (
        lambda x: hessian(along(T))(x),
        lambda: columns(lambda d: columns(lambda e: third(X, T, d, e))).movedim(-1, 1),
    ),
    "inside linearize": (lambda x: linearize(along(T), x)[1](S), lambda: second(X, T, S)),
    "inside two linearizes": (
        lambda x: linearize(lambda x: linearize(along(T), x)[1](S), x)[1](W),
        lambda: third(X, T, S, W),
    ),
    "vmap of linearize of linearize": (
        lambda x: vmap(linearize(along(T), x)[1])(TS),
        lambda: rows(lambda s: second(X, T, s), TS),
    ),
    "inside jvp of jvp": (
        lambda x: jvp(lambda x: jvp(along(T), (x,), (S,))[1], (x,), (W,))[1],
        lambda: third(X, T, S, W),
    ),
    "inside grad of jvp": (
        lambda x: grad(lambda x: jvp(along(T), (x,), (S,))[1].sum())(x),
        lambda: columns(lambda e: third(X, T, S, e)).sum(0),
    ),
    "inside jvp of grad": (
        lambda x: jvp(grad(total(along(T))), (x,), (S,))[1],
        lambda: columns(lambda e: third(X, T, S, e)).sum(0),
    ),
    # over others
    "of jvp": (
        lambda x: linearize(lambda x: jvp(f, (x,), (T,)), x)[1](S),
        lambda: (first(X, S), second(X, T, S)),
    ),
    "of vjp": (
        lambda x: linearize(lambda x: vjp(f, x)[1](torch.ones(4).double())[0], x)[1](S),
        lambda: columns(lambda e: second(X, e, S)).sum(0),
    ),
    "of grad": (
        lambda x: linearize(grad(total(f)), x)[1](S),
        lambda: columns(lambda e: second(X, e, S)).sum(0),
    ),
    "of jacfwd": (
        lambda x: linearize(jacfwd(f), x)[1](S),
        lambda: columns(lambda e: second(X, e, S)),
    ),
    "of jacrev": (
        lambda x: linearize(jacrev(f), x)[1](S),
        lambda: columns(lambda e: second(X, e, S)),
    ),
    "hessian by vmap of linearize of grad": (
        lambda x: vmap(linearize(grad(total(f)), x)[1])(EYE),
        lambda: columns(lambda d: columns(lambda e: second(X, d, e)).sum(0)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_against_closed_forms(case):
    function, expected = CASES[case]
    assert_equal_trees(function(X), expected())


BATCHED_CASES = {
    "all batched": (vmap(lambda x, t: linearize(f, x)[1](t)), (XS, TS), first),
    "a shared tangent": (vmap(along(T)), (XS,), lambda x: first(x, T)),
    "a shared point": (vmap(lambda t: linearize(f, X)[1](t)), (TS,), lambda t: first(X, t)),
    "the output": (vmap(lambda x: linearize(f, x)[0]), (XS,), f),
    "and a vmap of the map": (
        vmap(lambda x: vmap(linearize(f, x)[1])(TS)),
        (XS,),
        lambda x: rows(lambda t: first(x, t), TS),
    ),
    "and grad": (
        vmap(grad(total(along(T)))),
        (XS,),
        lambda x: columns(lambda e: second(x, T, e)).sum(0),
    ),
    "under grad": (
        grad(lambda xs: vmap(along(T))(xs).sum()),
        (XS,),
        lambda x: columns(lambda e: second(x, T, e)).sum(0),
    ),
    "and jvp": (
        vmap(lambda x, s: jvp(along(T), (x,), (s,))[1]),
        (XS, TS),
        lambda x, s: second(x, T, s),
    ),
    "under jvp": (
        lambda xs, ss: jvp(vmap(along(T)), (xs,), (ss,))[1],
        (XS, TS),
        lambda x, s: second(x, T, s),
    ),
    "inside linearize": (
        lambda xs, ts: linearize(vmap(f), xs)[1](ts),
        (XS, TS),
        first,
    ),
}


@pytest.mark.parametrize("case", BATCHED_CASES)
def test_with_vmap(case):
    function, batches, expected = BATCHED_CASES[case]
    assert_close(function(*batches), rows(expected, *batches))


def tree(d, e):
    return {"a": d["x"] * e[0], "b": [e[1].sum(), d["x"].sin()]}


def test_pytrees():
    d, e, d_tangent, e_tangent = {"x": X}, (W, XS), {"x": T}, (S, TS)
    expected = {"a": T * W + X * S, "b": [TS.sum(), X.cos() * T]}
    output, jvp_fn = linearize(tree, d, e)
    assert_equal_trees(output, tree(d, e))
    assert_equal_trees(jvp_fn(d_tangent, e_tangent), expected)
    batch = [{"x": torch.stack([T, 2 * T])}, (torch.stack([S, 2 * S]), torch.stack([TS, 2 * TS]))]
    doubled = {k: torch.stack([v, 2 * v]) for k, v in expected.items() if k == "a"}
    doubled["b"] = [torch.stack([v, 2 * v]) for v in expected["b"]]
    assert_equal_trees(vmap(jvp_fn)(*batch), doubled)
    nested = vmap(lambda x: linearize(tree, {"x": x}, e)[1](d_tangent, e_tangent))(XS)
    assert_close(nested["a"], T * W + XS * S)
    assert_close(nested["b"][1], XS.cos() * T)


def test_outputs_that_are_inputs_or_constants():
    output, jvp_fn = linearize(lambda x, y: (x, torch.ones(2), x, y.sum()), X, S)
    assert_equal_trees(output, (X, torch.ones(2), X, S.sum()))
    assert_equal_trees(jvp_fn(T, W), (T, torch.zeros(2), T, W.sum()))
    batched = vmap(jvp_fn)(TS, TS)
    assert_equal_trees(batched, (TS, torch.zeros(5, 2), TS, TS.sum(1)))


def test_complex_numbers():
    z, t = torch.complex(X, S), torch.complex(T, W)
    assert_close(linearize(lambda z: z * z, z)[1](t), 2 * z * t)
    assert_close(linearize(torch.abs, z)[1](t), (z.conj() * t).real / z.abs())
    assert_close(linearize(lambda z: z.conj() * z * 1j, z)[1](t), 2j * (z.conj() * t).real)
    assert_close(linearize(lambda x: torch.complex(x, x * x), X)[1](T), torch.complex(T, 2 * X * T))


def test_writing_in_place():
    def writes(x):
        y = x * x
        y[0] = x[1] * x[2]
        y[1:].mul_(x[0])
        return y

    expected = torch.stack([T[1] * X[2] + X[1] * T[2], *(2 * X * T * X[0] + X * X * T[0])[1:]])
    assert_close(linearize(writes, X)[1](T), expected)
    assert_close(vmap(lambda x: linearize(writes, x)[1](T))(X[None]), expected[None])


def test_the_numbers_that_the_function_drew_stay():
    def noisy(x):
        return x * torch.rand_like(x)

    output, jvp_fn = linearize(noisy, X)
    assert_close(jvp_fn(T), output / X * T)
    assert_close(jvp_fn(T), jvp_fn(T))
    outputs, tangents = vmap(
        lambda x: (lambda y, g: (y, g(T)))(*linearize(noisy, x)), randomness="different"
    )(X.expand(4, 3))
    assert_close(tangents, outputs / X * T)
    assert len(outputs.unique()) == 12


def test_under_plain_autograd_and_no_grad():
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(linearize(f, x)[1](T).sum(), x)
    assert_close(gradient, autograd_grad(lambda x: first(x, T).sum(), X)[0])
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert_close(linearize(f, X)[1](T), first(X, T))


def test_a_map_made_outside_is_used_inside():
    output, jvp_fn = linearize(f, X)
    assert_close(output, f(X))
    assert_close(grad(lambda t: jvp_fn(t).sum())(T), columns(lambda e: first(X, e)).sum(0))
    assert_close(jvp(lambda t: jvp_fn(t * t), (S,), (T,))[1], first(X, 2 * S * T))
    assert_close(vmap(vmap(jvp_fn))(TS[None])[0], rows(lambda t: first(X, t), TS))
    assert_close(jvp_fn(T), first(X, T))


def test_tracing():
    traced = make_fx(lambda x, t: linearize(f, x)[1](t))(S, W)
    assert_close(traced(X, T), first(X, T))


@pytest.mark.parametrize("transform", ["vmap", "jvp", "grad"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_inside_torch_func(transform):
    if transform == "vmap":
        assert_close(torch.func.vmap(along(T))(XS), rows(lambda x: first(x, T), XS))
        assert_close(torch.func.vmap(linearize(f, X)[1])(TS), rows(lambda t: first(X, t), TS))
    elif transform == "jvp":
        assert_close(torch.func.jvp(along(T), (X,), (S,))[1], second(X, T, S))
    else:
        expected = columns(lambda e: second(X, T, e)).sum(0)
        assert_close(torch.func.grad(total(along(T)))(X), expected)


def test_what_the_map_holds_is_freed_with_it():
    kept = []

    def g(x):
        y = x.exp()
        kept.append(weakref.ref(y))
        return y.sin()

    _, jvp_fn = linearize(g, X)
    jvp_fn(T)
    del jvp_fn
    gc.collect()
    assert kept[0]() is None


@pytest.mark.parametrize(
    ("tangents", "message"),
    [
        ((T, T), "to have the same argspec"),
        ((T[:2],), r"shape torch.Size\(\[2\]\)"),
        ((T.float(),), "dtype torch.float32"),
        ((1.0,), "is of type <class 'float'>"),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
def test_errors_about_tangents(tangents, message, batched):
    _, jvp_fn = linearize(f, X)
    function = vmap(lambda _: jvp_fn(*tangents)) if batched else lambda _: jvp_fn(*tangents)
    with pytest.raises(RuntimeError, match=message):
        function(XS)
