"""A physics-informed network for Poisson's equation, -(u_xx + u_yy) = f on the unit square.

The network is trained to satisfy the equation at random points; at the border u is 0 because a
factor makes it so. The Laplacian is the trace of `hessian`, or, without the mixed derivatives, the
sum of `jvp(grad(u))` along the axes. The loss is differentiated once more, by the parameters.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from types import ModuleType

import common
import torch
from torch import Tensor, nn

Parameters = dict[str, Tensor]
Field = Callable[[Parameters, Tensor], Tensor]


def exact(points: Tensor) -> Tensor:
    """The solution that is to be found: two waves of different lengths."""
    x, y = (math.pi * points).unbind(-1)
    return x.sin() * y.sin() + 0.5 * (2 * x).sin() * (3 * y).sin()


def source(points: Tensor) -> Tensor:
    """Minus the Laplacian of `exact`."""
    x, y = (math.pi * points).unbind(-1)
    waves = 2 * x.sin() * y.sin() + 0.5 * 13 * (2 * x).sin() * (3 * y).sin()
    return math.pi**2 * waves


def make_field(api: ModuleType) -> tuple[Field, Parameters]:
    """A function (parameters, point) -> u, and its parameters."""
    model = nn.Sequential(
        nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )

    def field(parameters: Parameters, point: Tensor) -> Tensor:
        border = 16 * (point * (1 - point)).prod(-1)
        return border * api.functional_call(model, parameters, (point,)).squeeze(-1)

    return field, {name: value.detach() for name, value in model.named_parameters()}


def laplacian_by_hessian(api: ModuleType, field: Field) -> Field:
    second = api.hessian(field, argnums=1)
    return lambda parameters, point: second(parameters, point).trace()


def laplacian_by_jvp(api: ModuleType, field: Field) -> Field:
    slope = api.grad(field, argnums=1)

    def laplacian(parameters: Parameters, point: Tensor) -> Tensor:
        def along(axis: Tensor) -> Tensor:
            _, change = api.jvp(lambda point: slope(parameters, point), (point,), (axis,))
            return change @ axis

        return api.vmap(along)(torch.eye(2, dtype=point.dtype)).sum()

    return laplacian


LAPLACIANS = {"hessian": laplacian_by_hessian, "jvp": laplacian_by_jvp}


def residual_loss(
    api: ModuleType, field: Field, laplacian: str
) -> Callable[[Parameters, Tensor], Tensor]:
    each = api.vmap(LAPLACIANS[laplacian](api, field), in_dims=(None, 0))

    def loss(parameters: Parameters, points: Tensor) -> Tensor:
        return (each(parameters, points) + source(points)).square().mean()

    return loss


def train(
    api: ModuleType, options: argparse.Namespace
) -> tuple[dict[str, float], list[float], Tensor]:
    """The results, the loss in every step, and the error on a grid."""
    field, parameters = make_field(api)
    differentiate = api.grad_and_value(residual_loss(api, field, options.laplacian))
    optimizer = torch.optim.Adam(parameters.values(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    losses = []
    for _ in common.progress(range(options.steps), "PINN"):
        gradient, value = differentiate(parameters, torch.rand(options.points, 2))
        for name, parameter in parameters.items():
            parameter.grad = gradient[name]
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    axis = torch.linspace(0, 1, 65)
    grid = torch.cartesian_prod(axis, axis)
    error = api.vmap(field, in_dims=(None, 0))(parameters, grid) - exact(grid)
    numbers = {
        "first loss": losses[0],
        "last loss, mean of 50": sum(losses[-50:]) / len(losses[-50:]),
        "relative L2 error": (error.norm() / exact(grid).norm()).item(),
        "largest error": error.abs().max().item(),
    }
    return numbers, losses, error.reshape(65, 65)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = common.command_line(__doc__)
    parser.add_argument("--laplacian", choices=LAPLACIANS, default="hessian")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--points", type=int, default=128, help="in each step")
    parser.add_argument("--lr", type=float, default=1e-2)
    options = parser.parse_args(arguments)
    with common.transforms(options) as api:
        numbers, losses, error = train(api, options)
    common.show(numbers)
    if options.plot:

        def draw(figure):
            left, right = figure.subplots(1, 2)
            left.semilogy(losses, color="#0072b2", linewidth=0.5)
            left.set_xlabel("step")
            left.set_ylabel("loss")
            image = right.imshow(error.T, origin="lower", extent=(0, 1, 0, 1), cmap="RdBu")
            figure.colorbar(image, label="error of u")
            right.set_xlabel("x")
            right.set_ylabel("y")

        common.save_plot(options.plot, draw)
    return numbers


if __name__ == "__main__":
    main()
