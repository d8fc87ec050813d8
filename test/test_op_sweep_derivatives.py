"""Every operator of PyTorch's `op_db` under jvp, vjp and their compositions.

The references are differences and plain autograd, as `_derivatives` says. What is refused, and what
is not the derivative of the function, is named in `_derivative_exceptions` with its reason.

The slow tests take a few samples of each operator. FUNCTX_SWEEP_SAMPLES=n takes up to n instead, 0
all that there are; `docs/make_coverage.py forward_ad` compares with torch.func.
"""

import os
import re

import pytest
import torch
from _derivative_exceptions import WRONG_IN_PYTORCH, reason_to_refuse
from _derivatives import AS_IN_PYTORCH
from _op_db import ENTRIES
from _op_exceptions import LOOPS
from _op_sweep_derivatives import sweep

import functx

F64, C128 = torch.float64, torch.complex128

# How many samples of each operator.
REAL = {
    "jvp": 6,
    "vjp": 2,
    "vmap(jvp)": 3,
    "jvp(vjp)": 3,
    "vjp(vjp)": 3,
    "jvp(jvp)": 2,
    "vjp(jvp)": 2,
    "vmap(jvp(vjp))": 2,
    "jvp(vmap)": 2,
    "vjp(vmap)": 2,
    "jacfwd": 1,
    "jacrev": 1,
    "jacfwd(jacfwd)": 1,
    "jacrev(jacfwd)": 1,
    "jacfwd(jacrev)": 1,
    "jacrev(jacrev)": 1,
}
COMPLEX = {"jvp": 2, "vmap(jvp)": 2, "jvp(vjp)": 2, "vjp(vjp)": 2}


def parametrize(dtype):
    names = [name for name, op in ENTRIES.items() if dtype in op.dtypes]
    return pytest.mark.parametrize("name", sorted(names))


def check(kind, name, outcome):
    for error in outcome.wrong:
        assert name in WRONG_IN_PYTORCH.get(kind, ()), error
        assert AS_IN_PYTORCH in error, error
    for error in outcome.errors:
        reason = reason_to_refuse(kind, name)
        assert reason is not None, error
        assert re.search(reason.message, error), error
    assert outcome.loops <= set(LOOPS)


@parametrize(F64)
def test_jvp_of_one_sample(name):
    check("jvp", name, sweep("jvp", ENTRIES[name], F64, functx, 1))


def samples(count):
    return int(os.environ.get("FUNCTX_SWEEP_SAMPLES", count)) or None


# For each operator all kinds, one after the other.
@pytest.mark.slow
@pytest.mark.parametrize("kind", REAL)
@parametrize(F64)
def test_real(name, kind):
    check(kind, name, sweep(kind, ENTRIES[name], F64, functx, samples(REAL[kind])))


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMPLEX)
@parametrize(C128)
def test_complex(name, kind):
    check(kind, name, sweep(kind, ENTRIES[name], C128, functx, samples(COMPLEX[kind])))
