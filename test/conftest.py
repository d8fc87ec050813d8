"""Fixtures for every test: a fixed seed, and a check that no transform was left open. And those for
tests of operators of the user's own."""

import itertools
import warnings

import pytest
import torch
from _seeds import seed_torch

import functx


@pytest.fixture(autouse=True)
def fixed_seed():
    seed_torch(0)


@pytest.fixture(autouse=True)
def no_level_left_behind():
    yield
    depth = functx._C.level_depth()
    while (level := functx._C.innermost_level()) is not None:
        functx._C.pop(level)  # one failure must not spoil the tests after it
    assert depth == 0, f"the test left {depth} levels on the stack"


counter = itertools.count()


@pytest.fixture
def namespace():
    """The name of a library for this test alone."""
    name = f"functx_custom_{next(counter)}"
    with torch.library._scoped_library(name, "FRAGMENT"):
        yield name


@pytest.fixture
def no_loop():
    """Fails if an operator runs in a loop."""
    before = functx._C.warn_on_loop_fallback(True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*loop over the examples.*")
        yield
    functx._C.warn_on_loop_fallback(before)
