"""jacrev of every operator of PyTorch's `op_db` in single and half precision, by two layouts, with
oneDNN and without. Jacobians in double precision are in test_op_sweep_derivatives."""

import re

import pytest
import torch
from _derivative_exceptions import reason_to_refuse
from _op_db import ENTRIES
from _op_exceptions import Reason
from _op_sweep_jacobians import sweep

import functx

CASES = [
    (torch.float32, "contiguous", True),
    (torch.float32, "channels_last", True),
    (torch.float32, "transposed", False),
    (torch.bfloat16, "contiguous", True),
]
# The reference is plain autograd, in which mean and rstd have no gradient. Here they have one.
NO_REFERENCE = {"native_group_norm"}
# By numbers at other places in memory, PyTorch's formula is not the derivative, and vjp has it.
WRONG_UNLESS_CONTIGUOUS = {"as_strided_scatter"}
# By definition: Jacobians are of real results.
COMPLEX = Reason("jacrev is of real results", "Expected all outputs to be real")
REFUSED = {
    "nn.functional.linear_cross_entropy.chunked_none": Reason(
        "PyTorch's backward pass writes into a buffer that all cotangents would share",
        "the same for every example",
    ),
}
NAMES = sorted(
    name
    for name, op in ENTRIES.items()
    if op.supports_autograd and torch.float32 in op.dtypes and name not in NO_REFERENCE
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_jacrev(name):
    for dtype, layout, onednn in CASES:
        if dtype not in ENTRIES[name].dtypes:
            continue
        if layout == "transposed" and name in WRONG_UNLESS_CONTIGUOUS:
            continue
        outcome = sweep(ENTRIES[name], dtype, functx, layout, onednn, limit=3)
        where = f"{dtype}, {layout}, oneDNN {onednn}: "
        assert not outcome.wrong, where + outcome.wrong[0]
        for error in outcome.errors:
            reasons = COMPLEX, REFUSED.get(name), reason_to_refuse("jacrev", name)
            messages = [reason.message for reason in reasons if reason]
            assert any(re.search(message, error) for message in messages), where + error
