"""LSTMs: in single precision on the CPU, PyTorch runs a layer as one operator of oneDNN."""

import pytest
import torch
from _reference import assert_equal_trees, stack_trees
from torch import nn
from torch.testing import assert_close

import functx

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")

BATCH, LENGTH, N, WIDTH, HIDDEN = 4, 5, 3, 6, 2

KINDS = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True},
    "no biases": {"bias": False},
    "batch first": {"batch_first": True},
}
each = pytest.mark.parametrize("kind", KINDS)


def make(kind):
    torch.manual_seed(0)
    lstm = nn.LSTM(WIDTH, HIDDEN, **KINDS[kind])
    return lstm, {name: value.detach() for name, value in lstm.named_parameters()}


def call(lstm, params, x):
    return functx.functional_call(lstm, params, (x,))


def loss(lstm, params, x):
    output, (h, c) = call(lstm, params, x)
    return output.square().sum() + h.sin().sum() + c.cos().sum()


@each
@pytest.mark.parametrize("shape", [(LENGTH, N, WIDTH), (LENGTH, WIDTH)], ids=["minibatch", "one"])
def test_shared_weights(kind, shape):
    lstm, params = make(kind)
    x = torch.randn(BATCH, *shape)
    actual = functx.vmap(lambda x: call(lstm, params, x))(x)
    with torch.no_grad():
        assert_close(actual, stack_trees([lstm(example) for example in x]))


@each
def test_weights_of_each_example(kind):
    lstm, params = make(kind)
    x = torch.randn(BATCH, LENGTH, N, WIDTH)
    own = {name: torch.randn(BATCH, *value.shape) for name, value in params.items()}
    actual = functx.vmap(lambda params, x: call(lstm, params, x))(own, x)
    expected = [
        torch.func.functional_call(lstm, {name: value[i] for name, value in own.items()}, (x[i],))
        for i in range(BATCH)
    ]
    assert_close(actual, stack_trees(expected))


@each
def test_per_sample_gradients(kind):
    lstm, params = make(kind)
    x = torch.randn(BATCH, LENGTH, N, WIDTH)
    gradient = functx.grad(lambda params, x: loss(lstm, params, x))
    actual = functx.vmap(gradient, in_dims=(None, 0))(params, x)
    expected = []
    for example in x:
        lstm.zero_grad()
        output, (h, c) = lstm(example)
        (output.square().sum() + h.sin().sum() + c.cos().sum()).backward()
        expected.append({name: value.grad.clone() for name, value in lstm.named_parameters()})
    assert_equal_trees(actual, stack_trees(expected))


@each
def test_gradient_through_the_batch(kind):
    lstm, params = make(kind)
    x = torch.randn(BATCH, LENGTH, N, WIDTH)
    actual = functx.grad(lambda x: functx.vmap(lambda x: loss(lstm, params, x))(x).sum())(x)
    leaf = x.clone().requires_grad_()
    output, states = zip(*(lstm(example) for example in leaf), strict=True)
    total = sum(part.square().sum() for part in output)
    total = total + sum(h.sin().sum() + c.cos().sum() for h, c in states)
    assert_close(actual, torch.autograd.grad(total, leaf)[0])


@each
def test_tangent(kind):
    """In double precision PyTorch has no operator for a layer, and so knows its tangent."""
    lstm, params = make(kind)
    x, tangent = torch.randn(2, LENGTH, N, WIDTH)
    _, actual = functx.jvp(lambda x: call(lstm, params, x)[0], (x,), (tangent,))
    lstm.double()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.double(), tangent.double())
        expected = torch.autograd.forward_ad.unpack_dual(lstm(dual)[0]).tangent
    assert_close(actual, expected.float())
