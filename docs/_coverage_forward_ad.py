"""The page on forward mode and second derivatives."""

import collections
import functools

import torch
from _coverage import Sweep, reasons, table, totals
from _derivative_exceptions import BY_DEFINITION, WRONG_ONCE, reason_to_refuse
from _op_db import WITH_RIGHT_GRADIENT
from _op_sweep_derivatives import sweep

RESULTS = {
    "vectorized": "right",
    "loop": "right, in a loop",
    "error": "raises",
    "wrong": "wrong",
    "skipped": "-",
}

SAMPLES = 8


def run_kind(op, api, kind):
    return sweep(kind, op, torch.float64, api, SAMPLES)


KINDS = ("jvp", "vmap(jvp)", "jvp(vjp)", "vjp(vjp)", "jvp(jvp)", "vjp(jvp)")
SWEEPS = {k: Sweep(functools.partial(run_kind, kind=k), torch.float64) for k in KINDS}

CONSTANT = "not differentiable in PyTorch: "
BOTH_ZERO = f"{CONSTANT}zero forward, zero in reverse"


def both_zero(results):
    """Entries with a derivative that is zero in both modes and should not be."""
    names = [f"`{n}`" for n, r in results.items() if BOTH_ZERO in r["jvp", "functx"].skipped]
    return f"It is zero here too, for {', '.join(names)}." if names else "None is zero here."


def beyond_pytorch(results):
    """Entries that PyTorch has no derivative of."""
    return [f"`{n}`" for n, r in results.items() if r["jvp", "functx"].beyond_pytorch]


def refused(results):
    """Entries that raise: where, and why."""
    rows = []
    for name, result in results.items():
        kinds = collections.defaultdict(list)
        for kind in KINDS:
            if errors := result[kind, "functx"].errors:
                reason = reason_to_refuse(kind, name)
                kinds[reason.why if reason else f"not explained: {errors[0]}"].append(kind)
        rows += [[f"`{name}`", ", ".join(where), why] for why, where in kinds.items()]
    return rows


def better(results):
    """How many entries functx gets right where torch.func doesn't, and the other way round."""

    def count(kind, one, other):
        right = ("vectorized", "loop")
        return sum(
            r[kind, one].tier in right and r[kind, other].tier in ("error", "wrong")
            for r in results.values()
        )

    rows = [[k, count(k, "functx", "torch.func"), count(k, "torch.func", "functx")] for k in KINDS]
    return table(["", "right in functx only", "right in torch.func only"], rows)


def every_entry(results):
    rows = []
    for name, result in results.items():
        cells = [
            f"{RESULTS[result[k, 'functx'].tier]} / {RESULTS[result[k, 'torch.func'].tier]}"
            for k in KINDS
        ]
        if any(cell != "- / -" for cell in cells):
            rows.append([f"`{name}`", *cells])
    return table(["entry", *KINDS], rows)


def page(results):
    return f"""# Operators under forward mode, and second derivatives

Written by `python docs/make_coverage.py forward_ad` with PyTorch {torch.__version__}: do not edit.

Up to {SAMPLES} samples of every entry of PyTorch's `op_db`, in float64, are differentiated by all
their tensors together and by each alone. A derivative must be that of central differences wherever
those show that the function is smooth; where it has a kink, PyTorch's plain autograd decides. For
second derivatives, the differences are those of plain autograd's gradients. One wrong case, or else
one error, makes the entry "wrong" or "raises". There is no case where an operator returns no
floating-point tensor or PyTorch has no derivative of it.

{totals(results, RESULTS)}

{better(results)}

## What is refused, and why

{table(["entry", "where", "reason"], refused(results))}

## Constants

PyTorch takes these for constants, and drops their derivative without a word. functx has it, in both
modes:

{", ".join(beyond_pytorch(results))}.

{both_zero(results)}

The derivative of these is PyTorch's by definition, in both modes, and not that of the function:

{reasons(BY_DEFINITION)}

`functx.vjp` is PyTorch's autograd. Its gradient of these is not the derivative for some arguments;
their `jvp` is right:

{reasons(WRONG_ONCE)}

PyTorch's gradient is wrong, and that of functx is right, for
{", ".join(f"`{name}`" for name in WITH_RIGHT_GRADIENT)}.

## Every entry

Under functx / under torch.func.

{every_entry(results)}
"""
