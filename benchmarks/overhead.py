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


WORKLOADS = [
    Workload("vmap(sin)", _small(lambda api, x: api.vmap(torch.sin)(x), BATCH), 2.5),
    Workload("grad of 9 ops", _small(lambda api, x: api.grad(chain)(x)), 2.5),
    Workload("vjp of 9 ops", _small(_vjp)),
    Workload("jvp of 9 ops", _small(_jvp), 2.5),
    Workload(
        "vmap(grad) of 9 ops", _small(lambda api, x: api.vmap(api.grad(chain))(x), BATCH), 2.5
    ),
]


def run(seconds: float) -> list[Report]:
    return [report(NAME, TITLE, WORKLOADS, seconds=seconds)]
