"""Peak memory of the gradient of a deep elementwise chain: functx, plain autograd, torch.func.

On the CPU, PyTorch's profiler records every allocation and every release of its allocator with
their sizes: their running total is exact and the same in every run. Plain autograd is also
counted by hand, tensor by tensor, and the benchmark fails if the profiler does not find that.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.func
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import functx

from .report import Report
from .timing import Thunk
from .workload import assert_same

NAME = "memory"
TITLE = "Peak memory of grad"
DEPTH = 32
SIDE = 1024
TENSOR_BYTES = SIDE * SIDE * torch.float32.itemsize


@dataclass(frozen=True)
class Chain:
    """``DEPTH`` times one operator, then a sum.

    ``tensors`` is how many tensors of the input's size plain autograd holds at its peak.
    """

    name: str
    operator: Callable[[Tensor], Tensor]
    tensors: int

    def __call__(self, x: Tensor) -> Tensor:
        for _ in range(DEPTH):
            x = self.operator(x)
        return x.sum()


CHAINS = [
    # Each tanh saves its output. The first step back holds those and makes a gradient.
    Chain("tanh", torch.tanh, DEPTH + 1),
    # Each sin saves its input: all but the first are ours. A step back makes cos(x) and a gradient.
    Chain("sin", torch.sin, DEPTH + 1),
]


def peak_bytes(run: Thunk, device: torch.device | str = "cpu") -> int:
    """The most memory that ``run`` has at once, beyond what was allocated before it."""
    run()  # what is built only once, on a first call, is not the peak we are after
    gc.collect()
    if torch.device(device).type == "cuda":
        return _peak_bytes_cuda(run)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = profiler.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in changes), default=0)


def report(name: str, title: str, device: torch.device | str = "cpu") -> Report:
    """Compare the peaks on one device."""
    table = Report(
        name=name,
        title=f"{title}: {DEPTH} elementwise ops, input {TENSOR_BYTES / 2**20:.0f} MiB",
        columns=["chain", "functx MiB", "autograd MiB", "torch.func MiB", "target MiB"],
        widths=[10, 11, 13, 15, 11],
    )
    table.print_header()
    torch.manual_seed(0)
    x = torch.randn(SIDE, SIDE).to(device)
    for chain in CHAINS:
        peaks = _peaks(chain, x, device)
        table.add(
            cells=[chain.name, *(f"{peak / 2**20:.1f}" for peak in peaks.values())],
            record={"name": chain.name, **peaks},
            missed=peaks["functx"] > peaks["target"],
        )
    table.print_summary()
    return table


def run(seconds: float) -> list[Report]:
    """The peak is no timing: ``seconds`` has no part in it."""
    return [report(NAME, TITLE)]


def _peaks(chain: Chain, x: Tensor, device: torch.device | str) -> dict[str, int]:
    """Bytes at the peak of each side; the target allows functx one tensor more than autograd."""
    assert_same(functx.grad(chain)(x), torch.func.grad(chain)(x), chain.name)
    plain = peak_bytes(lambda: _plain_grad(chain, x), device)
    _check_count(chain, plain)
    return {
        "functx": peak_bytes(lambda: functx.grad(chain)(x), device),
        "autograd": plain,
        "torch_func": peak_bytes(lambda: torch.func.grad(chain)(x), device),
        "target": plain + TENSOR_BYTES,
    }


def _plain_grad(chain: Chain, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(chain(x), x)[0]


def _check_count(chain: Chain, measured: int) -> None:
    """Scalars and allocator rounding stay far below a tensor; anything more is a wrong reading."""
    tensors = measured / TENSOR_BYTES
    if not chain.tensors <= tensors < chain.tensors + 0.01:
        raise AssertionError(
            f"{chain.name}: plain autograd should hold {chain.tensors} tensors at its peak, "
            f"the reading is {tensors:.2f}"
        )


def _peak_bytes_cuda(run: Thunk) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
