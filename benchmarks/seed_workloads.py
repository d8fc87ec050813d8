"""The computations of the Jacobians-and-Hessians notebook, at its sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from .report import Report
from .timing import Thunk
from .workload import Workload, report

NAME = "seed"
TITLE = "Jacobians and Hessians"
WRT_INPUT = 2
HVP_SIZE = 2048


def predict(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weight, bias).tanh()


def predict_summed(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return predict(weight, bias, x).sum(0)


def sum_of_sines(x: Tensor) -> Tensor:
    return x.sin().sum()


def _layer(
    name: str,
    shape: tuple[int, int],
    transform: Callable[[ModuleType], Callable[..., object]],
    *,
    batch: tuple[int, ...] = (),
    target: float = 1.0,
) -> Workload:
    """A transform of a layer with ``shape`` (outputs, inputs), called on (weight, bias, x)."""
    outputs, inputs = shape

    def build(api: ModuleType, device: torch.device) -> Thunk:
        weight = torch.randn(outputs, inputs).to(device)
        bias = torch.randn(outputs).to(device)
        x = torch.randn(*batch, inputs).to(device)
        # The transform is applied anew in each call, as the notebook does.
        return lambda: transform(api)(weight, bias, x)

    return Workload(name, build, target)


def _jacobian_by_vjp(api: ModuleType) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def jacobian(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        out, pullback = api.vjp(partial(predict, weight, bias), x)
        (rows,) = api.vmap(pullback)(torch.eye(out.numel(), device=x.device))
        return rows

    return jacobian


def _over_batch(api: ModuleType, derivative: Callable[..., object]) -> Callable[..., object]:
    return api.vmap(derivative, in_dims=(None, None, 0))


def _hvp(product: Callable[[ModuleType, Tensor, Tensor], Tensor]) -> Callable[..., Thunk]:
    def build(api: ModuleType, device: torch.device) -> Thunk:
        x = torch.randn(HVP_SIZE).to(device)
        direction = torch.randn(HVP_SIZE).to(device)
        return lambda: product(api, x, direction)

    return build


def _forward_over_reverse(api: ModuleType, x: Tensor, direction: Tensor) -> Tensor:
    return api.jvp(api.grad(sum_of_sines), (x,), (direction,))[1]


def _reverse_over_reverse(api: ModuleType, x: Tensor, direction: Tensor) -> Tensor:
    _, pullback = api.vjp(api.grad(sum_of_sines), x)
    return pullback(direction)[0]


SQUARE, TALL, WIDE = (16, 16), (2048, 32), (32, 2048)

WORKLOADS = [
    _layer("Jacobian 16x16, vmap(vjp)", SQUARE, _jacobian_by_vjp),
    _layer(
        "Jacobian 16x16, jacrev",
        SQUARE,
        lambda api: api.jacrev(predict, argnums=WRT_INPUT),
        target=2.5,
    ),
    _layer(
        "Jacobian wrt (weight, bias), jacrev",
        SQUARE,
        lambda api: api.jacrev(predict, argnums=(0, 1)),
    ),
    _layer(
        "tall Jacobian 2048x32, jacfwd",
        TALL,
        lambda api: api.jacfwd(predict, argnums=WRT_INPUT),
    ),
    _layer(
        "tall Jacobian 2048x32, jacrev",
        TALL,
        lambda api: api.jacrev(predict, argnums=WRT_INPUT),
    ),
    _layer(
        "wide Jacobian 32x2048, jacfwd",
        WIDE,
        lambda api: api.jacfwd(predict, argnums=WRT_INPUT),
    ),
    _layer(
        "wide Jacobian 32x2048, jacrev",
        WIDE,
        lambda api: api.jacrev(predict, argnums=WRT_INPUT),
    ),
    _layer(
        "Hessian 32x512x512, hessian",
        (32, 512),
        lambda api: api.hessian(predict, argnums=WRT_INPUT),
    ),
    _layer(
        "Hessian 32x512x512, jacfwd(jacfwd)",
        (32, 512),
        lambda api: api.jacfwd(api.jacfwd(predict, argnums=WRT_INPUT), argnums=WRT_INPUT),
    ),
    _layer(
        "batch Jacobian 64x33x31, vmap(jacrev)",
        (33, 31),
        lambda api: _over_batch(api, api.jacrev(predict, argnums=WRT_INPUT)),
        batch=(64,),
    ),
    _layer(
        "batch Jacobian 64x33x31, jacrev of the sum",
        (33, 31),
        lambda api: api.jacrev(predict_summed, argnums=WRT_INPUT),
        batch=(64,),
    ),
    _layer(
        "batch Hessian 64x33x31x31, vmap(hessian)",
        (33, 31),
        lambda api: _over_batch(api, api.hessian(predict, argnums=WRT_INPUT)),
        batch=(64,),
    ),
    Workload("Hessian-vector product, jvp(grad)", _hvp(_forward_over_reverse)),
    Workload("Hessian-vector product, vjp(grad)", _hvp(_reverse_over_reverse)),
]


def run(seconds: float) -> list[Report]:
    return [report(NAME, TITLE, WORKLOADS, seconds=seconds)]
