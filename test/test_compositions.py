"""Every pair and every triple of transforms, against compositions of finite differences."""

import itertools

import pytest
import torch
from _reference import autograd_hessian, loop_vmap, numeric_hessian, randn
from _transform_maps import APPLY, FUNCTIONS, REFERENCE, compose
from torch.testing import assert_close

import functx

POINT = torch.tensor([0.8, -0.5], dtype=torch.float64)
PAIRS = list(itertools.product(APPLY, repeat=2))
TRIPLES = list(itertools.product(APPLY, repeat=3))


def label(names):
    return "-".join(names)


def check(names, function):
    f = FUNCTIONS[function]
    actual = compose(APPLY, names, f)(POINT)
    assert_close(actual, compose(REFERENCE, names, f)(POINT))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", APPLY)
def test_single(name, function):
    check([name], function)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("names", PAIRS, ids=label)
def test_pair(names, function):
    check(names, function)


@pytest.mark.parametrize("function", ["products", "writes_in_place", "attention"])
@pytest.mark.parametrize("names", TRIPLES, ids=label)
def test_triple(names, function):
    check(names, function)


LONGER_CHAINS = [
    ("jvp", "vmap", "grad", "vmap"),
    ("vmap", "jacrev", "vmap", "grad"),
    ("vmap", "jacfwd", "vmap", "jacrev"),
    ("vjp", "vmap", "jvp", "vmap"),
    ("vmap", "vmap", "vmap", "jacfwd", "jacrev"),
]


@pytest.mark.parametrize("function", ["products", "writes_in_place", "attention"])
@pytest.mark.parametrize("names", LONGER_CHAINS, ids=label)
def test_longer_chain(names, function):
    check(names, function)


@pytest.mark.parametrize("dims", [(0, 0, 0), (2, 1, 0), (-1, 0, 1), (1, -1, 0)])
def test_three_nested_vmaps(dims):
    x = randn(2, 3, 4, 5)

    def f(row):
        return torch.outer(row, row).tanh() @ row

    outer, middle, inner = dims
    actual = functx.vmap(functx.vmap(functx.vmap(f, inner), middle), outer)(x)
    expected = loop_vmap(loop_vmap(loop_vmap(f, inner), middle), outer)(x)
    assert_close(actual, expected)


def test_three_nested_vmaps_with_one_argument_each():
    a, b, c = randn(2, 4), randn(3, 4), randn(5, 4)

    def f(x, y, z):
        return (x * y).sin().dot(z)

    def nest(vmap):
        inner = vmap(f, (None, None, 0))
        return vmap(vmap(inner, (None, 0, None)), (0, None, None))

    assert_close(nest(functx.vmap)(a, b, c), nest(loop_vmap)(a, b, c))


SECOND_DERIVATIVES = {
    "hessian": functx.hessian,
    "jacrev(jacrev)": lambda f: functx.jacrev(functx.jacrev(f)),
    "jacfwd(jacfwd)": lambda f: functx.jacfwd(functx.jacfwd(f)),
    "jacfwd(jacrev)": lambda f: functx.jacfwd(functx.jacrev(f)),
    "jacrev(jacfwd)": lambda f: functx.jacrev(functx.jacfwd(f)),
    "jacrev(grad)": lambda f: functx.jacrev(functx.grad(f)),
    "jacfwd(grad)": lambda f: functx.jacfwd(functx.grad(f)),
}


@pytest.mark.parametrize("name", SECOND_DERIVATIVES)
def test_second_derivatives_of_a_scalar_function(name):
    x = randn(2, 3)

    def f(x):
        return (x.sin() @ x.cos().T).logsumexp((0, 1))

    actual = SECOND_DERIVATIVES[name](f)(x)
    assert_close(actual, autograd_hessian(f, x))
    assert_close(actual, numeric_hessian(f, x))


@pytest.mark.parametrize("name", [n for n in SECOND_DERIVATIVES if "grad" not in n])
def test_second_derivatives_of_a_vector_function(name):
    x = randn(3)

    def f(x):
        return torch.outer(x.sin(), x.exp()).cumsum(0)

    assert_close(SECOND_DERIVATIVES[name](f)(x), numeric_hessian(f, x))


@pytest.mark.parametrize("name", SECOND_DERIVATIVES)
def test_batched_second_derivatives(name):
    xs = randn(4, 3)

    def f(x):
        return (x.prod() * x).sin().sum()

    actual = functx.vmap(SECOND_DERIVATIVES[name](f))(xs)
    assert_close(actual, torch.stack([autograd_hessian(f, x) for x in xs]))
