"""One operator of every family under vmap, beside the best call that batches it by hand.

Inputs are so large that the operator costs milliseconds: what is measured is what the batching
rule makes of it, not the call. On a busy machine the call costs up to a tenth of a millisecond all
the same, for others have emptied the caches; so a row that misses its target is measured again.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.func
from torch import Tensor
from torch.utils import _pytree as pytree

import functx

from .family_cases import OPERATORS, Case
from .family_nn_cases import NN
from .report import Report
from .timing import keep_memory, take_turns
from .workload import assert_same

NAME = "families"
TITLE = "Batching rules beside batching by hand"
MOST_OF_BY_HAND = 1.05
ATTEMPTS = 3


def report(name: str, title: str, cases: Iterable[Case], *, seconds: float) -> Report:
    """Measure every case, printing each row of the table as soon as it is known."""
    table = Report(
        name=name,
        title=title,
        columns=[
            "operator",
            "functx µs",
            "by hand µs",
            "torch.func µs",
            "/ by hand",
            "/ torch.func",
        ],
        widths=[44, 10, 10, 13, 9, 12],
    )
    table.print_header()
    for case in cases:
        _measure(case, table, seconds)
    table.print_summary()
    return table


def run(seconds: float) -> list[Report]:
    keep_memory()
    return [report(NAME, TITLE, [*OPERATORS, *NN], seconds=seconds)]


def _measure(case: Case, table: Report, seconds: float) -> None:
    torch.manual_seed(0)
    inputs = case.inputs()
    ours, theirs = (_mapped(case, api) for api in (functx, torch.func))
    sides = {"ours": lambda: ours(*inputs), "by_hand": lambda: case.by_hand(*inputs)}
    if _check(case, ours, theirs, inputs):
        sides["torch_func"] = lambda: theirs(*inputs)
    for _ in range(ATTEMPTS):
        rounds = take_turns(list(sides.values()), seconds=seconds)
        micros = [statistics.median(times) * 1e6 for times in zip(*rounds, strict=True)]
        # Of our time to that of each of the others.
        ratios = [
            statistics.quantiles((times[0] / times[other] for times in rounds), n=4)
            for other in range(1, len(sides))
        ]
        if not _misses(ratios):
            break
    record: dict[str, Any] = {"name": case.name, "rounds": len(rounds)}
    for side, each in zip(sides, micros, strict=True):
        record[f"{side}_us"] = round(each, 2)
    for side, (low, middle, high) in zip(list(sides)[1:], ratios, strict=True):
        record[f"of_{side}"] = round(middle, 3)
        record[f"of_{side}_quartiles"] = [round(low, 3), round(high, 3)]
    missing = 3 - len(sides)
    cells = [f"{each:.0f}" for each in micros] + ["none"] * missing
    cells += [f"{middle:.2f}x" for _, middle, _ in ratios] + ["none"] * missing
    table.add([case.name, *cells], record, missed=_misses(ratios))


def _misses(ratios: list[list[float]]) -> bool:
    """More than the most of the time by hand, or slower than torch.func beyond noise.

    Where both run the same kernel, three rounds of four are above 1 by no chance.
    """
    of_by_hand, *of_torch_func = ratios
    return of_by_hand[1] > MOST_OF_BY_HAND or any(low > 1 for low, _, _ in of_torch_func)


def _mapped(case: Case, api: ModuleType) -> Callable[..., Any]:
    function = partial(case.function, api) if case.differentiates else case.function
    return api.vmap(function, case.in_dims, randomness=case.randomness)


def _check(case: Case, ours: Any, theirs: Any, inputs: tuple[Tensor, ...]) -> bool:
    """All compute the same, functx without a loop over the examples; whether torch.func can."""

    def fresh(function: Any) -> Any:
        torch.manual_seed(0)
        # Some operate in place. Tuples of other kinds, such as those of torch.max, are as good.
        return pytree.tree_leaves(function(*(x.clone() for x in inputs)))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = fresh(ours)
    for warning in caught:
        if "functx" in str(warning.message):
            raise AssertionError(f"{case.name}: {warning.message}")
    assert_same(answer, fresh(case.by_hand), case.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has no rule
        try:
            other = fresh(theirs)
        except RuntimeError as error:
            print(f"torch.func, {case.name}: {str(error).splitlines()[0]}")
            return False
    assert_same(answer, other, case.name)
    return True
