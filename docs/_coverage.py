"""What the coverage pages share: sweeps over `op_db` under functx and torch.func, and tables."""

import collections
import dataclasses
import functools
import multiprocessing
import pathlib
import sys
import warnings

import torch

import functx

DOCS = pathlib.Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "test"))

from _op_db import ENTRIES  # noqa: E402
from _op_sweep import Outcome  # noqa: E402

APIS = {"functx": functx, "torch.func": torch.func}

# From best to worst.
TIERS = ("vectorized", "loop", "error", "wrong", "skipped")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """`run(op, api)` gives an Outcome; an operator that doesn't take `dtype` has no case."""

    run: object
    dtype: torch.dtype


def outcomes_of(name, sweeps):
    """What every sweep gives for one operator: (sweep, api) -> Outcome."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    op = ENTRIES[name]
    return name, {
        (kind, api): sweep.run(op, module) if sweep.dtype in op.dtypes else Outcome()
        for kind, sweep in sweeps.items()
        for api, module in APIS.items()
    }


def run(sweeps):
    """The outcomes of all operators, by name."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        one = functools.partial(outcomes_of, sweeps=sweeps)
        return dict(sorted(pool.imap_unordered(one, ENTRIES)))


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def totals(results, labels):
    """How many entries are of each tier, for every sweep."""
    columns = list(next(iter(results.values())))
    counts = {c: collections.Counter(r[c].tier for r in results.values()) for c in columns}
    rows = [[labels[tier], *(counts[c][tier] for c in columns)] for tier in TIERS]
    return table(["", *(f"{kind}, {api}" for kind, api in columns)], rows)


def reasons(texts):
    """A table of entries and what there is to say about each."""
    return table(["entry", "reason"], [[f"`{name}`", why] for name, why in texts.items()])
