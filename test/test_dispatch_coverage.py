"""Every operator of the dispatcher is covered, also those registered after functx was imported."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from _reference import loop_vmap, randn
from torch.testing import assert_close

import functx

counter = itertools.count()


def test_every_aten_operator_is_covered():
    coverage = functx._C.operator_coverage()
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("aten::")]
    assert len(names) > 2500
    missing = [name for name in names if name not in coverage]
    assert not missing
    assert {coverage[name] for name in names} <= {"rule", "decomposition", "fallback"}
    assert "rule" in coverage.values()


@pytest.mark.parametrize(
    "name",
    [
        "aten::sin",
        "aten::add.Tensor",
        "aten::mul.Tensor",
        "aten::mm",
        "aten::bmm",
        "aten::sum.dim_IntList",
        "aten::view",
        "aten::select.int",
        "aten::slice.Tensor",
        "aten::index.Tensor",
        "aten::index_put_",
        "aten::cat",
        "aten::stack",
        "aten::where.self",
        "aten::gather",
        "aten::scatter.src",
        "aten::_softmax",
        "aten::native_layer_norm",
        "aten::convolution",
        "aten::embedding",
        "aten::copy_",
        "aten::expand",
        "aten::as_strided",
        "aten::zeros_like",
        "aten::new_zeros",
        "aten::max_pool2d_with_indices",
        "aten::native_dropout",
        "aten::clone",
        "aten::tanh_",
        "aten::_to_copy",
        "aten::native_group_norm",
        "aten::nll_loss_forward",
        "aten::convolution_backward",
    ],
)
def test_common_operators_do_not_fall_back_to_a_loop(name):
    assert functx._C.operator_coverage()[name] != "fallback"


# ---- operators registered after the import ----------------------------------------------------


@pytest.fixture
def library():
    """A library of its own for each test, removed afterwards."""
    name = f"functx_test_{next(counter)}"
    with torch.library._scoped_library(name, "FRAGMENT") as lib:
        yield lib, getattr(torch.ops, name), name


def multiply_numpy(x, y):
    return torch.from_numpy(np.asarray(x.numpy() * y.numpy()))


def custom_product(name):
    """torch.library.custom_op with a body that only understands plain tensors."""

    @torch.library.custom_op(f"{name}::product", mutates_args=())
    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return multiply_numpy(x, y)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def backward(ctx, gradient):
        x, y = ctx.saved_tensors
        return gradient * y, gradient * x

    product.register_autograd(backward, setup_context=setup)
    return product


def loop_warnings(record):
    return [w for w in record if "functx.vmap" in str(w.message) and "loop" in str(w.message)]


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)])
def test_a_custom_op_runs_in_a_loop_with_one_warning(library, in_dims):
    product = custom_product(library[2])
    x, y = (randn(3) if d is None else randn(4, 3) for d in in_dims)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        actual = functx.vmap(product, in_dims)(x, y)
        functx.vmap(product, in_dims)(x, y)
    assert_close(actual, x * y)
    assert len(loop_warnings(record)) == 1
    assert "product" in str(loop_warnings(record)[0].message)


def test_the_warning_can_be_turned_off(library):
    product = custom_product(library[2])
    x = randn(4, 3)
    before = functx._C.warn_on_loop_fallback(False)
    try:
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            assert_close(functx.vmap(product)(x, x), x * x)
        assert not loop_warnings(record)
    finally:
        assert functx._C.warn_on_loop_fallback(before) is False
    assert before is True


def test_a_custom_op_under_nested_vmaps(library):
    product = custom_product(library[2])
    x, y = randn(2, 4, 3), randn(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        actual = functx.vmap(functx.vmap(product), in_dims=(0, None))(x, y)
    assert_close(actual, x * y)


@pytest.mark.filterwarnings("ignore:.*loop.*")
def test_a_custom_op_with_a_backward_formula(library):
    product = custom_product(library[2])
    x, y = randn(4, 3), randn(4, 3)

    def f(x, y):
        return (product(x, y) * x).sum()

    assert_close(functx.grad(f)(x[0], y[0]), 2 * x[0] * y[0])
    assert_close(functx.vmap(functx.grad(f))(x, y), 2 * x * y)
    assert_close(functx.vmap(functx.grad(f), (0, None))(x, y[0]), 2 * x * y[0])
    assert_close(functx.grad(lambda x: functx.vmap(f)(x, y).sum())(x), 2 * x * y)
    assert_close(functx.jacrev(lambda x: product(x, y[0]))(x[0]), torch.diag(y[0]))


@pytest.mark.filterwarnings("ignore:.*loop.*")
def test_a_custom_op_without_a_forward_formula_under_jvp(library):
    """There is a backward formula only: the right tangent, or an error that says so."""
    product = custom_product(library[2])
    x, y, t = randn(3), randn(3), randn(3)
    problem = None
    try:
        _, tangent = functx.jvp(lambda x: product(x, y), (x,), (t,))
    except RuntimeError as error:
        problem = str(error)
    if problem is None:
        assert_close(tangent, t * y)
    else:
        assert "jvp" in problem or "forward" in problem
        assert "product" in problem
    output, zero = functx.jvp(lambda z: z + product(x, y), (x,), (t,))
    assert_close(output, x + x * y)
    assert_close(zero, t)


def test_a_composite_op_needs_nothing(library):
    lib, ops, _ = library
    lib.define("swish(Tensor x, float beta) -> Tensor")
    lib.impl("swish", lambda x, beta: x * torch.sigmoid(beta * x), "CompositeImplicitAutograd")
    x, t = randn(4), randn(4)

    def reference(x):
        return x * torch.sigmoid(2 * x)

    def slope(x):
        s = torch.sigmoid(2 * x)
        return s + 2 * x * s * (1 - s)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(functx.vmap(lambda x: ops.swish(x, 2.0))(x), reference(x))
        assert_close(functx.vmap(functx.grad(lambda x: ops.swish(x, 2.0)))(x), slope(x))
        assert_close(functx.jvp(lambda x: ops.swish(x, 2.0), (x,), (t,))[1], slope(x) * t)
        assert_close(functx.jacfwd(lambda x: ops.swish(x, 2.0))(x), torch.diag(slope(x)))


class Cube(torch.autograd.Function):
    """Derivative formulas, both ways, around an operator that autograd cannot see into."""

    @staticmethod
    def forward(x, ops):
        with torch._C._AutoDispatchBelowAutograd():
            return ops.cube(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient, None

    @staticmethod
    def jvp(ctx, tangent, _ops):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * tangent


@pytest.mark.filterwarnings("ignore:.*loop.*")
def test_an_op_with_kernels_for_cpu_and_autograd(library):
    lib, ops, _ = library
    lib.define("cube(Tensor x) -> Tensor")
    lib.impl("cube", lambda x: torch.from_numpy(np.asarray(x.numpy() ** 3)), "CPU")
    lib.impl("cube", lambda x: Cube.apply(x, ops), "Autograd")
    x, t = randn(4), randn(4)
    assert_close(functx.vmap(ops.cube)(x), x**3)
    assert_close(functx.grad(lambda x: ops.cube(x).sum())(x), 3 * x**2)
    assert_close(functx.vmap(functx.grad(ops.cube))(x), 3 * x**2)
    assert_close(functx.jvp(ops.cube, (x,), (t,))[1], 3 * x**2 * t)
    assert_close(functx.vmap(lambda x, t: functx.jvp(ops.cube, (x,), (t,))[1])(x, t), 3 * x**2 * t)


@pytest.mark.filterwarnings("ignore:.*loop.*")
def test_an_op_with_several_outputs_and_lists(library):
    lib, ops, _ = library
    lib.define("spread(Tensor[] xs, Tensor? bias, float scale) -> (Tensor, Tensor[])")

    def spread(xs, bias, scale):
        total = torch.from_numpy(sum(x.numpy() for x in xs)) * scale
        return total if bias is None else total + bias, [x * scale for x in xs]

    lib.impl("spread", spread, "CPU")
    x, y = randn(4, 3), randn(3)

    def f(x):
        total, parts = ops.spread([x, y], None, 2.0)
        shifted, _ = ops.spread([y], x, 1.0)
        return total, parts[0], parts[1], shifted

    def reference(x):
        return 2 * (x + y), 2 * x, 2 * y, x + y

    for actual, expected in zip(functx.vmap(f)(x), loop_vmap(reference)(x), strict=True):
        assert_close(actual, expected)


@pytest.mark.filterwarnings("ignore:.*loop.*")
def test_an_op_that_writes_in_place(library):
    lib, ops, _ = library
    lib.define("double_(Tensor(a!) x) -> Tensor(a!)")
    lib.impl("double_", lambda x: x.mul_(2), "CPU")
    x = randn(4, 3)
    expected = 2 * x
    assert_close(functx.vmap(lambda x: ops.double_(x.clone()))(x), expected)
    functx.vmap(ops.double_)(x)
    assert_close(x, expected)
