"""Default dtypes and devices: what a transform makes for itself must not follow them."""

import contextlib

import pytest
import torch
from _closed_forms import CASES, square_of_sine
from torch.testing import assert_close

import functx

each = pytest.mark.parametrize("name", CASES)


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


def with_factories(x):
    """The square of the sine, by way of tensors that are made inside."""
    one, zero = torch.ones(()), torch.tensor(0.0)
    return square_of_sine(x) * one + zero * torch.eye(3)[0, 1] + torch.zeros_like(x)


@each
@pytest.mark.parametrize("input_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("default", [torch.float32, torch.float64, torch.bfloat16])
def test_the_dtype_is_that_of_the_input(name, default, input_dtype):
    x, case = torch.randn(4, 3, dtype=input_dtype), CASES[name]
    expected = case.expected(x)
    with default_dtype(default):
        actual = case.transform(square_of_sine)(x)
    assert_close(actual, expected)


@each
def test_factories_inside_follow_the_default_dtype(name):
    x, case = torch.randn(4, 3, dtype=torch.float64), CASES[name]
    with default_dtype(torch.float64):
        assert_close(case.transform(with_factories)(x), case.expected(x))
        made = functx.vmap(lambda x: (torch.ones(2), torch.tensor(0.5)))(x)
        assert [t.dtype for t in made] == [torch.float64] * 2


@each
def test_a_default_device_does_not_reach_what_a_transform_makes(name):
    """A seed, a basis, a tangent: they go with the input."""
    x, case = torch.randn(4, 3), CASES[name]
    for context in (torch.device("meta"), default_device("meta")):
        with context:
            actual = case.transform(lambda x: x.sin().square())(x)
        assert_close(actual, case.expected(x))


@each
def test_everything_on_the_meta_device(name):
    x, case = torch.randn(4, 3), CASES[name]
    expected = case.expected(x)
    with torch.device("meta"):
        actual = case.transform(with_factories)(x.to("meta"))
    assert actual.device.type == "meta"
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)


def test_modules_on_the_meta_device_as_a_skeleton():
    """The usual way to call an ensemble: the parameters are elsewhere."""
    models = [torch.nn.Linear(3, 2) for _ in range(4)]
    parameters, buffers = functx.stack_module_state(models)
    with torch.device("meta"):
        skeleton = torch.nn.Linear(3, 2)
    x = torch.randn(5, 3)
    call = lambda p, b, x: functx.functional_call(skeleton, (p, b), (x,))
    actual = functx.vmap(call, (0, 0, None))(parameters, buffers, x)
    assert_close(actual, torch.stack([model(x) for model in models]))
