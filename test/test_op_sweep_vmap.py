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


def parametrize(names=ENTRIES):
    return pytest.mark.parametrize("name", sorted(names))


def check(name, outcome):
    assert not outcome.wrong, outcome.wrong[0]
    reason = REFUSED.get(name)
    for error in outcome.errors:
        assert reason is not None, error
        assert re.search(reason.message, error), error
    assert outcome.loops <= set(LOOPS)


def entry(name, dtype):
    op = ENTRIES[name]
    if dtype not in op.dtypes:
        pytest.skip(f"{name} does not take {dtype}")
    return op


@parametrize()
def test_few_samples(name):
    check(name, sweep(entry(name, torch.float32), torch.float32, functx, FEW))


@pytest.mark.slow
@parametrize()
def test_every_sample(name):
    check(name, sweep(entry(name, torch.float32), torch.float32, functx))


@parametrize()
@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.complex64, torch.bfloat16, torch.float64], ids=str
)
def test_dtypes(name, dtype):
    check(name, sweep(entry(name, dtype), dtype, functx, FEW, shifts=(1,)))


@parametrize()
@pytest.mark.parametrize("variant", ["method", "inplace", "out"])
def test_variants(name, variant):
    op = entry(name, torch.float32)
    if variant_of(op, variant) is None:
        pytest.skip(f"{name} has no {variant} variant")
    check(name, sweep(op, torch.float32, functx, FEW, shifts=(1,), variant=variant))


@parametrize()
def test_nested(name):
    check(name, sweep_nested(entry(name, torch.float32), torch.float32, functx, FEW))


@parametrize()
def test_vjp(name):
    check(name, sweep_vjp(entry(name, torch.float64), torch.float64, functx, FEW))


@pytest.mark.slow
@parametrize()
def test_vjp_of_every_sample(name):
    check(name, sweep_vjp(entry(name, torch.float64), torch.float64, functx))
