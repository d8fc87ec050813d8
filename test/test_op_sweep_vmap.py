"""Every operator of PyTorch's `op_db` under vmap, against a loop and `stack`.

`_op_exceptions` names what is refused and what runs in a loop, each with its reason.
"""

import re

import pytest
import torch
from _op_db import ENTRIES
from _op_exceptions import LOOPS, REFUSED
from _op_sweep import sweep, sweep_nested, sweep_vjp, variant_of

import functx

FEW = 4


F32, F64 = torch.float32, torch.float64


def parametrize(dtype, applies=lambda op: True):
    names = [name for name, op in ENTRIES.items() if dtype in op.dtypes and applies(op)]
    return pytest.mark.parametrize("name", sorted(names))


def check(name, outcome):
    assert not outcome.wrong, outcome.wrong[0]
    reason = REFUSED.get(name)
    for error in outcome.errors:
        assert reason is not None, error
        assert re.search(reason.message, error), error
    assert outcome.loops <= set(LOOPS)


@parametrize(F32)
def test_one_sample(name):
    check(name, sweep(ENTRIES[name], F32, functx, 1))


@parametrize(F64)
def test_vjp_of_one_sample(name):
    check(name, sweep_vjp(ENTRIES[name], F64, functx, 1))


@pytest.mark.slow
@parametrize(F32)
def test_every_sample(name):
    check(name, sweep(ENTRIES[name], F32, functx))


def sweep_of_dtype(dtype):
    @pytest.mark.slow
    @parametrize(dtype)
    def test(name):
        check(name, sweep(ENTRIES[name], dtype, functx, FEW, shifts=(1,)))

    return test


test_int64 = sweep_of_dtype(torch.int64)
test_bool = sweep_of_dtype(torch.bool)
test_complex64 = sweep_of_dtype(torch.complex64)
test_bfloat16 = sweep_of_dtype(torch.bfloat16)
test_float64 = sweep_of_dtype(torch.float64)


def sweep_of_variant(variant):
    @pytest.mark.slow
    @parametrize(F32, lambda op: variant_of(op, variant) is not None)
    def test(name):
        check(name, sweep(ENTRIES[name], F32, functx, FEW, shifts=(1,), variant=variant))

    return test


test_methods = sweep_of_variant("method")
test_inplace = sweep_of_variant("inplace")
test_out = sweep_of_variant("out")


@pytest.mark.slow
@parametrize(F32)
def test_nested(name):
    check(name, sweep_nested(ENTRIES[name], F32, functx, FEW))


@pytest.mark.slow
@parametrize(F64)
def test_vjp_of_every_sample(name):
    check(name, sweep_vjp(ENTRIES[name], F64, functx))
