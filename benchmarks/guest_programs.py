"""What programs do with PyTorch alone, timed in a process of its own: without functx, or with it.

Run by `guest.py` as `python -m benchmarks.guest_programs STATE`. It answers each line `NAME CALLS`
with the seconds that so many calls took.
"""

from __future__ import annotations

import copy
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

STATES = ("plain", "imported", "used")


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 2


def programs() -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    x, y = torch.randn(8), torch.randn(8)
    weight = torch.randn(8, requires_grad=True)
    number = torch.tensor(1.5)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    rows = torch.randn(8, 16)
    compiled = torch.compile(lambda x: x.sin() + 1, backend="eager")

    def set_data() -> None:
        x.data = y

    def backward() -> None:
        model(rows).sum().backward()

    def saved_tensors_hooks() -> None:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            pass

    return {
        "x + y": lambda: x + y,
        "torch.empty(8)": lambda: torch.empty(8),
        "torch.arange(8)": lambda: torch.arange(8),
        "torch.linspace(0, 1, 8)": lambda: torch.linspace(0, 1, 8),
        "x.data": lambda: x.data,
        "x.data = y": set_data,
        "x[1:]": lambda: x[1:],
        "x.numpy()": lambda: x.numpy(),
        "x.tolist()": lambda: x.tolist(),
        "x.new_tensor([1.0])": lambda: x.new_tensor([1.0]),
        "repr(x)": lambda: repr(x),
        "f'{number}'": lambda: f"{number}",
        "copy.deepcopy(x)": lambda: copy.deepcopy(x),
        "isinstance(x, torch.FloatTensor)": lambda: isinstance(x, torch.FloatTensor),
        "a model's forward and backward": backward,
        "torch.autograd.grad": lambda: torch.autograd.grad((weight * 2).sum(), weight),
        "saved_tensors_hooks": saved_tensors_hooks,
        "checkpoint": lambda: checkpoint(torch.sin, weight, use_reentrant=False).sum().backward(),
        "Function.apply": lambda: Doubled.apply(weight),
        "a compiled function": lambda: compiled(x),
    }


def main() -> None:
    state = sys.argv[1]
    torch.set_num_threads(1)
    if state != "plain":
        import functx

        if state == "used":
            functx.vmap(functx.grad(torch.sin))(torch.zeros(2))
    run = programs()
    gc.disable()  # which takes the longer the more modules there are, whoever's they are
    print(*run, sep="\t", flush=True)
    for line in sys.stdin:
        name, calls = line.rstrip("\n").split("\t")
        call = run[name]
        start = time.process_time()
        for _ in range(int(calls)):
            call()
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
