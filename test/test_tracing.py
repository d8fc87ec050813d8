"""make_fx over transforms gives a flat graph of aten operators that computes the same."""

import operator

import pytest
import torch
from _closed_forms import CASES, square_of_sine
from _reference import (
    autograd_grad,
    autograd_hessian,
    autograd_jacobian,
    autograd_vjp,
    forward_ad_jvp,
    loop_vmap,
    randn,
)
from expecttest import assert_expected_inline
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import functx

WEIGHT = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3)


def layer(x):
    return torch.tanh(WEIGHT @ x + 1)


def loss(x):
    return layer(x).square().sum()


def writes(x):
    y = x.new_zeros(4)
    y[:3] = x.sin()
    y[3] = x.prod()
    return y.cumsum(0)


def jacobian(f, x):
    return autograd_jacobian(f, x)[0]


# Each transform with what it must compute, by plain autograd and loops.
TRANSFORMED = {
    "vmap": (functx.vmap(layer), loop_vmap(layer)),
    "vmap-in-place": (functx.vmap(writes), loop_vmap(writes)),
    "vmap-vmap": (
        lambda x: functx.vmap(functx.vmap(torch.dot, (None, 0)), (0, None))(x, x),
        lambda x: x @ x.T,
    ),
    "grad": (
        functx.grad(lambda x: loss(x[0])),
        lambda x: autograd_grad(lambda x: loss(x[0]), x)[0],
    ),
    "grad_and_value": (
        functx.grad_and_value(lambda x: loss(x[0])),
        lambda x: (autograd_grad(lambda x: loss(x[0]), x)[0], loss(x[0])),
    ),
    "vjp": (
        lambda x: functx.vjp(layer, x[0])[1](x[1]),
        lambda x: autograd_vjp(layer, (x[0],), x[1]),
    ),
    "jvp": (
        lambda x: functx.jvp(layer, (x[0],), (x[1],)),
        lambda x: forward_ad_jvp(layer, (x[0],), (x[1],)),
    ),
    "jvp-in-place": (
        lambda x: functx.jvp(writes, (x[0],), (x[1],)),
        lambda x: forward_ad_jvp(writes, (x[0],), (x[1],)),
    ),
    "jacrev": (lambda x: functx.jacrev(layer)(x[0]), lambda x: jacobian(layer, x[0])),
    "jacfwd": (lambda x: functx.jacfwd(layer)(x[0]), lambda x: jacobian(layer, x[0])),
    "hessian": (lambda x: functx.hessian(loss)(x[0]), lambda x: autograd_hessian(loss, x[0])),
    "vmap-grad": (
        functx.vmap(functx.grad(loss)),
        lambda x: autograd_grad(lambda x: sum(loss(row) for row in x), x)[0],
    ),
    "grad-vmap": (
        functx.grad(lambda x: functx.vmap(loss)(x).square().sum()),
        lambda x: autograd_grad(lambda x: sum(loss(row) ** 2 for row in x), x)[0],
    ),
    "vmap-hessian": (
        functx.vmap(functx.hessian(loss)),
        lambda x: torch.stack([autograd_hessian(loss, row) for row in x]),
    ),
    "jvp-grad": (
        lambda x: functx.jvp(functx.grad(loss), (x[0],), (x[1],))[1],
        lambda x: autograd_hessian(loss, x[0]) @ x[1],
    ),
    "grad-grad": (
        functx.grad(lambda x: functx.grad(loss)(x[0]).square().sum()),
        lambda x: torch.cat(
            [
                2 * (autograd_hessian(loss, x[0]) @ autograd_grad(loss, x[0])[0])[None],
                torch.zeros_like(x[1:]),
            ]
        ),
    ),
}

each = pytest.mark.parametrize("name", TRANSFORMED)
modes = pytest.mark.parametrize("tracing_mode", ["real", "fake"])


def operators(graph_module):
    return [node.target for node in graph_module.graph.nodes if node.op == "call_function"]


@each
@modes
def test_graph_is_flat_and_right(name, tracing_mode):
    x = randn(5, 3)
    f, reference = TRANSFORMED[name]
    traced = make_fx(f, tracing_mode=tracing_mode, _allow_non_fake_inputs=True)(x)
    kinds = {node.op for node in traced.graph.nodes}
    assert kinds <= {"placeholder", "call_function", "get_attr", "output"}
    targets = operators(traced)
    assert targets
    for target in targets:
        if target is operator.getitem:  # of an operator with several results
            continue
        assert isinstance(target, torch._ops.OpOverload), target
        assert target.namespace == "aten", target
    assert functx._C.level_depth() == 0
    fresh = randn(5, 3)
    assert_close(traced(fresh), reference(fresh))


@each
def test_traced_again_gives_the_same_graph(name):
    x = randn(5, 3)
    f, _ = TRANSFORMED[name]
    assert make_fx(f)(x).code == make_fx(f)(x).code


def test_no_loop_over_the_batch():
    """The graph of a vmap does not grow with the batch."""
    f = functx.vmap(functx.hessian(loss))
    assert len(operators(make_fx(f)(randn(2, 3)))) == len(operators(make_fx(f)(randn(50, 3))))


def test_a_transform_of_a_traced_function():
    traced = make_fx(loss)(randn(3))
    x = randn(3)
    assert_close(functx.hessian(traced)(x), autograd_hessian(loss, x))
    assert_close(functx.vmap(functx.grad(traced))(x[None])[0], autograd_grad(loss, x)[0])


@pytest.mark.parametrize("name", CASES)
def test_symbolic_tracing(name):
    """Sizes that vmap maps over are numbers, so they are fixed in the graph; the rest are symbols.

    A Jacobian maps over the size of its input.
    """
    case = CASES[name]
    traced = make_fx(case.transform(square_of_sine), tracing_mode="symbolic")(randn(4, 3))
    maps_rows = "vmap" in name
    maps_entries = name in ("vmap-vmap", "jacrev", "jacfwd", "hessian", "vmap-hessian")
    maps_entries = maps_entries or name == "grad-vmap-grad-vmap"
    for shape in [(4, 3)] + [(6, 3)] * (not maps_rows) + [(4, 5)] * (not maps_entries):
        x = randn(*shape)
        assert_close(traced(x), case.expected(x))


@pytest.mark.parametrize("name", CASES)
def test_fake_tensors(name):
    """Made in the mode, or from real ones outside of it: nothing runs, but the shapes are right."""
    x, case = randn(4, 3), CASES[name]
    expected, transformed = case.expected(x), case.transform(square_of_sine)
    mode = FakeTensorMode()
    outside = transformed(mode.from_tensor(x))
    with mode:
        inside = transformed(randn(4, 3))
    for fake in (outside, inside):
        assert isinstance(fake, FakeTensor)
        assert (fake.shape, fake.dtype) == (expected.shape, expected.dtype)


# ---- torch.export -------------------------------------------------------------------------------


class Calls(torch.nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


@pytest.mark.parametrize("name", ["vmap", "jvp", "jacrev", "vmap-grad", "hessian"])
def test_export_of_what_make_fx_recorded(name):
    x, case = randn(4, 3), CASES[name]
    recorded = functx.make_fx(case.transform(square_of_sine))(x)
    exported = torch.export.export(recorded, (x,)).module()
    fresh = randn(4, 3)
    assert_close(exported(fresh), case.expected(fresh))


@pytest.mark.parametrize("name", ["vmap", "jvp", "vmap-grad"])
def test_export_says_what_to_do(name):
    x, case = randn(4, 3), CASES[name]
    with pytest.raises(NotImplementedError, match=r"functx\.(vmap|jvp): torch\.export.*make_fx"):
        torch.export.export(Calls(case.transform(square_of_sine)), (x,), strict=False)
    assert functx._C.level_depth() == 0


@pytest.mark.parametrize("name", ["grad", "vjp", "grad-grad"])
def test_export_of_reverse_mode(name):
    """Which has no wrappers to record."""
    x, case = randn(4, 3), CASES[name]
    exported = torch.export.export(Calls(case.transform(square_of_sine)), (x,), strict=False)
    fresh = randn(4, 3)
    assert_close(exported.module()(fresh), case.expected(fresh))


def test_one_graph():
    x = torch.randn(3)
    traced = make_fx(functx.vmap(functx.grad(lambda x: x.sin() * x)))(x)
    assert_expected_inline(
        traced.code.strip(),
        """\
def forward(self, x_1):
    permute = torch.ops.aten.permute.default(x_1, [0]);  x_1 = None
    sin = torch.ops.aten.sin.default(permute)
    mul = torch.ops.aten.mul.Tensor(sin, permute)
    ones_like = torch.ops.aten.ones_like.default(mul);  mul = None
    mul_1 = torch.ops.aten.mul.Tensor(ones_like, sin);  sin = None
    mul_2 = torch.ops.aten.mul.Tensor(ones_like, permute);  ones_like = None
    cos = torch.ops.aten.cos.default(permute);  permute = None
    mul_3 = torch.ops.aten.mul.Tensor(mul_2, cos);  mul_2 = cos = None
    add = torch.ops.aten.add.Tensor(mul_1, mul_3);  mul_1 = mul_3 = None
    return add""",
    )
