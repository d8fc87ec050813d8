"""torch.autocast around transforms and inside of them: the dtypes and values of plain PyTorch.

Autocast decides by the operator that the function calls, on one example; not by those that a rule
or a derivative formula puts in its place.
"""

import os

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

import functx

torch.manual_seed(0)  # draws that do not depend on what was imported before
WEIGHT, BIAS = torch.randn(4, 4), torch.randn(4)


def autocast(enabled=True):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


# Functions of a vector of four numbers. On a CPU, autocast lowers the precision of products of
# matrices, convolutions and attention, raises that of losses and factorisations, promotes cat and
# stack, and leaves the rest, so mv and dot, alone.
FUNCTIONS = {
    "mm": lambda x: (torch.outer(x, x) @ WEIGHT).sum(),
    "matmul": lambda x: (WEIGHT @ x).tanh().sum(),
    "mv": lambda x: torch.mv(WEIGHT, x).tanh().sum(),
    "dot": lambda x: torch.dot(x, x + 1),
    "addmm": lambda x: torch.addmm(WEIGHT, WEIGHT, x[:, None] * WEIGHT).tanh().sum(),
    "bmm": lambda x: torch.bmm(WEIGHT[None], (x[:, None] * WEIGHT)[None]).sum(),
    "baddbmm": lambda x: torch.baddbmm(WEIGHT[None], WEIGHT[None], (x * WEIGHT)[None]).sum(),
    "linear": lambda x: functional.linear(x, WEIGHT, BIAS).tanh().sum(),
    "two-layers": lambda x: functional.linear(functional.linear(x, WEIGHT).tanh(), WEIGHT).sum(),
    "einsum": lambda x: torch.einsum("i,ij,j->", x, WEIGHT, x),
    "conv": lambda x: functional.conv1d(x[None], WEIGHT[:1, None, :3]).tanh().sum(),
    "attention": lambda x: functional.scaled_dot_product_attention(
        x[None, :, None] * WEIGHT, WEIGHT[None], WEIGHT[None]
    ).sum(),
    "layer_norm": lambda x: functional.layer_norm(functional.linear(x, WEIGHT), (4,)).tanh().sum(),
    "softmax": lambda x: functional.linear(x, WEIGHT).softmax(0)[0],
    "cross_entropy": lambda x: functional.cross_entropy(
        functional.linear(x, WEIGHT), torch.tensor(1)
    ),
    "mse_loss": lambda x: functional.mse_loss(functional.linear(x, WEIGHT), x),
    "prod": lambda x: functional.linear(x, WEIGHT).prod(),
    "inv": lambda x: torch.linalg.inv(torch.outer(x, x) + 10 * torch.eye(4)).sum(),
    "cat": lambda x: torch.cat([functional.linear(x, WEIGHT), x]).sin().sum(),
    "stack": lambda x: torch.stack([functional.linear(x, WEIGHT), x]).sin().sum(),
}


def in_a_region(x):
    """Autocast in the middle of the function only: the backward pass runs without it."""
    with autocast():
        y = functional.linear(x, WEIGHT, BIAS).tanh()
    assert y.dtype == torch.bfloat16
    return (y.float() * x).sum()


def with_an_island(x):
    """A part of it in full precision."""
    y = functional.linear(x, WEIGHT)
    with autocast(enabled=False):
        y = functional.linear(y.float(), WEIGHT)
    assert y.dtype == torch.float32
    return functional.linear(y.tanh(), WEIGHT).sum()


FUNCTIONS |= {"in-a-region": in_a_region, "with-an-island": with_an_island}
each = pytest.mark.parametrize("name", FUNCTIONS)
X, Y = torch.randn(5, 4), torch.randn(5, 4)


def check(actual, expected, exact=None):
    """The dtypes exactly; values up to a few steps of rounding, which the order of sums moves.

    Where that takes more steps, as in attention, which is put together of other operators here, it
    does as well to be no further from what is `exact` than twice as far as PyTorch.
    """
    if exact is not None:
        assert actual.dtype == expected.dtype
        if (actual - exact).abs().max() <= 2 * (expected - exact).abs().max():
            return
    assert_close(actual, expected, rtol=0.03, atol=0.03)


def run(name, program, *args):
    with autocast(name != "in-a-region"):
        return program(FUNCTIONS[name], *args)


def exactly(name, program):
    with autocast(enabled=False):
        plain = {"in-a-region": lambda x: (functional.linear(x, WEIGHT, BIAS).tanh() * x).sum()}
        return program(plain.get(name, FUNCTIONS[name]))


def gradient(f, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x)[0]


def slope(f, x, tangent):
    """Of the values in full precision: what autocast rounds to has no slope to difference."""
    with autocast(enabled=False):
        return torch.autograd.functional.jvp(f, x, tangent)[1]


@each
def test_vmap(name):
    actual = run(name, lambda f: functx.vmap(f)(X))
    check(actual, run(name, lambda f: torch.stack([f(x) for x in X])))


@each
def test_grad(name):
    actual = run(name, lambda f: functx.grad(f)(X[0]))
    assert_close(actual, run(name, gradient, X[0]), rtol=0, atol=0)


@each
def test_vmap_of_grad(name):
    actual = run(name, lambda f: functx.vmap(functx.grad(f))(X))
    program = lambda f: torch.stack([gradient(f, x) for x in X])
    check(actual, run(name, program), exactly(name, program))


@each
def test_grad_of_vmap(name):
    actual = run(name, lambda f: functx.grad(lambda xs: functx.vmap(f)(xs).float().sum())(X))
    program = lambda f: torch.stack([gradient(f, x) for x in X])
    check(actual, run(name, program), exactly(name, program))


@each
def test_jvp(name):
    """The tangent has the dtype of its primal, and the value of the gradient times the input."""
    results = [run(name, lambda f, y=y: functx.jvp(f, (X[0],), (y,))) for y in Y]
    value = run(name, lambda f: f(X[0]))
    for output, tangent in results:
        assert_close(output, value, rtol=0, atol=0)
        assert tangent.dtype == value.dtype
    actual = torch.stack([tangent for _, tangent in results]).float()
    program = lambda f: (Y * gradient(f, X[0])).sum(1)
    expected, exact = run(name, program), exactly(name, program)
    if (actual - exact).abs().max() > 2 * (expected - exact).abs().max():
        assert_close(actual, expected, rtol=0.05, atol=0.05)


@each
def test_vmap_of_jvp(name):
    program = lambda f: functx.vmap(lambda x, t: functx.jvp(f, (x,), (t,))[1])(X, Y)
    one_by_one = lambda f: torch.stack(
        [functx.jvp(f, (x,), (t,))[1] for x, t in zip(X, Y, strict=True)]
    )
    expected = torch.stack([(run(name, gradient, x) * t).sum() for x, t in zip(X, Y, strict=True)])
    actual = run(name, program)
    assert actual.dtype == run(name, one_by_one).dtype
    assert_close(actual.float(), expected, rtol=0.05, atol=0.05)


@each
def test_hessians(name):
    """Near those in full precision, and not exactly there if anything was rounded."""
    expected = exactly(name, lambda f: torch.autograd.functional.hessian(f, X[0]))
    actual = run(name, lambda f: functx.hessian(f)(X[0]))
    assert actual.dtype == torch.float32
    scale = expected.abs().max().clamp(min=1)
    assert_close(actual / scale, expected / scale, rtol=0, atol=0.15)


def test_what_a_tape_on_wrappers_records_is_cast():
    """The gradient comes back in the dtype of the weight, from a product in the lower one."""
    weight = torch.randn(4, 4)
    dtypes = set()

    def loss(weight, x):
        y = functional.linear(x, weight)
        dtypes.add(y.dtype)
        y.register_hook(lambda g: dtypes.add(g.dtype))
        return y.float().sum()

    with autocast():
        per_sample = functx.vmap(functx.grad(loss), (None, 0))(weight, X)
    assert dtypes == {torch.bfloat16}
    expected = X.bfloat16().float()[:, None].expand(5, 4, 4)
    assert_close(per_sample, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_either_low_precision(dtype):
    with torch.autocast("cpu", dtype=dtype):
        y = functx.vmap(lambda x: functional.linear(x, WEIGHT))(X)
        assert y.dtype == dtype
        assert_close(y, torch.stack([functional.linear(x, WEIGHT) for x in X]))


def test_autocast_is_off_again_after_it():
    with autocast():
        functx.vmap(functx.grad(FUNCTIONS["linear"]))(X)
        assert torch.is_autocast_enabled("cpu")
    assert functx.vmap(lambda x: WEIGHT @ x)(X).dtype == torch.float32


def test_modules():
    model = torch.nn.Sequential(
        torch.nn.Conv1d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(6, 2)
    )
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x):
        y = functx.functional_call(model, parameters, (x[None, None],))
        assert y.dtype == torch.bfloat16
        return functional.cross_entropy(y, torch.tensor([1]))

    with autocast():
        actual = functx.vmap(functx.grad(loss), (None, 0))(parameters, X)
        for index, x in enumerate(X):
            names, values = zip(*model.named_parameters(), strict=True)
            value = functional.cross_entropy(model(x[None, None]), torch.tensor([1]))
            expected = torch.autograd.grad(value, values)
            check({n: actual[n][index] for n in names}, dict(zip(names, expected, strict=True)))


def test_rules_of_the_users_see_cast_values():
    dtypes = []

    def product(info, in_dims, a, b):
        dtypes.extend([a.dtype, b.dtype])
        return a @ b, 0

    rule = functx.register_batching_rule(torch.ops.aten.mm.default, product)
    try:
        with autocast():
            actual = functx.vmap(lambda x: torch.mm(x[None] * WEIGHT, WEIGHT))(X)
            expected = torch.stack([torch.mm(x[None] * WEIGHT, WEIGHT) for x in X])
    finally:
        rule.remove()
    assert dtypes == [torch.bfloat16] * 2
    check(actual, expected)


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("transform", ["grad", "vmap-grad"])
def test_memory_stays_flat_in_one_region(transform):
    """Autocast keeps the casts of leaves until its region ends; those of ours must not live on."""
    weight, xs = torch.randn(512, 512), torch.randn(2, 512)

    def loss(weight, x):
        return functional.linear(x, weight).float().sum()

    gradient = functx.grad(loss)
    program = {
        "grad": lambda: gradient(weight, xs[0]),
        "vmap-grad": lambda: functx.vmap(gradient, (None, 0))(weight, xs),
    }[transform]
    with autocast():
        for _ in range(10):
            program()
        before = resident_bytes()
        for _ in range(60):  # a cast of the weight has half a megabyte
            program()
        assert resident_bytes() - before < 6 * 2**20
