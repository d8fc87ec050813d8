"""Timing functions against each other on a machine that is not quiet.

The sides take turns in short bursts and each round gives its ratios, so a slow spell of the
machine hits all sides of a round alike. The median over the rounds drops the rounds it split.
On the CPU the clock is the processor time of this process, which stands still while another
process has the core; where a device works on its own, it is the time on the wall.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
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


def take_turns(
    sides: Sequence[Thunk], *, seconds: float, synchronize: Thunk | None = None
) -> list[tuple[float, ...]]:
    """The time of one call on each side, in seconds, for every round.

    ``synchronize`` waits for a device that runs asynchronously; it is called once per burst.
    """
    burst = _wall_burst(synchronize) if synchronize else _processor_burst
    calls = [_calls_per_burst(run, burst) for run in sides]
    rounds: list[tuple[float, ...]] = []
    deadline = time.perf_counter() + seconds
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(rounds) < MIN_ROUNDS or time.perf_counter() < deadline:
            spent = [0.0] * len(sides)
            for turn in range(len(sides)):
                # Who goes first changes every round: nobody always finds another's caches.
                side = (turn + len(rounds)) % len(sides)
                spent[side] = burst(sides[side], calls[side]) / calls[side]
            rounds.append(tuple(spent))
    finally:
        if collecting:
            gc.enable()
    return rounds


def compare(
    ours: Thunk, theirs: Thunk, *, seconds: float, synchronize: Thunk | None = None
) -> Comparison:
    """Time ``ours`` against ``theirs`` for about ``seconds``."""
    rounds = take_turns((ours, theirs), seconds=seconds, synchronize=synchronize)
    low, middle, high = statistics.quantiles((other / mine for mine, other in rounds), n=4)
    return Comparison(
        ours_us=statistics.median(mine for mine, _ in rounds) * 1e6,
        theirs_us=statistics.median(other for _, other in rounds) * 1e6,
        ratio=middle,
        ratio_quartiles=(low, high),
        rounds=len(rounds),
    )


def keep_memory() -> None:
    """Otherwise glibc gives large blocks back, and to get one again costs as much as an operator.

    Whom that hits is chance.
    """
    trim_threshold, mmap_max = -1, -4
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


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
