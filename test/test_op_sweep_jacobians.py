"""jacrev of every operator of PyTorch's `op_db` in single and half precision, by two layouts, with
oneDNN and without. Jacobians in double precision are in test_op_sweep_derivatives."""

import re

import pytest
import torch
from _derivative_exceptions import reason_to_refuse
from _op_db import ENTRIES
from _op_sweep_jacobians import sweep

import functx

CASES = [
    (torch.float32, "contiguous", True),
    (torch.float32, "channels_last", True),
    (torch.float32, "transposed", False),
    (torch.bfloat16, "contiguous", True),
]
NAMES = sorted(
    name for name, op in ENTRIES.items() if op.supports_autograd and torch.float32 in op.dtypes
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_jacrev(name):
    for dtype, layout, onednn in CASES:
        if dtype not in ENTRIES[name].dtypes:
            continue
        outcome = sweep(ENTRIES[name], dtype, functx, layout, onednn, limit=3)
        where = f"{dtype}, {layout}, oneDNN {onednn}: "
        assert not outcome.wrong, where + outcome.wrong[0]
        for error in outcome.errors:
            reason = reason_to_refuse("jacrev", name)
            assert reason is not None, where + error
            assert re.search(reason.message, error), where + error
