"""Derivatives of operators that PyTorch takes for constants without a word.

Where there is a derivative, both modes have it, for all orders and under all nests; the references
are closed forms, plain autograd of the same function written out, and differences. Where there is
none, `jvp` raises and `grad` warns.
"""

import subprocess
import sys
import textwrap
import warnings

import mpmath
import pytest
import torch
from _op_db import ENTRIES
from _silent_zeros import silent_zeros
from _special_functions import BESSEL, FAMILIES, FUNCTIONS, polynomial
from torch.testing import assert_close

import functx
from functx import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

F64 = torch.float64
special = torch.special

# ---- every operator ----------------------------------------------------------------------------

REPAIRED = ("special.", "linspace", "logspace", "linalg.lstsq", "view")


def names(is_quick):
    return sorted(
        name
        for name, op in ENTRIES.items()
        if F64 in op.dtypes and name.startswith(REPAIRED) == is_quick
    )


@pytest.mark.parametrize("name", names(True))
def test_no_silent_zero(name):
    assert silent_zeros(ENTRIES[name], 3) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", names(False))
def test_no_silent_zero_elsewhere(name):
    assert silent_zeros(ENTRIES[name], 2) == []


# ---- special functions -------------------------------------------------------------------------


def forward(f):
    return lambda x: jvp(f, (x,), (torch.ones_like(x),))[1]


def backward(f):
    return lambda x: grad(lambda y: f(y).sum())(x)


def pulled(f):
    """By the function that vjp returns, which may be called when its level is gone."""

    def derivative(x):
        y, pullback = vjp(f, x)
        return pullback(torch.ones_like(y))[0]

    return derivative


def batched(derive):
    """One element at a time."""
    return lambda f: vmap(derive(f))


def in_batch(derive):
    """Of the function of a batch."""
    return lambda f: derive(vmap(f))


ROUTES = {
    "f": [forward],
    "r": [backward],
    "v": [pulled],
    "vmap(f)": [batched(forward)],
    "vmap(r)": [batched(backward)],
    "f(vmap)": [in_batch(forward)],
    "r(vmap)": [in_batch(backward)],
    "ff": [forward] * 2,
    "fr": [forward, backward],
    "rf": [backward, forward],
    "rr": [backward] * 2,
    "vv": [pulled] * 2,
    "vmap(f)r": [batched(forward), backward],
    "vmap(r)f": [batched(backward), forward],
    "r vmap(r)": [backward, batched(backward)],
    "fff": [forward] * 3,
    "frf": [forward, backward, forward],
    "rfr": [backward, forward, backward],
    "rrr": [backward] * 3,
    "rrff": [backward, backward, forward, forward],
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_function(name, route):
    case, f = FUNCTIONS[name], FUNCTIONS[name].function
    for derive in reversed(ROUTES[route]):
        f = derive(f)
    x = torch.tensor(case.points, dtype=F64)
    expected = case.derivative(len(ROUTES[route]))
    assert_close(f(x), expected, rtol=1e-8, atol=1e-9)


LARGE = torch.tensor([9.0, 13.0, 31.0, 80.0], dtype=F64)


@pytest.mark.parametrize("derive", [forward, backward])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(BESSEL.keys() - {"bessel_y0", "bessel_y1"}))
def test_large_arguments(name, order, derive):
    case, f = BESSEL[name], BESSEL[name].function
    for _ in range(order):
        f = derive(f)
    expected = type(case)(f, case.exact, LARGE.tolist()).derivative(order)
    # PyTorch's J0 and J1 have an error of 2e-8 there; the scaled K, which almost cancel, lose some.
    assert_close(f(LARGE), expected, rtol=1e-6 if "scaled" not in name else 1e-4, atol=1e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobians(name):
    case = FUNCTIONS[name]
    x = torch.tensor(case.points[1:4], dtype=F64)
    first = torch.diag(case.derivative(1)[1:4])
    assert_close(jacrev(case.function)(x), first)
    assert_close(jacfwd(case.function)(x), first)
    second = torch.diag(case.derivative(2)[1:4])
    total = lambda x: case.function(x).sum()
    for jacobian in (hessian(total), jacrev(jacrev(total)), jacfwd(jacfwd(total))):
        assert_close(jacobian(x), second)
    assert_close(jacrev(jacfwd(total))(x), second)
    _, slope = linearize(case.function, x)
    assert_close(slope(torch.ones_like(x)), first.diag())


@pytest.mark.parametrize("name", ["bessel_j1", "chebyshev_polynomial_v, 4", "airy_ai"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_per_example_weights(name, count):
    """Only the examples differ, or only the weights, or only the cotangents."""
    f, case = FUNCTIONS[name].function, FUNCTIONS[name]
    x = torch.tensor(case.points[:3], dtype=F64)
    slope = case.derivative(1)[:3]
    scale = 0.5 + torch.arange(count, dtype=F64)
    loss = lambda scale, x: (scale * f(x)).sum()
    expected = scale[:, None] * slope
    assert_close(vmap(grad(loss, argnums=1), (0, None))(scale, x), expected)
    assert_close(grad(lambda x: vmap(loss, (0, None))(scale, x).sum())(x), expected.sum(0))
    _, pullback = vjp(f, x)
    assert_close(vmap(pullback)(scale[:, None].expand(count, 3))[0], expected)
    tangents = scale[:, None].expand(count, 3)
    assert_close(vmap(lambda t: jvp(f, (x,), (t,))[1])(tangents), expected)


def test_tracked_outside_of_all_transforms():
    """The user's own autograd differentiates what a transform has recorded."""
    x = torch.tensor([0.4, 2.0], dtype=F64, requires_grad=True)
    _, pullback = vjp(special.bessel_j1, x)
    (slope,) = pullback(torch.ones_like(x))
    (second,) = torch.autograd.grad(slope.sum(), x)
    assert_close(second, exact_second(special.bessel_j1, x))
    slope = grad(lambda x: special.bessel_j1(x).sum())(x)
    (second,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    assert_close(second.detach(), exact_second(special.bessel_j1, x))


def exact_second(f, x, step=1e-4):
    x = x.detach()
    slope = lambda x: special.bessel_j0(x) - f(x) / x
    return (slope(x + step) - slope(x - step)) / (2 * step)


@pytest.mark.parametrize("name", FAMILIES)
def test_degrees_of_many_polynomials(name):
    """Degrees in a tensor, which broadcast; below zero is the polynomial zero."""
    f = getattr(special, name)
    x = torch.tensor([[-0.3], [0.0], [0.9]], dtype=F64)
    n = torch.tensor([-1, 0, 1, 2, 5, 9])
    columns = [polynomial(name, k, x.flatten().tolist()).derivative(1) for k in n.tolist()]
    expected = torch.stack(columns, 1)
    assert_close(jvp(lambda x: f(x, n), (x,), (torch.ones_like(x),))[1], expected)
    total = lambda x, n: f(x, n).sum()
    assert_close(grad(total)(x, n), expected.sum(1, keepdim=True))
    assert_close(vmap(grad(total), (None, 0))(x, n)[..., 0], expected.T)
    assert_close(vmap(grad(total), (0, None))(x, n)[..., 0], expected.sum(1))
    points, degrees = x.expand(3, 6).reshape(-1), n.expand(3, 6).reshape(-1)
    assert_close(vmap(grad(f))(points, degrees), expected.reshape(-1))
    assert grad(lambda x: f(x, n[:0]).sum())(x).eq(0).all()
    # The degree is rounded towards zero: constant in steps.
    degrees = torch.tensor([1.3, 2.7], dtype=F64)
    by_degree = lambda n: f(x, n)
    assert not jvp(by_degree, (degrees,), (torch.ones_like(degrees),))[1].any()
    assert not grad(lambda n: by_degree(n).sum())(degrees).any()
    assert not grad(lambda n: f(0.4, n).sum())(degrees).any()
    both = grad(lambda x, n: f(x, n).sum(), argnums=(0, 1))(x, degrees)
    assert_close(both[0], grad(lambda x: f(x, degrees.long()).sum())(x))
    assert not both[1].any()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_shapes_and_dtypes(name):
    f = FUNCTIONS[name].function
    slope = FUNCTIONS[name].derivative(1)[1]
    for x in (torch.empty(0, 2), torch.tensor(FUNCTIONS[name].points[1])):
        for derive in (forward, backward):
            result = derive(f)(x.to(torch.float32))
            assert result.dtype == torch.float32
            assert_close(result, slope.to(torch.float32).expand(x.shape), rtol=1e-4, atol=1e-5)
    strided = torch.tensor(FUNCTIONS[name].points, dtype=F64).repeat_interleave(2)[::2]
    assert_close(backward(f)(strided), FUNCTIONS[name].derivative(1))


@pytest.mark.parametrize("name", BESSEL)
def test_out_refuses_a_gradient(name):
    """As PyTorch does for every operator that has a derivative."""
    f, x = BESSEL[name].function, torch.tensor([0.5, 2.0], dtype=F64)
    message = "out=... arguments don't support automatic differentiation"
    with pytest.raises(RuntimeError, match=message):
        grad(lambda x: f(x, out=torch.empty_like(x)).sum())(x)
    with pytest.raises(RuntimeError, match=message):
        vmap(grad(lambda x: f(x, out=torch.empty_like(x)).sum()))(x[:, None])
    assert_close(f(x, out=torch.empty_like(x)), f(x))
    constant = lambda y: (y * f(x, out=torch.empty_like(x))).sum()
    assert_close(grad(constant)(x), f(x))
    slope = jvp(lambda x: f(x, out=torch.zeros_like(x)), (x,), (torch.ones_like(x),))[1]
    assert_close(slope, jvp(f, (x,), (torch.ones_like(x),))[1])


@pytest.mark.parametrize(
    ("name", "value"), [("bessel_y1", torch.inf), ("modified_bessel_k1", -torch.inf)]
)
def test_singularity(name, value):
    x = torch.zeros(1, dtype=F64)
    for derive in (forward, backward):
        assert derive(BESSEL[name].function)(x).item() == value


def test_airy_against_high_precision():
    x = torch.cat([torch.linspace(-30, 12, 400), torch.linspace(12, 100, 40)]).double()
    actual = forward(special.airy_ai)(x)
    exact = [mpmath.airyai(v, derivative=1) for v in x.tolist()]
    expected = torch.tensor([float(v) for v in exact], dtype=F64)
    amplitude = torch.where(x < -1, x.abs().pow(0.25), expected.abs())
    assert ((actual - expected).abs() <= 2e-11 * amplitude).all()


# ---- linspace and logspace ---------------------------------------------------------------------

ENDS = (torch.tensor(0.3, dtype=F64), torch.tensor(-1.2, dtype=F64))


def linear(start, end, steps):
    weights = torch.linspace(0, 1, steps, dtype=F64)
    return start * (1 - weights) + end * weights


def spaces(steps, base):
    """Pairs of PyTorch's function of the ends and the same written out."""
    options = {"dtype": F64}
    yield lambda s, e: torch.linspace(s, e, steps, **options), lambda s, e: linear(s, e, steps)
    yield (
        lambda s, e: torch.logspace(s, e, steps, base, **options),
        lambda s, e: torch.pow(base, linear(s, e, steps)),
    )


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
@pytest.mark.parametrize("base", [10.0, 0.5, 1.0])
def test_ranges(steps, base):
    weight = torch.arange(1, steps + 1, dtype=F64).cos()
    for space, written_out in spaces(steps, base):
        f = lambda s, e: (weight * space(s, e) ** 2).sum()  # noqa: B023
        g = lambda s, e: (weight * written_out(s, e) ** 2).sum()  # noqa: B023
        leaves = [e.clone().requires_grad_() for e in ENDS]
        expected = torch.autograd.grad(g(*leaves), leaves)
        assert_close(grad(f, argnums=(0, 1))(*ENDS), expected)
        for k in (0, 1):
            assert_close(grad(f, argnums=k)(*ENDS), expected[k])
            one = [torch.zeros_like(e) for e in ENDS]
            one[k] += 1
            assert_close(jvp(f, ENDS, tuple(one))[1], expected[k])
        number = ENDS[0].item()
        assert_close(grad(lambda e: f(number, e))(ENDS[1]), expected[1])  # noqa: B023
        assert_close(jvp(lambda e: f(number, e), ENDS[1:], (one[1],))[1], expected[1])  # noqa: B023
        assert_close(grad(lambda s: f(s, ENDS[1].item()))(ENDS[0]), expected[0])  # noqa: B023
        plain = torch.autograd.functional.hessian(g, ENDS)
        for second in (
            hessian(f, argnums=(0, 1)),
            jacrev(jacrev(f, argnums=(0, 1)), argnums=(0, 1)),
            jacfwd(jacfwd(f, argnums=(0, 1)), argnums=(0, 1)),
        ):
            assert_close(second(*ENDS), plain)
        batch = torch.stack([ENDS[0], ENDS[0] + 1, ENDS[0] - 2])
        loop = []
        for start in batch:
            start, end = start.clone().requires_grad_(), ENDS[1].clone().requires_grad_()
            loop.append(torch.autograd.grad(g(start, end), (start, end)))
        columns = tuple(map(torch.stack, zip(*loop, strict=True)))
        assert_close(vmap(grad(f, argnums=(0, 1)), (0, None))(batch, ENDS[1]), columns)
        total = lambda batch, end: vmap(f, (0, None))(batch, end).sum()  # noqa: B023
        sums = (columns[0], columns[1].sum())
        assert_close(grad(total, argnums=(0, 1))(batch, ENDS[1]), sums)
        ones = (torch.ones_like(batch), torch.ones_like(ENDS[1]))
        mapped = jvp(lambda s, e: vmap(f, (0, None))(s, e), (batch, ENDS[1]), ones)[1]  # noqa: B023
        assert_close(mapped, columns[0] + columns[1])


def test_pullback_outlives_the_levels_inside():
    """What is tracked outside of a jvp is differentiated when that is over."""
    one = torch.ones((), dtype=F64)
    weights = 1 - torch.linspace(0, 1, 3, dtype=F64)
    for f, expected in (
        (lambda w: torch.linspace(w, ENDS[1], 3, dtype=F64).sum(), weights.sum()),
        (lambda w: special.chebyshev_polynomial_t(w, 2), 4 * ENDS[0]),
    ):
        inside = lambda w: jvp(lambda x: x * f(w), (one,), (one,))[1]  # noqa: B023
        assert_close(grad(inside)(ENDS[0]), expected)
        _, pullback = vjp(inside, ENDS[0])
        assert_close(pullback(one)[0], expected)


def test_range_in_plain_pytorch_is_as_it_was():
    leaf = ENDS[0].clone().requires_grad_()
    assert not torch.linspace(leaf, 1, 3).requires_grad
    assert torch.linspace(0, 1, 3, requires_grad=True).requires_grad
    out = torch.empty(3)
    assert torch.linspace(0, 1, 3, out=out) is out

    class Calls(torch.overrides.TorchFunctionMode):
        names = ()

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.names += (func is torch.linspace, func is torch.logspace)
            return func(*args, **(kwargs or {}))

    with Calls() as calls:
        torch.linspace(0, 1, 3)
    with torch.device("meta"):
        points = torch.linspace(0, 1, 3)
    assert points.is_meta
    assert calls.names == (True, False)


@pytest.mark.slow
def test_range_in_a_compiled_function():
    compiled = torch.compile(lambda x: x + torch.linspace(0, 1, 3), backend="eager", fullgraph=True)
    assert_close(compiled(torch.ones(3)), 1 + torch.linspace(0, 1, 3))


def test_range_of_integers_is_constant():
    f = lambda s, e: torch.linspace(s, e, 4, dtype=torch.int64)
    points, slope = jvp(f, ENDS, ENDS)
    assert_close(points, f(*ENDS))
    assert not slope.any()


def test_range_of_complex_numbers():
    ends = (torch.tensor(0.3 + 1j, dtype=torch.complex128), torch.tensor(-1.2, dtype=F64))
    f = lambda s, e: torch.linspace(s, e, 5, dtype=torch.complex128)
    g = lambda s, e: linear(s, e, 5)
    weight = torch.arange(5) + 0.5j
    leaves = [e.clone().requires_grad_() for e in ends]
    loss = lambda f: lambda *ends: (weight * f(*ends)).real.sum()
    expected = torch.autograd.grad(loss(g)(*leaves), leaves)
    assert_close(grad(loss(f), argnums=(0, 1))(*ends), expected)
    tangents = (torch.tensor(1 - 2j, dtype=torch.complex128), torch.tensor(0.5, dtype=F64))
    assert_close(jvp(f, ends, tangents)[1], g(*tangents))


# ---- the same numbers under another dtype --------------------------------------------------------

X = torch.tensor([[0.3, -1.2, 2.0, 0.5], [1.0, 0.1, -0.4, 0.9]], dtype=F64)
Z = torch.view_as_complex(X.view(2, 2, 2))


def real_squares(x):
    return (x.real**2 + 3 * x.imag * x.real).sum() if x.is_complex() else (x**2).sum()


@pytest.mark.parametrize(
    ("f", "written_out", "x"),
    [
        (lambda x: x.view(F64), lambda x: x * 1, X),
        (
            lambda x: x.view(torch.complex128),
            lambda x: torch.view_as_complex(x.unflatten(-1, (-1, 2))),
            X,
        ),
        (lambda x: x.view(F64), lambda x: torch.view_as_real(x).flatten(-2), Z),
        (lambda x: x.view(torch.complex128), lambda x: x * 1, Z),
    ],
    ids=["real", "to complex", "to real", "complex"],
)
def test_view_as_another_dtype(f, written_out, x):
    loss = lambda x: real_squares(f(x))
    expected_loss = lambda x: real_squares(written_out(x))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(expected_loss(leaf), leaf)
    assert_close(grad(loss)(x), expected)
    assert_close(vmap(grad(loss))(x), expected)
    assert_close(grad(lambda x: vmap(loss)(x).sum())(x), expected)
    tangent = x.flip(0)
    assert_close(jvp(f, (x,), (tangent,))[1], written_out(tangent))
    assert_close(vmap(lambda x, t: jvp(f, (x,), (t,))[1])(x, tangent), written_out(tangent))
    slope = lambda x: jvp(loss, (x,), (tangent,))[1]
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(expected_loss(leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * tangent.conj()).real.sum(), leaf)
    assert_close(grad(slope)(x), second)

    # What is written into the view is written into the tensor.
    def written(x):
        y = torch.zeros_like(x)
        f(y).copy_(f(x))
        return real_squares(f(y) * 1)

    assert_close(grad(written)(x), expected)


def test_other_bits_raise_or_warn():
    code = """
    import warnings, torch
    from functx import grad, jvp, vmap
    x = torch.rand(4, dtype=torch.float64)
    bits = lambda x: x.view(torch.float32)[::2].double().nan_to_num(0)
    try:
        jvp(bits, (x,), (x,))
    except NotImplementedError as error:
        assert "functx.jvp: aten::view from Double to Float has no derivative" in str(error), error
    else:
        raise AssertionError
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        grad(lambda x: (bits(x) * x).sum())(x)
        vmap(grad(lambda x: (bits(x[None]) * x).sum()))(x)
    assert len(caught) == 1, caught
    assert "functx.grad: aten::view has no derivative here" in str(caught[0].message), caught
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_bits_as_integers_are_constant():
    f = lambda x: x.view(torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output, slope = jvp(f, (X,), (X,))
        assert torch.equal(output, f(X))
        assert not slope.any()
        assert_close(grad(lambda x: (f(x) * x).sum())(X), f(X).double())


# ---- singular values beside a least-squares solution -------------------------------------------


@pytest.mark.parametrize("driver", ["gelsd", "gelss"])
@pytest.mark.parametrize("shape", [(4, 3), (3, 3), (2, 4, 3)])
def test_singular_values_of_least_squares(shape, driver):
    torch.manual_seed(0)
    matrix = torch.rand(shape, dtype=F64)
    side = torch.rand(*shape[:-1], 2, dtype=F64)
    values = lambda a: torch.linalg.lstsq(a, side, driver=driver).singular_values
    leaf = matrix.clone().requires_grad_()
    plain = torch.linalg.svdvals(leaf)
    weight = torch.arange(plain.numel(), dtype=F64).reshape(plain.shape).cos()
    (expected,) = torch.autograd.grad((weight * plain).sum(), leaf)
    loss = lambda a: (weight * values(a)).sum()
    assert_close(values(matrix), plain.detach())
    assert_close(grad(loss)(matrix), expected)
    tangent = matrix.sin()
    assert_close(jvp(loss, (matrix,), (tangent,))[1], (expected * tangent).sum())
    batch = torch.stack([matrix, 2 * matrix])
    assert_close(vmap(grad(loss))(batch), torch.stack([expected, expected]))
    assert_close(grad(lambda b: vmap(loss)(b).sum())(batch), torch.stack([expected, expected]))
    both = lambda a: sum(r.sum() for r in torch.linalg.lstsq(a, side, driver=driver)[::3])
    solution = lambda a: torch.linalg.lstsq(a, side).solution.sum() + torch.linalg.svdvals(a).sum()
    leaf = matrix.clone().requires_grad_()
    (expected,) = torch.autograd.grad(solution(leaf), leaf)
    assert_close(grad(both)(matrix), expected)


# ---- weights of classes --------------------------------------------------------------------------


@pytest.mark.skipif(
    not hasattr(torch.nn.functional, "linear_cross_entropy"), reason="torch 2.13 brought it"
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_weights_of_chunked_cross_entropy(reduction):
    entry = ENTRIES["nn.functional.linear_cross_entropy.chunked" + "_none" * (reduction == "none")]
    sample = next(s for s in entry.sample_inputs("cpu", F64) if s.input.dim() == 2)
    features, weight, target = sample.input, *sample.args[:2]
    options = sample.kwargs["options"]
    classes = torch.arange(1, weight.shape[0] + 1, dtype=F64).sqrt()
    scale = torch.arange(1, len(target) + 1, dtype=F64) if reduction == "none" else 1

    def loss(classes):
        losses = torch.nn.functional.linear_cross_entropy(
            features, weight, target, weight=classes, reduction=reduction, options=options
        )
        return (scale * losses).sum()

    step = 1e-5
    units = step * torch.eye(len(classes), dtype=F64)
    differences = [loss(classes + unit) - loss(classes - unit) for unit in units]
    expected = torch.stack(differences) / (2 * step)
    assert_close(grad(loss)(classes), expected, rtol=1e-6, atol=1e-8)
    tangent = classes.cos()
    assert_close(jvp(loss, (classes,), (tangent,))[1], expected @ tangent, rtol=1e-6, atol=1e-8)
    batch = torch.stack([classes, classes])
    twice = torch.stack([expected, expected])
    assert_close(vmap(grad(loss))(batch), twice, rtol=1e-6, atol=1e-8)
    total = lambda batch: vmap(loss)(batch).sum()
    assert_close(grad(total)(batch), twice, rtol=1e-6, atol=1e-8)


# ---- zeros that are none of our business ---------------------------------------------------------

CONSTANT_IN_STEPS = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "sign": torch.sign,
    "comparison": lambda x: (x > 0.5) * 1.0,
    "argmax": lambda x: x.argmax() * 1.0,
    "sgn": torch.sgn,
    "copysign's second": lambda x: torch.copysign(torch.ones(4, dtype=F64), x),
    "nextafter's second": lambda x: torch.nextafter(torch.ones(4, dtype=F64), x),
    "histc": lambda x: torch.histc(x, 3, 0, 1),
    "count_nonzero": lambda x: x.count_nonzero() * 1.0,
    "permutation of LU": lambda x: torch.linalg.lu(x.reshape(2, 2))[0],
    "likeness": torch.ones_like,
    "bernoulli": torch.bernoulli,
    "poisson": torch.poisson,
}


@pytest.mark.parametrize("name", CONSTANT_IN_STEPS)
def test_true_zero_is_silent(name):
    f = CONSTANT_IN_STEPS[name]
    x = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not jvp(f, (x,), (x,))[1].any()
        assert_close(grad(lambda x: f(x).sum() + x.sum())(x), torch.ones_like(x))


def test_coverage_names_a_rule():
    coverage = functx._C.operator_coverage()
    for name in BESSEL:
        assert coverage[f"aten::special_{name}"] == "rule"
