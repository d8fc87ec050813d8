"""Derivatives at points where PyTorch's formulas divide by zero, but the function is smooth.

The references are polynomials in exact arithmetic, power series, and values of the function.
"""

import functools
import itertools
import math
from fractions import Fraction

import pytest
import torch
from _curves import by_route, derivatives_at_zero, of_examples, routes
from _reference import randn
from torch.testing import assert_close

import functx

DOUBLE = torch.float64
INF = math.inf


def tensor(*values):
    return torch.tensor(values, dtype=DOUBLE)


def check(f, expected, tolerance=1e-7):
    """All derivatives of `f` at zero, by all routes, alone and for examples."""
    zero = torch.zeros((), dtype=DOUBLE)
    for order, value in enumerate(expected, 1):
        close = pytest.approx(value, rel=tolerance, abs=tolerance * max(1, abs(value)))
        for route in routes(order):
            derivative = by_route(f, route)
            assert derivative(zero).item() == close, route
            assert of_examples(derivative)(zero).item() == close, route


# ---- polynomials in exact arithmetic -----------------------------------------------------------


def multiply(a, b):
    product = [Fraction(0)] * (len(a) + len(b) - 1)
    for (i, x), (j, y) in itertools.product(enumerate(a), enumerate(b)):
        product[i + j] += x * y
    return product


def add(a, b):
    return [x + y for x, y in itertools.zip_longest(a, b, fillvalue=Fraction(0))]


def lines(x, direction):
    """The entries of `x + t * direction`, as polynomials of t."""
    pairs = zip(x.flatten().tolist(), direction.flatten().tolist(), strict=True)
    return [[Fraction(a), Fraction(b)] for a, b in pairs]


def product_of(polynomials):
    return functools.reduce(multiply, polynomials, [Fraction(1)])


def sign_of(permutation):
    pairs = itertools.combinations(permutation, 2)
    return -1 if sum(a > b for a, b in pairs) % 2 else 1


def determinant(entries, n):
    total = [Fraction(0)]
    for permutation in itertools.permutations(range(n)):
        term = product_of(entries[n * row + column] for row, column in enumerate(permutation))
        total = add(total, [sign_of(permutation) * c for c in term])
    return total


def derivatives(polynomial, order):
    padded = [*polynomial, *[Fraction(0)] * order]
    return [float(padded[k] * math.factorial(k)) for k in range(1, order + 1)]


# ---- determinants ------------------------------------------------------------------------------

RANK_ONE = tensor(1, 2, 2, 4).view(2, 2)
MATRICES = {
    "regular": tensor(1, 2, 3, 5).view(2, 2),
    "of rank n - 1": RANK_ONE,
    "of rank n - 2": tensor(1, -2, 3)[:, None] * tensor(2, 1, -1),
    "of rank 2 of 4": tensor(1, 2, 0, 1, 0, 1, 1, -1).view(4, 2) @ tensor(*range(8)).view(2, 4),
    "of zeros": torch.zeros(3, 3, dtype=DOUBLE),
    "of one zero": torch.zeros(1, 1, dtype=DOUBLE),
    "of one number": tensor(3.0).view(1, 1),
    "almost singular": RANK_ONE + 1e-9 * torch.eye(2, dtype=DOUBLE),
    "badly conditioned": torch.diag(tensor(1, 1e-3, 1e-7)) + 1e-9,
    "small and regular": 1e-7 * torch.eye(3, dtype=DOUBLE),
    "with a row of zeros": tensor(1, 2, 3, 0, 0, 0, 4, 5, 7).view(3, 3),
}


@pytest.mark.parametrize("name", MATRICES)
def test_det(name):
    x = MATRICES[name]
    direction = randn(*x.shape)
    expected = derivatives(determinant(lines(x, direction), len(x)), 4)
    check(lambda t: torch.linalg.det(x + t * direction), expected)


def test_det_of_matrices_of_several_ranks():
    names = ["of rank n - 2", "of zeros", "small and regular", "with a row of zeros"]
    stack = torch.stack([MATRICES[name] for name in names])
    directions = randn(4, 3, 3)
    of_each = [
        derivatives(determinant(lines(x, d), 3), 3) for x, d in zip(stack, directions, strict=True)
    ]
    expected = [sum(column) for column in zip(*of_each, strict=True)]
    check(lambda t: torch.det(stack + t * directions).sum(), expected)
    gradients = functx.vmap(functx.grad(torch.det))(stack)
    along = (gradients * directions).sum((1, 2))
    assert_close(along, tensor(*(first for first, *_ in of_each)), rtol=1e-8, atol=1e-12)


def test_gradient_of_det_is_made_of_cofactors():
    expected = tensor(4, -2, -2, 1).view(2, 2)
    for dtype in (torch.float32, DOUBLE, torch.complex128):
        x = RANK_ONE.to(dtype)
        gradient = functx.vjp(torch.det, x)[1](torch.ones((), dtype=dtype))[0]
        assert_close(gradient, expected.to(dtype))
    assert_close(functx.jacfwd(torch.det)(RANK_ONE), expected)
    assert_close(functx.jacrev(torch.det)(RANK_ONE), expected)
    one = functx.hessian(torch.det)(RANK_ONE)
    other = functx.jacrev(functx.grad(torch.det))(RANK_ONE)
    assert_close(one, other)
    assert_close(one[0, 0], tensor(0, 0, 0, 1).view(2, 2))
    assert_close(one[0, 1], tensor(0, 0, -1, 0).view(2, 2))


def test_det_of_complex_matrices():
    x = torch.outer(randn(3) + 1j * randn(3), randn(3) + 1j * randn(3))
    direction = randn(3, 3) + 1j * randn(3, 3)
    values = lambda t: torch.det(x + t * direction)
    f = lambda t: values(t).real - 2 * values(t).imag
    check(f, derivatives_at_zero(f, 3))


def test_det_of_nothing():
    empty = torch.empty(0, 0, dtype=DOUBLE)
    assert functx.grad(torch.det)(empty).shape == (0, 0)
    assert functx.jvp(torch.det, (empty,), (empty,))[0] == 1


def test_gradient_of_det_for_ordinary_autograd():
    x = RANK_ONE.clone().requires_grad_()
    gradient = functx.grad(torch.det)(x)
    assert_close(gradient.detach(), tensor(4, -2, -2, 1).view(2, 2))
    (second,) = torch.autograd.grad(gradient[0, 0], x)
    assert_close(second, tensor(0, 0, 0, 1).view(2, 2))


# ---- products ----------------------------------------------------------------------------------

ENTRIES = {
    "no zero": tensor(1, -2, 3, 0.5, 2),
    "a zero": tensor(1, 0, 3, 0.5, 2),
    "two zeros": tensor(1, 0, 3, 0, 2),
    "three zeros": tensor(0, 0, 3, 0, 2),
    "zeros": torch.zeros(5, dtype=DOUBLE),
    "large entries": tensor(1e200, 0, 1e150, 1e-190, 1e-150),
    "small entries": tensor(1e-200, 2, 1e-150, 1e180, 1e160),
}


def moved(name):
    """The entries, and a direction of the same sizes."""
    x = ENTRIES[name]
    return x, randn(5) * torch.where(x == 0, 1, x)


@pytest.mark.parametrize("name", ENTRIES)
def test_prod(name):
    x, direction = moved(name)
    expected = derivatives(product_of(lines(x, direction)), 4)
    check(lambda t: torch.prod(x + t * direction), expected)


@pytest.mark.parametrize("keepdim", [True, False])
def test_prod_over_a_dim(keepdim):
    x = torch.stack([ENTRIES["no zero"], ENTRIES["a zero"], ENTRIES["two zeros"]])
    direction = randn(3, 5)
    rows = [product_of(lines(*row)) for row in zip(x, direction, strict=True)]
    expected = derivatives(functools.reduce(add, rows), 3)
    check(lambda t: torch.prod(x + t * direction, 1, keepdim=keepdim).sum(), expected)
    check(lambda t: torch.prod((x + t * direction).T, 0, keepdim=keepdim).sum(), expected)


@pytest.mark.parametrize("name", ["no zero", "a zero", "two zeros", "zeros"])
def test_cumprod(name):
    x, direction = moved(name)
    entries = lines(x, direction)
    sums = functools.reduce(add, [product_of(entries[: k + 1]) for k in range(5)])
    check(lambda t: torch.cumprod(x + t * direction, 0).sum(), derivatives(sums, 4))


def test_gradient_of_prod_where_the_product_is_no_number():
    """Too large for one, or an infinity times zero; the products of the others are not."""
    x = tensor(1e200, 1e200, 1e-200, 0)
    expected = tensor(0, 0, 0, 1e200)
    for transform in (functx.grad, functx.jacrev, functx.jacfwd):
        assert_close(transform(torch.prod)(x), expected)
    assert_close(functx.vmap(functx.grad(torch.prod))(x[None]), expected[None])
    assert_close(
        functx.grad(torch.prod)(tensor(1e-100, 1e-100, 1e200, 1e200)), tensor(1e300, 1e300, 1, 1)
    )
    ends = tensor(1e-100, 1e-100, 1e200, 1e200)
    assert_close(functx.vmap(functx.grad(torch.prod))(ends[None])[0], tensor(1e300, 1e300, 1, 1))
    assert_close(
        functx.grad(torch.prod)(torch.tensor([1e30, 1e30, 1e-30, 0.0])),
        torch.tensor([0, 0, 0, 1e30]),
    )


# ---- sums of exponentials ----------------------------------------------------------------------


def test_logcumsumexp_by_zero_cotangents():
    x, direction = tensor(1, -2, 0.5, 3), tensor(0.3, -1, 2, 0.7)
    f = lambda t: (torch.logcumsumexp(x + t * direction, 0) * tensor(1, 0, -1, 0)).sum()
    check(f, derivatives_at_zero(f, 4), 1e-5)


MASKED = {
    "logcumsumexp": lambda x: torch.logcumsumexp(x, 0)[-1],
    "logsumexp": lambda x: torch.logsumexp(x, 0),
    "log_softmax": lambda x: -torch.log_softmax(x, 0)[1],
    "softmax": lambda x: -torch.softmax(x, 0)[1].log(),
}


@pytest.mark.parametrize("name", MASKED)
def test_sums_of_exponentials_with_minus_infinity(name):
    f = lambda t: MASKED[name](torch.cat([tensor(-INF, 0), t[None]]))
    check(f, [0.5, 0.25, 0, -0.125])


# ---- functions of one number -------------------------------------------------------------------


def test_sinc():
    at_zero = [0, -(math.pi**2) / 3, 0, math.pi**4 / 5]
    check(torch.sinc, at_zero)
    check(lambda t: torch.sinc(1e-7 + t), [at_zero[1] * 1e-7, at_zero[1], at_zero[3] * 1e-7])
    for x in (0.05, 0.0999, 0.1001, 1.0, 1.5):
        f = lambda t, x=x: torch.sinc(x + t)
        check(f, derivatives_at_zero(f, 4, 0.05), 1e-5)


def test_sinc_of_many():
    x = tensor(0, 1e-9, 0.05, 0.5, 1, -0.3)
    hessian = functx.hessian(lambda x: torch.sinc(x).sum())(x)
    each = [functx.grad(functx.grad(torch.sinc))(value) for value in x]
    assert_close(hessian, torch.diag(torch.stack(each)))
    assert_close(hessian[0, 0], tensor(-(math.pi**2) / 3)[0])


def test_bessel_function_of_order_one():
    check(torch.special.i1, [0.5, 0, 0.375, 0])
    check(torch.special.i0, [0, 0.5, 0, 0.375])
    for x in (0.05, 0.2, 1.0):
        f = lambda t, x=x: torch.special.i1(x + t)
        check(f, derivatives_at_zero(f, 4, 0.05), 1e-5)


@pytest.mark.parametrize("power", [0, 1, 2, 3, 4])
def test_powers_of_zero(power):
    expected = [math.factorial(power) if k == power else 0 for k in range(1, 5)]
    check(lambda t: t**power, expected)
    check(lambda t: t ** float(power), expected)
    check(lambda t: torch.pow(t, tensor(power)[0]), expected)
    check(lambda t: torch.float_power(t, power), expected)


def test_products_with_logarithms():
    check(
        lambda t: torch.xlogy(t, 2 + t), derivatives_at_zero(lambda t: t * (2 + t).log(), 4), 1e-6
    )
    check(
        lambda t: torch.special.xlog1py(t, 1 + t),
        derivatives_at_zero(lambda t: t * (2 + t).log(), 4),
        1e-6,
    )


# ---- norms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [2, 3, 4, 6, 2.5, 3.5])
def test_norm_with_an_entry_of_zero(p):
    """As often as the power of an entry is differentiable at zero."""
    orders = 4 if p in (2, 4, 6) else math.ceil(p) - 1
    x = tensor(3, 0, -4)
    of_others = lambda t: ((3 + t) ** p + 4**p) ** (1 / p)
    for norm in (
        lambda x: torch.linalg.vector_norm(x, p),
        lambda x: torch.norm(x, p),
        lambda x: torch.dist(x, torch.zeros(3, dtype=DOUBLE), p),
        lambda x: torch.linalg.vector_norm(x.view(1, 3), p, dim=1, keepdim=True).sum(),
    ):
        f = lambda t, norm=norm: norm(x + t * tensor(1, 0, 0))
        check(f, derivatives_at_zero(of_others, orders), 1e-6)
        f = lambda t, norm=norm: norm(x + t * tensor(0, 1, 0))
        fourth = {2: -3 / 125, 4: 6 / (3**4 + 4**4) ** 0.75, 6: 0, 3: 0, 2.5: 0, 3.5: 0}[p]
        second = 0.2 if p == 2 else 0
        check(f, [0, second, 0, fourth][:orders])


def test_norm_of_zeros():
    for p in (1, 2, 3, 4, 2.5, INF):
        gradient = functx.grad(lambda x, p=p: torch.linalg.vector_norm(x, p))
        assert_close(gradient(torch.zeros(3, dtype=DOUBLE)), torch.zeros(3, dtype=DOUBLE))
