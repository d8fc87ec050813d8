"""Attention under jvp by the length of the sequences: time, and memory beside the score matrix.

PyTorch has no derivative of its fused kernel in forward mode. torch.func therefore gets attention
as PyTorch composes it, which holds the scores of all queries with all keys, several times.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.func
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import functx

from .memory import peak_bytes
from .report import Report
from .timing import Thunk, keep_memory, take_turns
from .workload import assert_same

NAME = "attention"
TITLE = "Attention under jvp"
HEADS = 2
WIDTH = 64
MIB = 2**20

Inputs = tuple[Tensor, ...]


def attend(*inputs: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*inputs)


def loss(*inputs: Tensor) -> Tensor:
    return attend(*inputs).square().sum()


@dataclass(frozen=True)
class Composition:
    """``run(api, inputs, tangents)``, up to the length at which it takes a second or so."""

    name: str
    longest: int
    primal: Callable[[ModuleType, Inputs], object]
    run: Callable[[ModuleType, Inputs, Inputs], object]


def _gradient(api: ModuleType) -> Callable[..., Inputs]:
    gradient: Callable[..., Inputs] = api.grad(loss, argnums=(0, 1, 2))
    return gradient


def _reverse_over_forward(api: ModuleType, inputs: Inputs, tangents: Inputs) -> object:
    def total(*primals: Tensor) -> Tensor:
        tangent: Tensor = api.jvp(attend, primals, tangents)[1]
        return tangent.square().sum()

    return api.grad(total, argnums=(0, 1, 2))(*inputs)


COMPOSITIONS = [
    Composition("jvp", 8192, lambda _, x: attend(*x), lambda api, x, t: api.jvp(attend, x, t)),
    Composition(
        "jvp(grad)",
        4096,
        lambda api, x: _gradient(api)(*x),
        lambda api, x, t: api.jvp(_gradient(api), x, t),
    ),
    Composition("grad(jvp)", 4096, lambda api, x: _gradient(api)(*x), _reverse_over_forward),
]
LENGTHS = (16, 128, 1024, 4096, 8192)
LONGEST_COMPOSED = 1024  # beyond it takes gigabytes


def run(seconds: float) -> list[Report]:
    keep_memory()
    table = Report(
        name=NAME,
        title=f"{TITLE}: {HEADS} heads of width {WIDTH}, float32",
        columns=[
            "workload", "length", "without jvp ms", "functx ms", "times that", "torch.func ms",
            "scores MiB", "functx MiB", "torch.func MiB",
        ],
        widths=[10, 7, 15, 10, 11, 14, 11, 11, 15],
    )  # fmt: skip
    table.print_header()
    for composition in COMPOSITIONS:
        for length in LENGTHS:
            if length <= composition.longest:
                _add_row(table, composition, length, seconds)
    table.print_summary()
    return [table]


def _add_row(table: Report, composition: Composition, length: int, seconds: float) -> None:
    torch.manual_seed(0)
    inputs, tangents = (
        tuple(torch.randn(1, HEADS, length, WIDTH) for _ in range(3)) for _ in range(2)
    )
    sides: dict[str, Thunk] = {
        "primal": lambda: composition.primal(functx, inputs),
        "functx": lambda: composition.run(functx, inputs, tangents),
    }
    if length <= LONGEST_COMPOSED:
        sides["torch_func"] = lambda: _composed(composition, inputs, tangents)
        assert_same(sides["functx"](), sides["torch_func"](), composition.name)
    rounds = take_turns(list(sides.values()), seconds=seconds)
    ms = {
        side: statistics.median(each) * 1e3
        for side, each in zip(sides, zip(*rounds, strict=True), strict=True)
    }
    ratio = statistics.median(spent[1] / spent[0] for spent in rounds)
    peaks = {side: peak_bytes(run) for side, run in sides.items() if side != "primal"}
    scores = HEADS * length**2 * torch.float32.itemsize
    table.add(
        cells=[
            composition.name,
            str(length),
            f"{ms['primal']:.3f}",
            f"{ms['functx']:.3f}",
            f"{ratio:.2f}x",
            f"{ms['torch_func']:.3f}" if "torch_func" in ms else "-",
            f"{scores / MIB:.2f}",
            f"{peaks['functx'] / MIB:.2f}",
            f"{peaks['torch_func'] / MIB:.2f}" if "torch_func" in peaks else "-",
        ],
        record={
            "name": composition.name,
            "length": length,
            "ms": {side: round(each, 4) for side, each in ms.items()},
            "times_primal": round(ratio, 3),
            "score_bytes": scores,
            "peak_bytes": peaks,
        },
        missed=_is_missed(ms, peaks, scores, length),
    )


def _is_missed(ms: dict[str, float], peaks: dict[str, int], scores: int, length: int) -> bool:
    """The target: faster than torch.func, and at great length far below one score matrix."""
    is_slow = "torch_func" in ms and ms["functx"] > ms["torch_func"]
    return is_slow or (length >= 4096 and peaks["functx"] > scores / 2)


def _composed(composition: Composition, inputs: Inputs, tangents: Inputs) -> object:
    with sdpa_kernel(SDPBackend.MATH):
        return composition.run(torch.func, inputs, tangents)
