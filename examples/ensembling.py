"""An ensemble of networks on scikit-learn's digits, all of its members trained at once.

`stack_module_state` stacks the members' parameters; `vmap` over the gradient of one member's loss
is then the gradient of every member. Each has its own sample of the few training images
(bagging), so they err on different ones, and their mean is right more often than they are.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from types import ModuleType

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Parameters = dict[str, Tensor]
TRAINING = 150


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10)
    )


def members(api: ModuleType, count: int) -> tuple[Callable[..., Tensor], Parameters]:
    """A function (parameters, images) -> scores of one member, and the parameters of all."""
    models = [make_model() for _ in range(count)]
    stacked, _ = api.stack_module_state(models)
    # Detached, or autograd would record the training for a backward that never comes.
    parameters = {name: value.detach() for name, value in stacked.items()}
    skeleton = copy.deepcopy(models[0]).to("meta")  # parameters come from the call

    def predict(parameters: Parameters, images: Tensor) -> Tensor:
        return api.functional_call(skeleton, parameters, (images,))

    return predict, parameters


def gradients(
    api: ModuleType, predict: Callable[..., Tensor]
) -> Callable[[Parameters, Tensor, Tensor], tuple[Parameters, Tensor]]:
    """The gradient and the loss of every member, each on a batch of its own."""

    def loss(parameters: Parameters, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(predict(parameters, images), labels)

    return api.vmap(api.grad_and_value(loss))


def train(
    api: ModuleType, options: argparse.Namespace
) -> tuple[dict[str, float], list[float], Tensor]:
    """The results, the members' test accuracies, and the members' mean loss in each step."""
    images, labels, test_images, test_labels = common.digits(TRAINING)
    predict, parameters = members(api, options.members)
    bags = torch.randint(TRAINING, (options.members, TRAINING))
    losses = torch.empty(options.steps)
    differentiate = gradients(api, predict)
    # The update of a number depends on that number's gradients only: one optimizer serves all.
    optimizer = torch.optim.Adam(parameters.values(), lr=options.lr)
    for step in common.progress(range(options.steps), "ensemble"):
        batches = bags[:, torch.randint(TRAINING, (options.batch,))]
        by_parameter, loss = differentiate(parameters, images[batches], labels[batches])
        for name, gradient in by_parameter.items():
            parameters[name].grad = gradient
        optimizer.step()
        losses[step] = loss.mean()
    scores = api.vmap(predict, in_dims=(0, None))(parameters, test_images)
    mean_score = scores.softmax(-1).mean(0)
    accuracies = [common.accuracy(member, test_labels) for member in scores]
    numbers = {
        "mean member's accuracy": sum(accuracies) / len(accuracies),
        "best member's accuracy": max(accuracies),
        "ensemble's accuracy": common.accuracy(mean_score, test_labels),
        "mean member's test loss": F.cross_entropy(
            scores.flatten(0, 1), test_labels.repeat(options.members)
        ).item(),
        "ensemble's test loss": F.nll_loss(mean_score.log(), test_labels).item(),
    }
    return numbers, accuracies, losses


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = common.command_line(__doc__)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args(arguments)
    with common.transforms(options) as api:
        numbers, accuracies, losses = train(api, options)
    common.show(numbers)
    if options.plot:

        def draw(figure):
            left, right = figure.subplots(1, 2)
            left.semilogy(losses, color="#0072b2")
            left.set_xlabel("step")
            left.set_ylabel("mean training loss of the members")
            right.bar(range(1, options.members + 1), sorted(accuracies), color="#0072b2")
            right.axhline(numbers["ensemble's accuracy"], color="#d55e00", label="ensemble")
            right.set_ylim(min(accuracies) - 0.02, None)
            right.set_xlabel("member")
            right.set_ylabel("test accuracy")
            right.legend(frameon=False, loc="upper left")

        common.save_plot(options.plot, draw)
    return numbers


if __name__ == "__main__":
    main()
