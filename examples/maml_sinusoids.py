"""MAML on sinusoids: initial parameters from which one gradient step fits a new wave.

Each task is a wave of random amplitude and phase, of which 10 points are seen. The inner `grad`
adapts the parameters to a task, `vmap` does so for all tasks of a batch, and the outer `grad`
differentiates the loss after adapting, through the inner gradients.

The problem is that of Finn, Abbeel and Levine, "Model-agnostic meta-learning" (2017).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple

import common
import torch
from torch import Tensor

Parameters = list[Tensor]
WIDTHS = [1, 40, 40, 1]
POINTS = 10


class Tasks(NamedTuple):
    """For each of some waves, points to adapt to and others to be judged by."""

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor


def draw_tasks(count: int) -> Tasks:
    amplitude = 0.1 + 4.9 * torch.rand(count, 1)
    phase = math.pi * torch.rand(count, 1)
    inputs, test_inputs = 10 * torch.rand(2, count, POINTS) - 5
    return Tasks(
        inputs,
        amplitude * (inputs + phase).sin(),
        test_inputs,
        amplitude * (test_inputs + phase).sin(),
    )


def make_parameters() -> Parameters:
    parameters = []
    for inputs, outputs in pairwise(WIDTHS):
        parameters += [torch.randn(inputs, outputs) / inputs**0.5, torch.zeros(outputs)]
    return parameters


def predict(parameters: Parameters, x: Tensor) -> Tensor:
    *hidden, weight, bias = parameters
    y = x.unsqueeze(-1)
    for hidden_weight, hidden_bias in zip(hidden[::2], hidden[1::2], strict=True):
        y = (y @ hidden_weight + hidden_bias).relu()
    return (y @ weight + bias).squeeze(-1)


def loss(parameters: Parameters, x: Tensor, target: Tensor) -> Tensor:
    return (predict(parameters, x) - target).square().mean()


def adapt(
    api: ModuleType, parameters: Parameters, x: Tensor, target: Tensor, rate: float
) -> Parameters:
    """The parameters after one step of gradient descent on a task."""
    gradient = api.grad(loss)(parameters, x, target)
    return [value - rate * slope for value, slope in zip(parameters, gradient, strict=True)]


def meta_loss(api: ModuleType, rate: float) -> Callable[[Parameters, Tasks], Tensor]:
    """The mean loss over a batch of tasks, on unseen points, after adapting to each of them."""

    def of_task(parameters: Parameters, task: Tasks) -> Tensor:
        adapted = adapt(api, parameters, task.inputs, task.targets, rate)
        return loss(adapted, task.test_inputs, task.test_targets)

    def of_batch(parameters: Parameters, tasks: Tasks) -> Tensor:
        return api.vmap(of_task, in_dims=(None, 0))(parameters, tasks).mean()

    return of_batch


def train(
    api: ModuleType, options: argparse.Namespace
) -> tuple[dict[str, float], list[float], Parameters]:
    """The results, the loss in every step, and the trained parameters."""
    parameters = make_parameters()
    optimizer = torch.optim.Adam(parameters, lr=options.lr)
    objective = meta_loss(api, options.inner_lr)
    differentiate = api.grad_and_value(objective)
    held_out = draw_tasks(200)
    before = objective(parameters, held_out).item()
    losses = []
    for _ in common.progress(range(options.steps), "MAML"):
        gradient, value = differentiate(parameters, draw_tasks(options.tasks))
        for parameter, slope in zip(parameters, gradient, strict=True):
            parameter.grad = slope
        optimizer.step()
        losses.append(value.item())
    numbers = {
        "first loss": losses[0],
        "last loss, mean of 50": sum(losses[-50:]) / len(losses[-50:]),
        "loss on new tasks, untrained": before,
        "loss on new tasks": objective(parameters, held_out).item(),
    }
    return numbers, losses, parameters


def adaptation(
    api: ModuleType, parameters: Parameters, task: Tasks, rate: float, x: Tensor
) -> dict[str, Tensor]:
    """The curves that are predicted for a new wave, before and after some steps."""
    curves = {"before": predict(parameters, x)}
    for step in range(1, 11):
        parameters = adapt(api, parameters, task.inputs, task.targets, rate)
        curves[f"{step} steps" if step > 1 else "1 step"] = predict(parameters, x)
    return {name: curves[name] for name in ("before", "1 step", "10 steps")}


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = common.command_line(__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=25, help="in each step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--inner-lr", type=float, default=0.01)
    options = parser.parse_args(arguments)
    x = torch.linspace(-5, 5, 200, dtype=torch.float64)
    with common.transforms(options) as api:
        numbers, losses, parameters = train(api, options)
        wave = Tasks(*(value[0] for value in draw_tasks(1)))
        curves = adaptation(api, parameters, wave, options.inner_lr, x)
    common.show(numbers)
    if options.plot:

        def draw(figure):
            left, right = figure.subplots(1, 2)
            left.semilogy(losses, color="#0072b2", linewidth=0.5)
            left.set_xlabel("step")
            left.set_ylabel("loss after adapting")
            for (name, curve), style in zip(curves.items(), (":", "--", "-"), strict=True):
                right.plot(x, curve, style, color="#0072b2", label=name)
            right.plot(wave.inputs, wave.targets, "o", color="#d55e00", label="points seen")
            right.set_xlabel("x")
            right.legend(frameon=False)

        common.save_plot(options.plot, draw)
    return numbers


if __name__ == "__main__":
    main()
