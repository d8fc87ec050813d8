"""TorchFunctionMode and TorchDispatchMode around transforms and inside of them.

A function mode sees what the function calls, as it calls it; a dispatch mode sees the operators
that run, on plain tensors.
"""

import pytest
import torch
from _closed_forms import CASES, square_of_sine
from _reference import randn
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.testing._internal.logging_tensor import LoggingTensorMode, capture_logs
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import functx

aten = torch.ops.aten
each = pytest.mark.parametrize("name", CASES)


class Functions(TorchFunctionMode):
    """Keeps the names of what is called, and what shape its first argument had."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        shape = tuple(args[0].shape) if args and isinstance(args[0], torch.Tensor) else None
        self.calls.append((func.__name__, shape))
        return func(*args, **(kwargs or {}))


class Operators(TorchDispatchMode):
    """Keeps the operators that run."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        assert not any(functx._C.is_wrapper(x) for x in tensors)
        self.calls.append((func, tuple(tensors[0].shape) if tensors else ()))
        return func(*args, **(kwargs or {}))


class CosineForSine(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        func = torch.Tensor.cos if func is torch.Tensor.sin else func
        return func(*args, **(kwargs or {}))


class DoubleSine(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return result * 2 if func is aten.sin.default else result


def inside(mode, f):
    def g(x):
        with mode:
            return f(x)

    return g


@each
@pytest.mark.parametrize("make", [Functions, Operators])
def test_modes_that_watch(name, make):
    x, case = randn(4, 3), CASES[name]
    expected = case.expected(x)
    with make() as mode:
        actual = case.transform(square_of_sine)(x)
    assert_close(actual, expected)
    assert mode.calls
    mode.calls.clear()
    assert_close(case.transform(inside(mode, square_of_sine))(x), expected)
    assert mode.calls


def test_a_function_mode_sees_the_calls_of_one_example():
    x = randn(4, 3)
    around, within = Functions(), Functions()
    f = inside(within, lambda x: square_of_sine(x).sum())
    with around:
        functx.vmap(functx.grad(f))(x)
    calls = [("sin", (3,)), ("square", (3,)), ("sum", (3,))]
    assert within.calls == calls
    assert [call for call in around.calls if call in calls] == calls


def test_a_dispatch_mode_sees_the_operators_of_the_batch():
    x = randn(4, 3)
    with Operators() as around:
        functx.vmap(functx.grad(lambda x: square_of_sine(x).sum()))(x)
    assert (aten.sin.default, (4, 3)) in around.calls
    assert (aten.cos.default, (4, 3)) in around.calls  # of the backward pass
    within = Operators()
    functx.vmap(inside(within, torch.sin))(x)
    assert within.calls == [(aten.sin.default, (4, 3))]
    within = Operators()
    functx.jvp(inside(within, torch.sin), (x,), (x,))
    operators = [func for func, _ in within.calls]
    assert operators == [aten.sin.default, aten.cos.default, aten.mul.Tensor]


def test_a_function_mode_that_changes_the_function():
    """Its derivative is that of what it made of the function."""
    x = randn(4, 3)
    f = inside(CosineForSine(), lambda x: x.sin().sum())
    assert_close(functx.vmap(functx.grad(f))(x), -x.sin())
    assert_close(functx.hessian(f)(x[0]), -x[0].cos().diag())
    with CosineForSine():
        mapped = functx.vmap(lambda x: x.sin())(x)
        _, tangent = functx.jvp(torch.Tensor.sin, (x,), (x,))
    assert_close((mapped, tangent), (x.cos(), -x.sin() * x))


def test_a_dispatch_mode_that_changes_values():
    """It is below autograd, which does not know; so it is in plain PyTorch."""
    x = randn(4, 3)
    f = inside(DoubleSine(), lambda x: x.sin().square())
    assert_close(functx.vmap(f)(x), 4 * x.sin().square())
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(f(leaf).sum(), leaf)
    assert_close(functx.grad(lambda x: f(x).sum())(x), expected)
    assert_close(functx.vmap(functx.grad(lambda x: f(x).sum()))(x), expected)


def test_flops_are_those_of_the_batch():
    weight, xs = randn(3, 3), randn(5, 3)
    with FlopCounterMode(display=False) as counter:
        functx.vmap(lambda x: weight @ x)(xs)
    assert counter.get_total_flops() == 2 * 5 * 3 * 3


def test_the_logging_mode_of_pytorch():
    with capture_logs() as logs, LoggingTensorMode():
        functx.vmap(torch.sin)(randn(4, 3))
    assert any("aten.sin" in line for line in logs)


@pytest.mark.parametrize("name", ["vmap", "jvp", "vmap-grad", "hessian"])
def test_an_error_in_a_mode(name):
    class Refuses(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            raise KeyError(func)

    x, case = randn(4, 3), CASES[name]
    with pytest.raises(KeyError):
        case.transform(inside(Refuses(), square_of_sine))(x)
    assert functx._C.level_depth() == 0
    assert_close(case.transform(square_of_sine)(x), case.expected(x))
