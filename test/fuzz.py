"""`make fuzz PROGRAMS=100000`: random programs under random nests of transforms, on all cores.

Each is compared with plain autograd and loops. A wrong answer is printed at once, made small, as
Python that runs, and makes the exit status 1; at the end, what was tried and what was refused why.
A worker that dies is a failure too: its seed is noted, and another goes on behind it.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field

import torch
import torch._dynamo  # here and not in each worker: the first checkpoint imports it
from _program_cases import random_case
from _program_check import Verdict, check, examine, quiet
from _program_shrink import shrunk
from tqdm import tqdm

import functx

CHUNK = 200  # programs that a worker gets at a time
SECONDS_EACH = 30
LIBRARIES = {"functx": functx, "torch.func": torch.func}


@dataclass
class Tally:
    programs: int = 0
    checks: collections.Counter = field(default_factory=collections.Counter)
    nests: collections.Counter = field(default_factory=collections.Counter)
    refusals: collections.Counter = field(default_factory=collections.Counter)
    examples: dict = field(default_factory=dict)
    failures: list = field(default_factory=list)

    def add(self, seed, nest, verdicts, source):
        self.programs += 1
        self.nests[nest] += 1
        for verdict in verdicts:
            self.checks[verdict.kind] += 1
            if verdict.kind in ("refused", "invalid", "slow"):
                group = verdict.kind, verdict.group
                self.refusals[group] += 1
                self.examples.setdefault(group, seed)
            elif verdict.kind != "right":
                self.failures.append(seed)
                head = f"{verdict.kind}: seed {seed}, {nest}: {verdict.detail[:1500]}"
                tqdm.write(f"\n# {head}\n{source}", file=sys.stdout)
                sys.stdout.flush()


one_fork_at_a_time = threading.Lock()


class TooSlow(BaseException):
    """Not an Exception: no program may swallow it."""


def stop(signum, frame):
    raise TooSlow


def work(seeds, library, current, results):
    """Examines one program after another and sends what comes of it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, stop)
    with quiet():
        for seed in seeds:
            current.value = seed
            try:
                results.send((seed, *outcome(seed, LIBRARIES[library])))
            except Exception as error:
                verdict = Verdict("fault of the fuzzer", "".join(traceback.format_exception(error)))
                results.send((seed, "", [verdict], ""))
    results.close()


def outcome(seed, library):
    rng = random.Random(seed)
    case = random_case(rng, str(seed))
    signal.setitimer(signal.ITIMER_PROF, SECONDS_EACH)
    try:
        verdicts = examine(case, rng, library)
    except TooSlow:
        return case.nest_name, [Verdict("slow", f"more than {SECONDS_EACH} s")], case.source()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if any(v.kind == "wrong" for v in verdicts) and library is functx:
        case = shrunk(case, lambda smaller: check(smaller, library).kind == "wrong")
        verdicts = [v for v in verdicts if v.kind != "wrong"] + [smallest(case, verdicts)]
    return case.nest_name, verdicts, case.source()


def smallest(case, verdicts):
    """What the case says now that it is small; or what it said if it took more than one run."""
    verdict = check(case)
    return verdict if verdict.kind == "wrong" else next(v for v in verdicts if v.kind == "wrong")


def run_chunk(seeds, library, tally, progress):
    """Runs the seeds in a process of their own, and again from behind the one it died of."""
    context = multiprocessing.get_context("fork")
    while seeds:
        with one_fork_at_a_time:  # or another worker would hold this one's end of the pipe open
            receiver, sender = context.Pipe(duplex=False)
            current = context.Value("q", seeds[0])
            worker = context.Process(target=work, args=(seeds, library, current, sender))
            worker.start()
            sender.close()
        seed = None
        while seed != seeds[-1]:
            try:
                seed, nest, verdicts, source = receiver.recv()
            except EOFError:
                break
            tally.add(seed, nest, verdicts, source)
            progress.update()
        worker.join()
        if seed == seeds[-1]:
            return
        died = current.value
        case = random_case(random.Random(died), str(died))
        tally.add(died, case.nest_name, [Verdict("died", str(worker.exitcode))], case.source())
        progress.update()
        seeds = [s for s in seeds if s > died]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=10000)
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--library", choices=LIBRARIES, default="functx")
    parser.add_argument("--refusals", type=int, default=40, help="kinds of refusal to list")
    options = parser.parse_args()

    from concurrent.futures import ThreadPoolExecutor

    tally, begin = Tally(), time.monotonic()
    seeds = range(options.start, options.start + options.programs)
    chunks = [list(seeds[k : k + CHUNK]) for k in range(0, len(seeds), CHUNK)]
    with (
        tqdm(total=len(seeds), mininterval=5, smoothing=0.05) as progress,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        list(pool.map(lambda c: run_chunk(c, options.library, tally, progress), chunks))
    report(tally, options, time.monotonic() - begin)
    return 1 if tally.failures else 0


def report(tally, options, seconds):
    print(f"\n{tally.programs} programs, {len(tally.nests)} nests, {seconds:.0f} s")
    print("checks:", sum(tally.checks.values()), dict(tally.checks))
    for (kind, group), count in tally.refusals.most_common(options.refusals):
        print(f"{count:7} {kind}: {group}  (seed {tally.examples[kind, group]})")


if __name__ == "__main__":
    sys.exit(main())
