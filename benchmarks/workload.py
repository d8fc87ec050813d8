"""A workload: one computation, written once, run by functx and by torch.func."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import torch
import torch.func
from torch.utils import _pytree as pytree

import functx

from .report import Report
from .timing import Comparison, Thunk, compare


@dataclass(frozen=True)
class Workload:
    """``build(api, device)`` makes the inputs and returns the function to time.

    ``api`` is the module to take the transforms from, so both sides run the same code.
    ``target`` is the ratio of torch.func's time to functx's that functx means to reach.
    """

    name: str
    build: Callable[[ModuleType, torch.device], Thunk]
    target: float = 1.0


def measure(
    workload: Workload, *, seconds: float, device: torch.device | str = "cpu"
) -> Comparison:
    """Check that both sides agree, without functx falling back to a loop, then time them."""
    device = torch.device(device)
    ours, theirs = (_build(workload, api, device) for api in (functx, torch.func))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = ours()
    for warning in caught:
        # functx warns where it has no rule and loops over the examples; PyTorch's own may pass.
        if "functx" in str(warning.message):
            raise AssertionError(f"{workload.name}: {warning.message}")
    assert_same(answer, theirs(), workload.name)
    del answer
    synchronize = torch.cuda.synchronize if device.type == "cuda" else None
    return compare(ours, theirs, seconds=seconds, synchronize=synchronize)


def assert_same(ours: Any, theirs: Any, name: str) -> None:
    """Fail unless two pytrees of tensors have one structure and equal leaves.

    Up to rounding in float32, of which a number close to zero has as much as the terms that it is a
    sum of: the largest number says how large these are.
    """
    our_leaves, our_spec = pytree.tree_flatten(ours)
    their_leaves, their_spec = pytree.tree_flatten(theirs)
    if our_spec != their_spec:
        raise AssertionError(f"{name}: functx returns {our_spec}, torch.func {their_spec}")
    for mine, other in zip(our_leaves, their_leaves, strict=True):
        largest = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(
            mine, other, rtol=1e-3, atol=1e-6 * max(10, largest), msg=lambda text: f"{name}: {text}"
        )


def report(
    name: str,
    title: str,
    workloads: Iterable[Workload],
    *,
    seconds: float,
    device: torch.device | str = "cpu",
) -> Report:
    """Measure every workload, printing each row of the table as soon as it is known."""
    table = Report(
        name=name,
        title=title,
        columns=["workload", "functx µs", "torch.func µs", "ratio", "target"],
        widths=[46, 11, 14, 8, 7],
    )
    table.print_header()
    for workload in workloads:
        result = measure(workload, seconds=seconds, device=device)
        table.add(
            cells=[
                workload.name,
                f"{result.ours_us:.1f}",
                f"{result.theirs_us:.1f}",
                f"{result.ratio:.2f}x",
                f"{workload.target:.1f}x",
            ],
            record={"name": workload.name, "target": workload.target, **_rounded(result)},
            missed=result.ratio < workload.target,
        )
    table.print_summary()
    return table


def _rounded(result: Comparison) -> dict[str, Any]:
    record = asdict(result)
    record["ours_us"] = round(result.ours_us, 2)
    record["theirs_us"] = round(result.theirs_us, 2)
    record["ratio"] = round(result.ratio, 3)
    record["ratio_quartiles"] = [round(quartile, 3) for quartile in result.ratio_quartiles]
    return record


def _build(workload: Workload, api: ModuleType, device: torch.device) -> Thunk:
    torch.manual_seed(0)
    return workload.build(api, device)
