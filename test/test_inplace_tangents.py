"""Tangents and memory: writes through views and bases, of values with and without tangents, into
memory that others have had their tangents from.

The expected derivatives of a case are plain autograd's, of the function that does not write. Where
it refuses what the function does (to overwrite what it has saved, or to write into an `out=`), so
does reverse mode here, and forward mode alone is compared.
"""

import functools
import re

import pytest
import torch
from _inplace_sharing import case as sharing
from _inplace_writes import case as writes
from _reference import randn
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from functx import grad, hessian, jacfwd, jacrev, jvp, linearize, vmap

CASES = {**sharing, **writes}
FORWARD_ONLY = [name for name, case in CASES.items() if case.forward_only]

# ---- the compositions ------------------------------------------------------------------------

X, S, T = randn(3), randn(3), randn(3)
XS, SS, TS = randn(4, 3), randn(4, 3), randn(4, 3)


def along(f, t):
    return lambda x: jvp(f, (x,), (t,))[1]


def weighted(f):
    return lambda x: (f(x).flatten() * torch.arange(1.0, 1 + f(x).numel(), dtype=x.dtype)).sum()


@functools.cache
def derivatives(f):
    """Values, Jacobians and second derivatives of the flattened `f` at X and at each of XS."""

    def flat(x):
        return f(x).flatten()

    points = [X, *XS]
    values = [flat(x).detach() for x in points]
    first = [jacobian(flat, x) for x in points]
    second = [jacobian(lambda x: jacobian(flat, x, create_graph=True), x) for x in points]
    return [(v[0], torch.stack(v[1:])) for v in (values, first, second)]


COMPOSITIONS = {
    "jvp": (lambda f: jvp(f, (X,), (T,)), lambda v, j, h: (v[0], j[0] @ T)),
    "vmap of jvp": (
        lambda f: vmap(lambda x, t: jvp(f, (x,), (t,)))(XS, TS),
        lambda v, j, h: (v[1], torch.einsum("bij,bj->bi", j[1], TS)),
    ),
    "vmap of jvp, a shared primal": (
        lambda f: vmap(lambda t: along(f, t)(X))(TS),
        lambda v, j, h: TS @ j[0].T,
    ),
    "vmap of jvp, a shared tangent": (lambda f: vmap(along(f, T))(XS), lambda v, j, h: j[1] @ T),
    "jvp of vmap": (
        lambda f: jvp(vmap(f), (XS,), (TS,)),
        lambda v, j, h: (v[1], torch.einsum("bij,bj->bi", j[1], TS)),
    ),
    "jvp of jvp": (lambda f: along(along(f, S), T)(X), lambda v, j, h: h[0] @ T @ S),
    "jvp of the output of jvp": (
        lambda f: along(lambda x: jvp(f, (x,), (S,))[0], T)(X),
        lambda v, j, h: j[0] @ T,
    ),
    "vmap of jvp of jvp": (
        lambda f: vmap(lambda x, s, t: along(along(f, s), t)(x))(XS, SS, TS),
        lambda v, j, h: torch.einsum("bijk,bj,bk->bi", h[1], SS, TS),
    ),
    "jvp of vmap of jvp": (
        lambda f: along(lambda xs: vmap(lambda x, s: along(f, s)(x))(xs, SS), TS)(XS),
        lambda v, j, h: torch.einsum("bijk,bj,bk->bi", h[1], SS, TS),
    ),
    "jvp of grad": (
        lambda f: along(grad(weighted(f)), T)(X),
        lambda v, j, h: torch.einsum("i,ijk,k->j", weights(h), h[0], T),
    ),
    "grad of jvp": (
        lambda f: grad(weighted(along(f, T)))(X),
        lambda v, j, h: torch.einsum("i,ijk,k->j", weights(h), h[0], T),
    ),
    "vmap of grad of jvp": (
        lambda f: vmap(grad(weighted(along(f, T))))(XS),
        lambda v, j, h: torch.einsum("i,bijk,k->bj", weights(h), h[1], T),
    ),
    "jacfwd": (lambda f: jacfwd(f)(X), lambda v, j, h: j[0]),
    "vmap of jacfwd": (lambda f: vmap(jacfwd(f))(XS), lambda v, j, h: j[1]),
    "jacfwd of jacfwd": (lambda f: jacfwd(jacfwd(f))(X), lambda v, j, h: h[0]),
    "jacrev of jacfwd": (lambda f: jacrev(jacfwd(f))(X), lambda v, j, h: h[0]),
    "hessian": (
        lambda f: hessian(weighted(f))(X),
        lambda v, j, h: torch.einsum("i,ijk->jk", weights(h), h[0]),
    ),
    "linearize": (lambda f: linearize(f, X)[1](T), lambda v, j, h: j[0] @ T),
}


REVERSE = {name for name in COMPOSITIONS if re.search("grad|jacrev|hessian|linearize", name)}


def weights(second):
    return torch.arange(1.0, 1 + second[0].shape[0], dtype=torch.float64)


PAIRS = [
    (name, composition)
    for name in CASES
    for composition in COMPOSITIONS
    if not (name in FORWARD_ONLY and composition in REVERSE)
]


@pytest.mark.parametrize(("name", "composition"), PAIRS)
@pytest.mark.filterwarnings("ignore:.*loop over the examples.*")
def test_derivatives(name, composition):
    f, reference, _ = CASES[name]
    transform, expected = COMPOSITIONS[composition]
    assert_close(transform(lambda x: f(x).flatten()), expected(*derivatives(reference)))


@pytest.mark.parametrize("name", CASES)
def test_the_references_are_right(name):
    f, reference, _ = CASES[name]
    assert_close(f(X), reference(X))


@pytest.mark.parametrize("name", FORWARD_ONLY)
def test_plain_autograd_refuses_what_is_compared_in_forward_mode_only(name):
    f = CASES[name].function
    with pytest.raises(RuntimeError, match=r"in-?place|out=.*support"):
        jacobian(lambda x: jacobian(f, x, create_graph=True), X)


# ---- what cannot be ------------------------------------------------------------------------------


def test_a_tangent_finds_no_place_in_a_captured_tensor():
    captured = torch.zeros(3).double()

    def write(x):
        captured[0] = x[0]
        return captured

    with pytest.raises(RuntimeError, match="into a tensor that does not belong to this transform"):
        jvp(write, (X,), (T,))
    with pytest.raises(RuntimeError, match="into a tensor that does not belong to this transform"):
        jvp(lambda x: torch.mul(x, x, out=captured), (X,), (T,))
    assert_close(captured, torch.zeros(3).double())


@pytest.mark.parametrize("size", [(1,), (3,), (2, 3)])
def test_resizing_is_refused(size):
    def f(x):
        y = x * x
        y[1:].resize_(size)
        return y

    with pytest.raises(RuntimeError, match=r"functx\.jvp: resize_ cannot give a tensor of shape"):
        jvp(f, (X,), (T,))


def test_resizing_to_the_same_shape_changes_nothing():
    def f(x):
        y = x * x
        view = y[1:]
        view.resize_(2)
        view.mul_(x[0])
        return y

    scale = torch.stack([torch.ones_like(X[0]), X[0], X[0]])
    moved = torch.stack([torch.zeros_like(T[0]), T[0], T[0]])
    assert_close(jvp(f, (X,), (T,)), (X * X * scale, 2 * X * T * scale + X * X * moved))


def test_results_of_another_shape_do_not_fit():
    def f(x):
        y = x.new_zeros(2)
        torch.mul(x, x, out=y)
        return y

    with pytest.raises(RuntimeError, match="cannot be resized"):
        jvp(f, (X,), (T,))


def test_the_tangent_of_the_caller_is_not_written_to():
    x, t = X.clone(), T.clone()

    def f(x):
        y = x + 1
        y.mul_(2)
        x.mul_(3)
        return x + y

    output, tangent = jvp(f, (x,), (t,))
    assert_close((output, tangent), (3 * X + 2 * (X + 1), 5 * T))
    assert_close((x, t), (3 * X, T))


def test_primal_and_tangent_may_be_one_tensor():
    x = X.clone()

    def f(x):
        y = x + 1
        x[0] = 5.0
        x[1:].mul_(2)
        return torch.cat([y, x])

    assert_close(jvp(f, (x,), (x,))[1], torch.cat([X, 0 * X[:1], 2 * X[1:]]))
