"""Tensor subclasses as values: of __torch_dispatch__, of __torch_function__, and PyTorch's own."""

import logging

import pytest
import torch
from _closed_forms import CASES, square_of_sine
from _reference import autograd_grad, autograd_jacobian, forward_ad_jvp, randn
from torch.masked import masked_tensor
from torch.testing import assert_close
from torch.testing._internal.logging_tensor import LoggingTensor
from torch.testing._internal.two_tensor import TwoTensor

import functx

each = pytest.mark.parametrize("name", CASES)

# ---- __torch_dispatch__ -------------------------------------------------------------------------


@each
def test_two_tensors_in_one(name):
    """Every operator runs on both; and they are told apart to the end."""
    a, b, case = randn(4, 3), randn(4, 3), CASES[name]
    actual = case.transform(square_of_sine)(TwoTensor(a, b))
    assert type(actual) is TwoTensor
    assert_close((actual.a, actual.b), (case.expected(a), case.expected(b)))


@each
def test_a_subclass_that_logs(name, caplog):
    # Its records cannot be formatted: where a module imported before this one turned logging up
    # to INFO, pytest would raise on them.
    caplog.set_level(logging.WARNING, "LoggingTensor")
    x, case = randn(4, 3), CASES[name]
    actual = case.transform(square_of_sine)(LoggingTensor(x))
    assert type(actual) is LoggingTensor
    assert_close(actual.elem, case.expected(x))


PER_SAMPLE = {
    "vmap": (
        lambda f, w, xs: functx.vmap(f, (None, 0))(w, xs),
        lambda f, w, xs: torch.stack([f(w, x) for x in xs]),
    ),
    "vmap-grad": (
        lambda f, w, xs: functx.vmap(functx.grad(f), (None, 0))(w, xs),
        lambda f, w, xs: torch.stack([autograd_grad(lambda w, x=x: f(w, x), w)[0] for x in xs]),
    ),
    "grad": (
        lambda f, w, xs: functx.grad(f)(w, xs[0]),
        lambda f, w, xs: autograd_grad(lambda w: f(w, xs[0]), w)[0],
    ),
    "jacrev-in-plain": (
        lambda f, w, xs: functx.jacrev(lambda x: (w @ x).sin())(xs[0]),
        lambda f, w, xs: autograd_jacobian(lambda x: (w @ x).sin(), xs[0])[0],
    ),
    "jvp-in-plain": (
        lambda f, w, xs: functx.jvp(lambda x: f(w, x), (xs[0],), (xs[1],))[1],
        lambda f, w, xs: forward_ad_jvp(lambda x: f(w, x), (xs[0],), (xs[1],))[1],
    ),
    "vmap-jvp-in-plain": (
        lambda f, w, xs: functx.vmap(lambda x: functx.jvp(lambda x: f(w, x), (x,), (x,))[1])(xs),
        lambda f, w, xs: torch.stack(
            [forward_ad_jvp(lambda x: f(w, x), (x,), (x,))[1] for x in xs]
        ),
    ),
}


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_together_with_plain_tensors(name):
    """A weight of the subclass, and data without."""
    program, reference = PER_SAMPLE[name]
    f = lambda w, x: (w @ x).sin().sum()
    a, b, xs = randn(3, 3), randn(3, 3), randn(4, 3)
    actual = program(f, TwoTensor(a, b), xs)
    assert_close((actual.a, actual.b), (reference(f, a, xs), reference(f, b, xs)))


def test_parameters_of_a_module():
    model, x = torch.nn.Linear(3, 2).double(), randn(4, 3)
    a, b = randn(2, 3), randn(2, 3)
    model.weight = torch.nn.Parameter(TwoTensor(a, b))

    def loss(parameters, x):
        return functx.functional_call(model, parameters, (x,)).sin().sum()

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    weight = functx.vmap(functx.grad(loss), (None, 0))(parameters, x)["weight"]
    for actual, value in ((weight.a, a), (weight.b, b)):
        slopes = (x @ value.T + model.bias.detach()).cos()
        assert_close(actual, slopes[:, :, None] * x[:, None])


# ---- __torch_function__ -------------------------------------------------------------------------


class Counting(torch.Tensor):
    calls = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        Counting.calls += 1
        return super().__torch_function__(func, types, args, kwargs or {})


class Named(torch.Tensor):
    """With an attribute, and nothing else."""

    label = "a"


@each
@pytest.mark.parametrize("kind", [Counting, Named])
def test_a_python_class(name, kind):
    """As from torch.func, what comes out are plain tensors."""
    x, case = randn(4, 3), CASES[name]
    actual = case.transform(square_of_sine)(x.as_subclass(kind))
    assert type(actual) is torch.Tensor
    assert_close(actual, case.expected(x))


def test_a_python_class_in_the_closure_still_sees_the_calls():
    scale, x = randn(3).as_subclass(Counting), randn(4, 3)
    before = Counting.calls
    actual = functx.vmap(functx.grad(lambda x: (scale * x).sin().sum()))(x)
    assert Counting.calls > before
    plain = scale.as_subclass(torch.Tensor)
    assert_close(actual.as_subclass(torch.Tensor), plain * (plain * x).cos())


@each
@pytest.mark.parametrize("kind", [torch.nn.Parameter, torch.nn.Buffer])
def test_parameters_and_buffers(name, kind):
    x, case = randn(4, 3), CASES[name]
    actual = case.transform(square_of_sine)(kind(x.clone()))
    assert actual.requires_grad == (kind is torch.nn.Parameter)
    assert_close(actual.detach(), case.expected(x))


def test_a_parameter_made_inside():
    """A tensor of its own, for each example."""
    x = randn(4, 3)

    def f(x):
        weight = torch.nn.Parameter(x)
        assert isinstance(weight, torch.nn.Parameter)
        return weight.sin().sum()

    assert_close(functx.vmap(f)(x).detach(), x.sin().sum(1))


# ---- masked and nested tensors ------------------------------------------------------------------


def test_masked_tensors():
    """Prototypes with few operators: right where these suffice."""
    data = randn(4, 3)
    x = masked_tensor(data, data > 0)
    gradient = functx.grad(lambda x: x.sin().sum())(x)
    output, tangent = functx.jvp(torch.sin, (x,), (x,))
    (product,) = functx.vjp(torch.sin, x)[1](x)
    pairs = [(gradient, data.cos()), (output, data.sin()), (functx.vmap(torch.sin)(x), data.sin())]
    pairs += [(each, data * data.cos()) for each in (tangent, product)]
    for actual, expected in pairs:
        assert (actual.get_mask() == (data > 0)).all()
        assert_close(actual.get_data()[data > 0], expected[data > 0])
    with pytest.raises(TypeError, match="MaskedTensor"):
        functx.vmap(torch.sin, in_dims=1)(x)


def nested(layout):
    return torch.nested.nested_tensor([randn(2, 3), randn(4, 3)], layout=layout)


def test_nested_tensors():
    x = nested(torch.jagged)
    gradient = functx.grad(lambda x: x.sin().values().sum())(x)
    assert_close(gradient.values(), x.values().cos())
    output, tangent = functx.jvp(torch.sin, (x,), (x,))
    assert_close(output.values(), x.values().sin())
    assert_close(tangent.values(), x.values() * x.values().cos())
    assert_close(functx.vmap(torch.sin)(x).values(), x.values().sin())


@pytest.mark.parametrize("transform", ["vmap", "jvp"])
def test_nested_tensors_without_a_shape(transform):
    x = nested(torch.strided)
    call = {
        "vmap": lambda: functx.vmap(torch.sin)(x),
        "jvp": lambda: functx.jvp(torch.sin, (x,), (x,)),
    }[transform]
    with pytest.raises(NotImplementedError, match=rf"{transform}.*nested tensor.*jagged"):
        call()
    assert functx._C.level_depth() == 0


def test_nested_tensors_made_inside():
    x = randn(4, 3)
    with pytest.raises(NotImplementedError, match="nested tensor"):
        functx.vmap(lambda x: torch.nested.as_nested_tensor([x, x]))(x)
