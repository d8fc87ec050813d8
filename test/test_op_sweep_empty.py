"""Every operator of PyTorch's `op_db` on batches of no examples and on examples of no elements.

Each kind of sweep runs in child processes, of which one that ends is a failure that names the
operator. FUNCTX_SWEEP_SAMPLES=n takes up to n samples of each operator, 0 all that there are.
"""

import os
import re

import pytest
from _derivative_exceptions import reason_to_refuse
from _op_db import ENTRIES
from _op_exceptions import REFUSED
from _op_sweep_empty import EMPTY_BATCH, KINDS, Death, sweep_in_children

SHARDS = 4
NAMES = sorted(name for name, op in ENTRIES.items() if op.dtypes)


def samples(count):
    return int(os.environ.get("FUNCTX_SWEEP_SAMPLES", count)) or None


def reason_for(kind, name):
    return REFUSED.get(name) or reason_to_refuse(kind, name)


def complaints(kind, results):
    for name, outcome in results.items():
        if isinstance(outcome, Death):
            if outcome.in_functx:
                yield f"{name}: {outcome.signal}"
            continue
        yield from (f"{name}: {error}" for error in outcome.wrong)
        reason = reason_for(kind, name)
        for error in outcome.errors:
            if reason is None or not re.search(reason.message, error):
                yield f"{name}: {error}"


def check(kind, names, limit):
    assert not list(complaints(kind, sweep_in_children(kind, names, limit)))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_vmap_of_one_sample(shard):
    check("vmap", NAMES[shard::SHARDS], 1)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_samples(kind, shard):
    check(kind, NAMES[shard::SHARDS], samples(3 if kind in EMPTY_BATCH else 4))
