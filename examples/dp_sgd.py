"""Differentially private training: DP-SGD of a small CNN on scikit-learn's digits.

Every example's gradient is clipped to a norm before the gradients are summed and noise is added,
so that no example can move the model far. `vmap(grad(loss))` computes these gradients together.

The algorithm is that of Abadi et al., "Deep learning with differential privacy" (2016), with each
batch a Poisson sample: every example is in it with the same probability, independently.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from types import ModuleType

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Parameters = dict[str, Tensor]
TRAINING = 1437  # four fifths of the images
ORDERS = range(2, 65)


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )


def clipped_sum(
    api: ModuleType, model: nn.Module, bound: float
) -> Callable[[Parameters, Tensor, Tensor], Parameters]:
    """The sum over a batch of the examples' gradients, each scaled down to the norm `bound`."""

    def loss(parameters: Parameters, image: Tensor, label: Tensor) -> Tensor:
        scores = api.functional_call(model, parameters, (image.unsqueeze(0),))
        return F.cross_entropy(scores, label.unsqueeze(0))

    per_example = api.vmap(api.grad(loss), in_dims=(None, 0, 0))

    def clip_and_sum(parameters: Parameters, images: Tensor, labels: Tensor) -> Parameters:
        gradients = per_example(parameters, images, labels)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        scale = (bound / norms).clamp(max=1)
        return {name: torch.tensordot(scale, g, dims=1) for name, g in gradients.items()}

    return clip_and_sum


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """The epsilon for which `steps` steps are (epsilon, delta)-private, adding or removing one.

    Rényi divergences of whole orders, by section 3.3 of Mironov, Talwar and Zhang, "Rényi
    differential privacy of the sampled Gaussian mechanism" (2019), add up over the steps. They
    become an epsilon by proposition 12 of Canonne, Kamath and Steinke, "The discrete Gaussian for
    differential privacy" (2020).
    """
    best = math.inf
    for order in ORDERS:
        spent = steps * renyi_divergence(rate, noise, order)
        conversion = math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        best = min(best, spent + conversion)
    return best


def renyi_divergence(rate: float, noise: float, order: int) -> float:
    """Of one step: the sum is over how many of `order` draws hold the example in question."""
    k = torch.arange(order + 1, dtype=torch.float64)
    size = torch.tensor(order, dtype=torch.float64)
    log_choose = (size + 1).lgamma() - (k + 1).lgamma() - (size - k + 1).lgamma()
    log_terms = (
        log_choose
        + (size - k) * math.log1p(-rate)
        + k * math.log(rate)
        + k * (k - 1) / (2 * noise**2)
    )
    return log_terms.logsumexp(0).item() / (order - 1)


def train(
    api: ModuleType, options: argparse.Namespace
) -> tuple[dict[str, float], list[float], list[float]]:
    """The results, and the test accuracy and epsilon after every tenth of the steps."""
    images, labels, test_images, test_labels = common.digits(TRAINING)
    model = make_model()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    velocity = {name: torch.zeros_like(value) for name, value in parameters.items()}
    clip_and_sum = clipped_sum(api, model, options.clip)
    rate = options.batch / TRAINING
    accuracies, epsilons = [], []
    for step in common.progress(range(1, options.steps + 1), "DP-SGD"):
        batch = torch.rand(TRAINING) < rate
        gradient = clip_and_sum(parameters, images[batch], labels[batch])
        for name, total in gradient.items():
            noisy = total + options.noise * options.clip * torch.randn_like(total)
            velocity[name] = options.momentum * velocity[name] + noisy / options.batch
            parameters[name] = parameters[name] - options.lr * velocity[name]
        if step % max(1, options.steps // 10) == 0 or step == options.steps:
            scores = api.functional_call(model, parameters, (test_images,))
            accuracies.append(common.accuracy(scores, test_labels))
            epsilons.append(epsilon(rate, options.noise, step, options.delta))
    loss = F.cross_entropy(scores, test_labels).item()
    numbers = {
        "test accuracy": accuracies[-1],
        "test loss": loss,
        "epsilon": epsilons[-1],
        "delta": options.delta,
    }
    return numbers, accuracies, epsilons


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = common.command_line(__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=128, help="its size on average")
    parser.add_argument("--lr", type=float, default=0.25)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--clip", type=float, default=1.0, help="the norm of a gradient at most")
    parser.add_argument("--noise", type=float, default=2.0, help="deviation, in clipping norms")
    parser.add_argument("--delta", type=float, default=1e-4)
    options = parser.parse_args(arguments)
    with common.transforms(options) as api:
        numbers, accuracies, epsilons = train(api, options)
    common.show(numbers)
    if options.plot:

        def draw(figure):
            axes = figure.subplots()
            axes.plot(epsilons, accuracies, "o-", color="#0072b2")
            axes.set_xlabel(f"epsilon spent, at delta = {options.delta:g}")
            axes.set_ylabel("test accuracy")

        common.save_plot(options.plot, draw, width=5)
    return numbers


if __name__ == "__main__":
    main()
