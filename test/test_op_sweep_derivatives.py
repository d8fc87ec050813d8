"""Every operator of PyTorch's `op_db` under jvp, vjp and their compositions.

The references are differences and plain autograd, as `_derivatives` says. What is refused, and what
is not the derivative of the function, is named in `_derivative_exceptions` with its reason.
"""

import re

import pytest
import torch
from _derivative_exceptions import REFUSED, REFUSED_IN, WRONG_IN_PYTORCH
from _op_db import ENTRIES
from _op_exceptions import LOOPS
from _op_sweep_derivatives import sweep

import functx

F64 = torch.float64


def parametrize(dtype):
    names = [name for name, op in ENTRIES.items() if dtype in op.dtypes]
    return pytest.mark.parametrize("name", sorted(names))


def check(kind, name, outcome):
    if kind != "vjp" or name not in WRONG_IN_PYTORCH:
        assert not outcome.wrong, outcome.wrong[0]
    reason = REFUSED_IN.get(kind, {}).get(name) or REFUSED.get(name)
    for error in outcome.errors:
        assert reason is not None, error
        assert re.search(reason.message, error), error
    assert outcome.loops <= set(LOOPS)


@parametrize(F64)
def test_jvp_of_one_sample(name):
    check("jvp", name, sweep("jvp", ENTRIES[name], F64, functx, 1))
