"""The page on vmap."""

import collections
import functools

import torch
from _coverage import ENTRIES, Sweep, reasons, table, totals
from _op_exceptions import LOOPS, REFUSED
from _op_sweep import sweep, sweep_vjp

import functx

RESULTS = {
    "vectorized": "right, at once",
    "loop": "right, in a loop",
    "error": "raises for some arguments",
    "wrong": "wrong for some arguments",
    "skipped": "no case",
}


def run_vmap(op, api):
    return sweep(op, torch.float32, api)


VJP_SAMPLES = 10


def run_vjp(op, api):
    return sweep_vjp(op, torch.float64, api, VJP_SAMPLES)


SWEEPS = {
    "vmap": Sweep(run_vmap, torch.float32),
    "vmap(vjp)": Sweep(run_vjp, torch.float64),
}


@functools.cache
def coverage():
    """How functx treats the overloads of each operator: name -> set of words."""
    words = collections.defaultdict(set)
    for full, word in functx._C.operator_coverage().items():
        words[full.split(".")[0]].add(word)
    return words


def way(op, result):
    """What does the work where a result is vectorized."""
    if result != "vectorized":
        return RESULTS[result]
    return "rule" if "rule" in coverage()[f"aten::{op.aten_name}"] else "decomposition"


def loops_of(results, kind):
    return sorted(set().union(*(r[kind, "functx"].loops for r in results.values())))


def page(results):
    refused = [n for n, r in results.items() if any(r[k, "functx"].tier == "error" for k in SWEEPS)]
    every = []
    for name, result in results.items():
        op = ENTRIES[name]
        row = [f"`{name}`"]
        for kind in SWEEPS:
            row += [
                way(op, result[kind, "functx"].tier),
                RESULTS[result[kind, "torch.func"].tier],
            ]
        every.append(row)
    looped = [
        [f"`{op}`", ", ".join(k for k in SWEEPS if op in loops_of(results, k)), LOOPS[op]]
        for op in sorted(set().union(*(loops_of(results, k) for k in SWEEPS)))
    ]
    return f"""# Operators under vmap

Written by `python docs/make_coverage.py batching` with PyTorch {torch.__version__}: do not edit.

Every sample of every entry of PyTorch's `op_db`, with every choice of batched arguments, each with
its batch dimension in front, at the end and in the middle, is compared with a Python loop and
`stack`: under `vmap` in float32, and under `vmap(vjp)` in float64, where an entry has up to
{VJP_SAMPLES} samples. One wrong case, or else one error, makes the entry "wrong" or "raises". Where
the loop raises too, there is no case; nor is there one for operators that return no tensor, that
take sparse tensors, or that need a GPU. A loop counts whether it warns or not.

{totals(results, RESULTS)}

An entry is a *rule* if functx has one for the operator, and a *decomposition* if PyTorch or functx
composes it from operators that have.

## What is refused, and why

{reasons({n: REFUSED[n].why for n in refused})}

Random operators raise under `randomness="error"`, the default, and are compared under `"same"`.

## What runs in a loop, and why

{table(["operator", "where", "reason"], looped)}

## Every entry

{table(["entry", "vmap", "torch.func", "vmap(vjp)", "torch.func"], every)}
"""
