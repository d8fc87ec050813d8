"""Fixtures for every test: a fixed seed, and a check that no transform was left open."""

import pytest
import torch

import functx


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_level_left_behind():
    yield
    depth = functx._C.level_depth()
    while (level := functx._C.innermost_level()) is not None:
        functx._C.pop(level)  # one failure must not spoil the tests after it
    assert depth == 0, f"the test left {depth} levels on the stack"
