"""Whether something outside of a level can see its results: the leaves that are asked about."""

import pytest
import torch
from _reference import randn
from torch.testing import assert_close

import functx

IDENTITIES = {
    "Identity": torch.nn.Identity(),
    "Dropout": torch.nn.Dropout(0.5).eval(),
    "contiguous": lambda x: x.contiguous(),
    "to": lambda x: x.to(x.dtype),
    "return": lambda x: x,
    "view": lambda x: x.view_as(x),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_function_that_returns_its_input(name):
    f, x = IDENTITIES[name], randn(3)
    for _ in range(20):  # what was freed may be as it was
        output, pullback = functx.vjp(f, x)
        assert not output.requires_grad
        assert not pullback(x)[0].requires_grad
        output, jvp_fn = functx.linearize(f, x)
        assert not output.requires_grad
        assert not jvp_fn(x).requires_grad
        gradient, value = functx.grad_and_value(lambda x: f(x[0]).sum())(x[None])
        assert not gradient.requires_grad
        assert not value.requires_grad
        gradient, aux = functx.grad(lambda x: (x.sum(), f(x)), has_aux=True)(x)
        assert not gradient.requires_grad
        assert not aux.requires_grad
        assert not functx.jacrev(f)(x).requires_grad


def kept_inside(make):
    """What `make` makes of the input of a transform, kept when that is over."""

    def leaf(x):
        kept = []
        functx.grad(lambda x: (kept.append(make(x)), x.sum())[1])(x)
        return kept[0]

    return leaf


LEAVES = {
    "detached": kept_inside(lambda x: x.detach().requires_grad_()),
    "parameter": kept_inside(lambda x: torch.nn.Parameter(x.detach())),
    "data": kept_inside(lambda x: x.data.requires_grad_()),
    "output": lambda x: functx.vjp(torch.clone, x)[0].requires_grad_(),
    "identity": lambda x: functx.vjp(lambda x: x, x)[0].requires_grad_(),
    "aux": lambda x: functx.grad(lambda x: (x.sum(), x), has_aux=True)(x)[1].requires_grad_(),
    "value": lambda x: functx.grad_and_value(torch.clone)(x[0])[1].requires_grad_(),
    "parameter of aux": lambda x: torch.nn.Parameter(
        functx.grad(lambda x: (x.sum(), x * 2), has_aux=True)(x)[1].detach()
    ),
}


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_made_from_the_tensors_of_a_transform(name):
    """It is the user's, as any other, when the transform is over."""
    x = randn(3)
    leaf = LEAVES[name](x)
    result = functx.grad(lambda y: (y * leaf).sin().sum())(x)
    assert result.requires_grad
    plain = x.detach().requires_grad_()
    expected = torch.autograd.grad((plain * leaf).sin().sum(), plain, create_graph=True)[0]
    assert_close(result, expected)
    assert_close(
        torch.autograd.grad(result.sum(), leaf)[0], torch.autograd.grad(expected.sum(), leaf)[0]
    )


def test_an_input_that_the_function_kept_is_a_leaf_afterwards():
    kept = []
    x = randn(3)
    functx.grad(lambda x: (kept.append(x), (x * x).sum())[1])(x)
    result = functx.grad(lambda y: (y * kept[0]).sum())(x)
    assert result.requires_grad
    assert_close(torch.autograd.grad(result.sum(), kept[0])[0], torch.ones(3, dtype=x.dtype))


def test_a_constant_that_outlives_its_transform_is_its_value():
    """A cache filled inside of one is used by the next, and outside."""
    cache = {}

    def rotated(x):
        if "t" not in cache:
            cache["t"] = torch.arange(3.0, dtype=x.dtype).cos() + torch.zeros(3, dtype=x.dtype)
        return (x * cache["t"]).sin().sum()

    x, expected = randn(3), torch.arange(3.0).double().cos()
    calls = {
        "jvp": lambda: functx.jvp(rotated, (x,), (x,)),
        "vmap-grad": lambda: functx.vmap(functx.grad(rotated))(x[None]),
        "jacfwd": lambda: functx.jacfwd(rotated)(x),
        "hessian": lambda: functx.hessian(rotated)(x),
        "vmap-jvp": lambda: functx.vmap(lambda x: functx.jvp(rotated, (x,), (x,)))(x[None]),
    }
    for first in calls.values():
        cache.clear()
        first()
        for second in calls.values():
            second()
            assert_close(cache["t"] * 1, expected)
        assert_close(torch.tensor(cache["t"].tolist(), dtype=x.dtype), expected)
        assert cache["t"].numpy().tolist() == pytest.approx(expected.tolist())
        assert_close(functx.grad(lambda t: (t * t).sum())(cache["t"]), 2 * expected)
        assert_close(functx.vmap(torch.sin)(cache["t"]), expected.sin())
        assert_close(functx.jvp(torch.sin, (cache["t"],), (x,))[0], expected.sin())
        cache["t"].add_(1)
        assert_close(cache["t"] * 1, expected + 1)


def test_many_outputs_share_one_walk():
    x = randn(300)
    outputs, pullback = functx.vjp(lambda x: tuple(x.sin().unbind()), x)
    assert not any(output.requires_grad for output in outputs)
    assert_close(pullback(tuple(torch.ones_like(o) for o in outputs))[0], x.cos())
    w = randn(300).requires_grad_()
    outputs, _ = functx.vjp(lambda x: (*x.sin().unbind(), *(x * w)[:2].unbind()), x)
    assert [output.requires_grad for output in outputs] == [False] * 300 + [True] * 2
