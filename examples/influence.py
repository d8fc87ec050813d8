"""Which training digits does a prediction rest on? Influence functions, checked by retraining.

Leaving a training example out of softmax regression moves the optimum by about H^-1 g, with H the
Hessian of the training loss and g the gradient of the example's own loss; the change of a test
loss follows to first order. `jvp` of `grad` multiplies by H, conjugate gradients invert it, and
`vmap(grad(...))` has the gradients of all examples. For some examples the model is then trained
again without them, and the ranks of true and predicted changes are compared.

The method is that of Koh and Liang, "Understanding black-box predictions via influence functions"
(2017).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from types import ModuleType

import common
import torch
import torch.nn.functional as F
from torch import Tensor

TRAINING = 500
CLASSES = 10
Product = Callable[[Tensor, Tensor, Tensor], Tensor]


def loss(weights: Tensor, features: Tensor, label: Tensor) -> Tensor:
    """Of softmax regression on one example; the last row of the weights is the bias."""
    *_, bias = weights
    return F.cross_entropy(features @ weights[:-1] + bias, label)


class Training:
    """Softmax regression with a ridge: its loss, of which each example has a share, or none."""

    def __init__(self, api: ModuleType, features: Tensor, labels: Tensor, ridge: float) -> None:
        self.features, self.labels, self.ridge = features, labels, ridge
        self.per_example = api.vmap(api.grad(loss), in_dims=(None, 0, 0))
        self.losses = api.vmap(loss, in_dims=(None, 0, 0))
        self.gradient = api.grad(self.objective)
        self.jvp = api.jvp

    def objective(self, weights: Tensor, shares: Tensor) -> Tensor:
        losses = self.losses(weights, self.features, self.labels)
        return shares @ losses / len(shares) + self.ridge / 2 * weights.square().sum()

    def hessian_product(self, weights: Tensor, shares: Tensor, direction: Tensor) -> Tensor:
        return self.jvp(lambda w: self.gradient(w, shares), (weights,), (direction,))[1]

    def inverse_hessian_product(self, weights: Tensor, shares: Tensor, vector: Tensor) -> Tensor:
        return conjugate_gradients(
            lambda direction: self.hessian_product(weights, shares, direction), vector
        )

    def optimum(self, start: Tensor, shares: Tensor, tolerance: float = 1e-10) -> Tensor:
        """By Newton's method, each of its systems solved by conjugate gradients."""
        weights = start
        while (gradient := self.gradient(weights, shares)).norm() > tolerance:
            step = self.inverse_hessian_product(weights, shares, gradient)
            weights = self.shortened(weights, step, gradient, shares)
        return weights

    def shortened(self, weights: Tensor, step: Tensor, gradient: Tensor, shares: Tensor) -> Tensor:
        """A Newton step, halved until the loss falls by a fair part of what the slope promises."""
        before, promise, length = self.objective(weights, shares), (gradient * step).sum(), 1.0
        rounding = 1e-14
        while self.objective(weights - length * step, shares) > (
            before - 0.1 * length * promise + rounding
        ):
            length /= 2
        return weights - length * step


def conjugate_gradients(
    multiply: Callable[[Tensor], Tensor], target: Tensor, tolerance: float = 1e-10
) -> Tensor:
    """The solution x of multiply(x) = target, for a positive definite map."""
    solution = torch.zeros_like(target)
    residual = direction = target
    size = (residual * residual).sum()
    goal = tolerance**2 * size
    while size > goal:
        image = multiply(direction)
        length = size / (direction * image).sum()
        solution = solution + length * direction
        residual = residual - length * image
        size, previous = (residual * residual).sum(), size
        direction = residual + size / previous * direction
    return solution


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's, for numbers without ties."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (first, second)])
    return torch.corrcoef(ranks)[0, 1].item()


def compute(
    api: ModuleType, options: argparse.Namespace
) -> tuple[dict[str, float], tuple[Tensor, Tensor], Tensor]:
    """The results, predicted and true changes, and the digits of greatest influence."""
    images, labels, test_images, test_labels = common.digits(TRAINING)
    features, test_features = images.flatten(1), test_images.flatten(1)
    training = Training(api, features, labels, options.ridge)
    everyone = torch.ones(TRAINING)
    weights = training.optimum(torch.zeros(features.shape[1] + 1, CLASSES), everyone)

    scores = test_features @ weights[:-1] + weights[-1]
    test_losses = F.cross_entropy(scores, test_labels, reduction="none")
    worst = test_losses.argmax()
    test = test_features[worst], test_labels[worst]

    solved = training.inverse_hessian_product(weights, everyone, api.grad(loss)(weights, *test))
    gradients = training.per_example(weights, features, labels)
    predicted = torch.tensordot(gradients, solved, dims=2) / TRAINING

    # Those expected to matter most, in either direction, and a few of the many that hardly do.
    order = predicted.argsort()
    third = max(1, options.retrained // 3)
    chosen = torch.cat([order[:third], order[-third:], torch.randperm(TRAINING)[:third]]).unique()
    true = torch.empty(len(chosen))
    for position, example in enumerate(common.progress(chosen, "retraining")):
        shares = everyone.clone()
        shares[example] = 0
        true[position] = loss(training.optimum(weights, shares), *test) - test_losses[worst]
    numbers = {
        "test accuracy": common.accuracy(scores, test_labels),
        "loss of the test digit": test_losses[worst].item(),
        "examples left out": len(chosen),
        "largest change, retrained": true.abs().max().item(),
        "largest change, predicted": predicted[chosen].abs().max().item(),
        "rank correlation": rank_correlation(predicted[chosen], true),
    }
    shown = torch.cat([test_images[worst, None], images[order[-3:].flip(0)], images[order[:3]]])
    return numbers, (predicted[chosen], true), shown.squeeze(1)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = common.command_line(__doc__)
    parser.add_argument("--ridge", type=float, default=0.01)
    parser.add_argument("--retrained", type=int, default=30, help="examples left out in turn")
    options = parser.parse_args(arguments)
    with common.transforms(options) as api:
        numbers, (predicted, true), shown = compute(api, options)
    common.show(numbers)
    if options.plot:
        titles = ["test", *["helpful"] * 3, *["harmful"] * 3]

        def draw(figure):
            left, right = figure.subfigures(1, 2)
            axes = left.subplots()
            axes.plot([true.min(), true.max()], [true.min(), true.max()], color="#cccccc")
            axes.plot(true, predicted, "o", color="#0072b2")
            axes.set_xlabel("change of the test loss without the example")
            axes.set_ylabel("predicted")
            panels = right.subplots(2, 4).flatten()
            for panel in panels:
                panel.axis("off")
            for panel, image, title in zip(panels, shown, titles, strict=False):
                panel.imshow(image, cmap="gray_r")
                panel.set_title(title, fontsize=9)

        common.save_plot(options.plot, draw)
    return numbers


if __name__ == "__main__":
    main()
