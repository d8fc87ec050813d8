"""Run the benchmarks: ``python -m benchmarks [NAME ...] [--save] [--seconds S]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from . import (
    attention,
    cuda,
    examples,
    families,
    forward,
    guest,
    memory,
    models,
    overhead,
    seed_workloads,
)
from .report import Report

BENCHMARKS: dict[str, Callable[[float], list[Report]]] = {
    "seed": seed_workloads.run,
    "overhead": overhead.run,
    "models": models.run,
    "families": families.run,
    "forward": forward.run,
    "examples": examples.run,
    "guest": guest.run,
    "memory": memory.run,
    "attention": attention.run,
    "cuda": cuda.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each workload")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    for name in options.names or BENCHMARKS:
        for report in BENCHMARKS[name](options.seconds):
            if options.save:
                print("wrote", *report.save())


if __name__ == "__main__":
    main()
