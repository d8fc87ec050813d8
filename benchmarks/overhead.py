"""What a transform costs on inputs so small that the arithmetic is free."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from .report import Report
from .timing import Thunk
from .workload import Workload, report

NAME = "overhead"
TITLE = "Overhead on small inputs"
SIZE = 16
BATCH = 8
OUTPUTS = 1600


def chain(x: Tensor) -> Tensor:
    """Nine operators: sin, cos, mul, add, tanh, exp, sigmoid, mul, sum."""
    y = x.sin() * x.cos() + x
    return (y.tanh().exp().sigmoid() * x).sum()


def _small(call: Callable[[ModuleType, Tensor], object], *batch: int) -> Callable[..., Thunk]:
    def build(api: ModuleType, device: torch.device) -> Thunk:
        x = torch.randn(*batch, SIZE).to(device)
        return lambda: call(api, x)

    return build


def _vjp(api: ModuleType, x: Tensor) -> Tensor:
    out, pullback = api.vjp(chain, x)
    return pullback(torch.ones_like(out))[0]


def _jvp(api: ModuleType, x: Tensor) -> tuple[Tensor, Tensor]:
    return api.jvp(chain, (x,), (x,))


def _beside_history(operators: int) -> Callable[..., Thunk]:
    """`grad` of a function that captures a tensor with so many operators behind it."""

    def build(api: ModuleType, device: torch.device) -> Thunk:
        captured = torch.randn(SIZE).to(device).requires_grad_()
        for _ in range(operators):
            captured = captured + 0
        x = torch.randn(SIZE).to(device)
        return lambda: api.grad(lambda y: (captured * y).sum())(x)

    return build


def _many_outputs(api: ModuleType, device: torch.device) -> Thunk:
    x = torch.randn(OUTPUTS).to(device)
    ones = tuple(torch.ones(OUTPUTS).to(device).unbind())

    def call() -> Tensor:
        _, pullback = api.vjp(lambda x: x.sin().unbind(), x)
        return pullback(ones)[0]

    return call


WORKLOADS = [
    Workload("vmap(sin)", _small(lambda api, x: api.vmap(torch.sin)(x), BATCH), 2.5),
    Workload("grad of 9 ops", _small(lambda api, x: api.grad(chain)(x)), 2.5),
    Workload("vjp of 9 ops", _small(_vjp)),
    Workload("jvp of 9 ops", _small(_jvp), 2.5),
    Workload(
        "vmap(grad) of 9 ops", _small(lambda api, x: api.vmap(api.grad(chain))(x), BATCH), 2.5
    ),
    Workload("grad, a captured tensor", _beside_history(0)),
    Workload("grad, 10000 operators behind it", _beside_history(10000)),
    Workload(f"vjp of {OUTPUTS} outputs", _many_outputs),
]


def run(seconds: float) -> list[Report]:
    return [report(NAME, TITLE, WORKLOADS, seconds=seconds)]
