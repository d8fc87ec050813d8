"""What functx costs a program that uses no transform, after the import and after a first use.

Each state has processes of its own, since an import can't be undone. They take turns, so that a
slow spell of the machine hits all of them, and each state has several, for where a process happens
to have its memory makes some per cent.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from .guest_programs import STATES
from .report import Report
from .timing import BURST_SECONDS

NAME = "guest"
TITLE = "What functx costs programs that use no transform"
PROCESSES = 7  # of each state
ALLOWED = 1.02


class Process:
    """One that runs the programs."""

    def __init__(self, state: str) -> None:
        command = [sys.executable, "-m", "benchmarks.guest_programs", state]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.names = self._answer().split("\t")

    def time(self, name: str, calls: int) -> float:
        """The seconds that one call takes."""
        assert self._process.stdin is not None
        print(name, calls, sep="\t", file=self._process.stdin, flush=True)
        return float(self._answer()) / calls

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def close(self) -> None:
        self._process.communicate()  # the end of its input ends it


def run(seconds: float) -> list[Report]:
    table = Report(
        name=NAME,
        title=f"{TITLE}: ns per call, and how many times as long as without functx",
        columns=["program", "without", "imported", "ratio", "used", "ratio"],
        widths=[34, 10, 10, 7, 10, 7],
    )
    processes: list[tuple[str, Process]] = []
    try:
        processes += [(state, Process(state)) for _ in range(PROCESSES) for state in STATES]
        table.print_header()
        for name in processes[0][1].names:
            _add(table, name, processes, seconds)
    finally:
        for _, process in processes:
            process.close()
    table.print_summary()
    return [table]


def _add(table: Report, name: str, processes: list[tuple[str, Process]], seconds: float) -> None:
    for _, process in processes:
        process.time(name, 20)  # what is done on the first call only
    first = processes[0][1]
    calls = max(1, round(BURST_SECONDS / min(first.time(name, 20) for _ in range(5))))
    # Of each process the fastest round: what disturbs it makes it slower, never faster.
    fastest = [float("inf")] * len(processes)
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        for place, (_, process) in enumerate(processes):
            fastest[place] = min(fastest[place], process.time(name, calls))
    of_state = {
        state: statistics.median(
            spent for spent, (each, _) in zip(fastest, processes, strict=True) if each == state
        )
        for state in STATES
    }
    plain, imported, used = (of_state[state] for state in STATES)
    table.add(
        cells=[
            name,
            f"{plain * 1e9:.0f}",
            f"{imported * 1e9:.0f}",
            f"{imported / plain:.3f}",
            f"{used * 1e9:.0f}",
            f"{used / plain:.3f}",
        ],
        record={"name": name, **of_state},
        missed=imported > ALLOWED * plain,
    )
