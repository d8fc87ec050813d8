"""Timing two functions against each other on a machine that is not quiet.

The two sides take turns in short bursts and each round gives one ratio, so a slow spell of the
machine hits both sides of a round alike. The median over the rounds drops the rounds it split.
On the CPU the clock is the processor time of this process, which stands still while another
process has the core; where a device works on its own, it is the time on the wall.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Thunk = Callable[[], Any]
Burst = Callable[[Thunk, int], float]  # the time that so many calls take together

BURST_SECONDS = 0.002
MIN_ROUNDS = 15


@dataclass(frozen=True)
class Comparison:
    """What one call costs on each side, and how many times faster ours is (above 1 is faster)."""

    ours_us: float
    theirs_us: float
    ratio: float
    ratio_quartiles: tuple[float, float]
    rounds: int


def compare(
    ours: Thunk, theirs: Thunk, *, seconds: float, synchronize: Thunk | None = None
) -> Comparison:
    """Time ``ours`` against ``theirs`` for about ``seconds``.

    ``synchronize`` waits for a device that runs asynchronously; it is called once per burst.
    """
    burst = _wall_burst(synchronize) if synchronize else _processor_burst
    sides = [(run, _calls_per_burst(run, burst)) for run in (ours, theirs)]
    rounds: list[tuple[float, float]] = []
    deadline = time.perf_counter() + seconds
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(rounds) < MIN_ROUNDS or time.perf_counter() < deadline:
            # Who goes first changes every round: neither side always finds the other's caches.
            order = (0, 1) if len(rounds) % 2 == 0 else (1, 0)
            spent = [0.0, 0.0]
            for side in order:
                run, calls = sides[side]
                spent[side] = burst(run, calls) / calls
            rounds.append((spent[0], spent[1]))
    finally:
        if collecting:
            gc.enable()
    ratios = [other / mine for mine, other in rounds]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Comparison(
        ours_us=statistics.median(mine for mine, _ in rounds) * 1e6,
        theirs_us=statistics.median(other for _, other in rounds) * 1e6,
        ratio=middle,
        ratio_quartiles=(low, high),
        rounds=len(rounds),
    )


def _calls_per_burst(run: Thunk, burst: Burst) -> int:
    """How many calls fill a burst; finding out warms the function up as well.

    The shortest of a few tries counts: one that was interrupted would leave too few calls.
    """
    calls = 1
    while True:
        spent = min(burst(run, calls) for _ in range(4))
        if spent >= BURST_SECONDS / 2:
            return max(1, round(calls * BURST_SECONDS / spent))
        calls *= 2


def _processor_burst(run: Thunk, calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        run()
    return time.process_time() - start


def _wall_burst(synchronize: Thunk) -> Burst:
    def burst(run: Thunk, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        synchronize()
        return time.perf_counter() - start

    return burst
