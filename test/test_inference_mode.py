"""Transforms inside `torch.inference_mode()`, which keeps autograd from what is made in it.

A transform differentiates all the same, by what was made outside of the mode and inside of it.
"""

import pytest
import torch
from _closed_forms import CASES, square_of_sine
from _reference import randn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import functx


def written(x):
    """The square of the sine, put together in a fresh tensor."""
    out = torch.zeros_like(x)
    out[...] = x
    out.sin_()
    out.mul_(out.clone())
    return out


def by_views(x):
    return x.sin().view(-1).square().view(x.shape)


def checkpointed(x):
    return checkpoint(square_of_sine, x, use_reentrant=False)


PROGRAMS = {f.__name__: f for f in (square_of_sine, written, by_views, checkpointed)}


@pytest.mark.parametrize("made_inside", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", CASES)
def test_every_composition(name, program, made_inside):
    x = randn(4, 3)
    with torch.inference_mode():
        argument = x.clone() if made_inside else x
        actual = CASES[name].transform(PROGRAMS[program])(argument)
    assert_close(actual, CASES[name].expected(x))


@pytest.mark.parametrize("made_inside", [False, True])
def test_a_value_of_vmap_that_a_grad_inside_saves(made_inside):
    def f(x):
        slope = x.cos()
        return functx.grad(lambda y: (y.square() * slope).sum())(x)

    x = randn(4, 3)
    with torch.inference_mode():
        actual = functx.vmap(f)(x.clone() if made_inside else x)
    assert_close(actual, 2 * x * x.cos())


def test_a_captured_tensor():
    """Not one that was made inside: autograd saves none of those, it says."""
    x, w = randn(4, 3), randn(3)
    with torch.inference_mode():
        per_sample = functx.vmap(functx.grad(lambda x: (x.square() * w).sum()))(x)
        product = functx.jvp(functx.grad(lambda x: (x.square() * w).sum()), (x,), (x,))[1]
    assert_close(per_sample, 2 * x * w)
    assert_close(product, 2 * x * w)


def test_grad_inside_a_transform_that_was_left_by_the_mode():
    """The mode entered inside of a transform."""

    def f(x):
        with torch.inference_mode():
            return functx.grad(lambda x: x.square().sum())(x)

    x = randn(4, 3)
    assert_close(functx.vmap(f)(x), 2 * x)
    assert_close(functx.jvp(f, (x,), (x,))[0], 2 * x)
