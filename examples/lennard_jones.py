"""Lennard-Jones forces by `grad`, and a network that learns the potential from them.

Forces are minus the gradient of the energy. So are those of a network that predicts the energy of
a cluster of atoms as a sum over its pairs. Training it on energies and forces alike takes the
gradient, by its parameters, of a loss that holds `vmap(grad(energy))`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import common
import torch
from torch import Tensor, nn

Parameters = dict[str, Tensor]
ATOMS = 5
PAIRS = torch.triu_indices(ATOMS, ATOMS, offset=1)
BOX = 2.2
CLOSEST = 0.95  # below this the forces get so large that nothing else would be learnt


class Clusters(NamedTuple):
    positions: Tensor
    energies: Tensor
    forces: Tensor


def distances(positions: Tensor) -> Tensor:
    """Between all pairs of atoms."""
    first, second = PAIRS
    return (positions[first] - positions[second]).norm(dim=-1)


def pair_energy(distance: Tensor) -> Tensor:
    attraction = distance**-6
    return 4 * (attraction**2 - attraction)


def energy(positions: Tensor) -> Tensor:
    return pair_energy(distances(positions)).sum()


def forces_by_hand(positions: Tensor) -> Tensor:
    """The derivative on paper, for a batch: the independent answer."""
    offsets = positions.unsqueeze(-2) - positions.unsqueeze(-3)
    squares = offsets.square().sum(-1, keepdim=True) + torch.eye(ATOMS).unsqueeze(-1)
    return (24 * (2 * squares**-7 - squares**-4) * offsets).sum(-2)


def draw_clusters(api: ModuleType, count: int) -> Clusters:
    """Random clusters without two atoms too close to each other, with energies and forces."""
    candidates = BOX * torch.rand(200 * count, ATOMS, 3)
    closest = api.vmap(distances)(candidates).amin(-1)
    positions = candidates[closest > CLOSEST][:count]
    if len(positions) < count:
        raise RuntimeError(f"only {len(positions)} of {count} clusters are loose enough")
    gradients, energies = api.vmap(api.grad_and_value(energy))(positions)
    return Clusters(positions, energies, -gradients)


def make_potential(api: ModuleType) -> tuple[Callable[..., Tensor], Parameters]:
    """A function (parameters, positions) -> energy of one cluster, and its parameters."""
    model = nn.Sequential(
        nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )

    def potential(parameters: Parameters, positions: Tensor) -> Tensor:
        inverse = 1 / distances(positions)
        features = torch.stack([inverse, inverse**6], dim=-1)
        return api.functional_call(model, parameters, (features,)).sum()

    return potential, {name: value.detach() for name, value in model.named_parameters()}


def training_loss(
    api: ModuleType, potential: Callable[..., Tensor]
) -> Callable[[Parameters, Clusters], Tensor]:
    """The mean squared errors of energies and forces, summed."""
    predict = api.vmap(api.grad_and_value(potential, argnums=1), in_dims=(None, 0))

    def loss(parameters: Parameters, clusters: Clusters) -> Tensor:
        gradients, energies = predict(parameters, clusters.positions)
        of_energies = (energies - clusters.energies).square().mean()
        return of_energies + (gradients + clusters.forces).square().mean()

    return loss


def train(
    api: ModuleType, options: argparse.Namespace
) -> tuple[dict[str, float], list[float], tuple[Tensor, Tensor]]:
    """The results, the loss in every step, and true and predicted forces of new clusters."""
    clusters, test = draw_clusters(api, options.clusters), draw_clusters(api, 100)
    potential, parameters = make_potential(api)
    differentiate = api.grad_and_value(training_loss(api, potential))
    optimizer = torch.optim.Adam(parameters.values(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    losses = []
    for _ in common.progress(range(options.steps), "potential"):
        batch = torch.randint(options.clusters, (options.batch,))
        gradient, value = differentiate(parameters, Clusters(*(part[batch] for part in clusters)))
        for name, parameter in parameters.items():
            parameter.grad = gradient[name]
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    gradients, energies = api.vmap(api.grad_and_value(potential, argnums=1), in_dims=(None, 0))(
        parameters, test.positions
    )
    by_hand = forces_by_hand(clusters.positions)
    numbers = {
        "largest error of grad's forces": (clusters.forces - by_hand).abs().max().item(),
        "first loss": losses[0],
        "last loss, mean of 50": sum(losses[-50:]) / len(losses[-50:]),
        "relative error of energies": relative_error(energies, test.energies),
        "relative error of forces": relative_error(-gradients, test.forces),
        "largest sum of forces": gradients.sum(1).abs().max().item(),
    }
    return numbers, losses, (test.forces.flatten(), -gradients.flatten())


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = common.command_line(__doc__)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-2)
    options = parser.parse_args(arguments)
    with common.transforms(options) as api:
        numbers, losses, (true, predicted) = train(api, options)
    common.show(numbers)
    if options.plot:

        def draw(figure):
            left, right = figure.subplots(1, 2)
            left.semilogy(losses, color="#0072b2", linewidth=0.5)
            left.set_xlabel("step")
            left.set_ylabel("loss")
            ends = [true.min(), true.max()]
            right.plot(ends, ends, color="#cccccc")
            right.plot(true, predicted, ".", color="#0072b2", markersize=3)
            right.set_xlabel("force on an atom, a component")
            right.set_ylabel("predicted")

        common.save_plot(options.plot, draw)
    return numbers


if __name__ == "__main__":
    main()
