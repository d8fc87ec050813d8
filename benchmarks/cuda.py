"""All the other benchmarks again, on a GPU."""

from __future__ import annotations

import torch

from . import memory, models, overhead, seed_workloads
from .report import Report
from .workload import report


def run(seconds: float) -> list[Report]:
    """One report per benchmark, or none where there is no GPU."""
    if not torch.cuda.is_available():
        print("\nOn a GPU: none here, nothing measured")
        return []
    return [
        *(
            report(
                f"cuda_{group.NAME}",
                f"{group.TITLE}, on a GPU",
                group.WORKLOADS,
                seconds=seconds,
                device="cuda",
            )
            for group in (seed_workloads, overhead, models)
        ),
        memory.report(f"cuda_{memory.NAME}", f"{memory.TITLE}, on a GPU", device="cuda"),
    ]
