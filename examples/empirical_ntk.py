"""The empirical neural tangent kernel of a CNN on scikit-learn's digits, in two ways.

The kernel of two inputs is J(x1) J(x2)^T, with J the Jacobian of the network's outputs by its
parameters. Either compute both Jacobians and contract them, or leave them out and apply the
product of the two to unit vectors, `jvp` after `vjp`. The first keeps a Jacobian for each input,
the second (NTK-vector products) never has one.

Regression with the kernel of the untrained network then classifies digits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from types import ModuleType

import common
import torch
from torch import Tensor, nn

Parameters = dict[str, Tensor]
Predict = Callable[[Parameters, Tensor], Tensor]
Kernel = Callable[[Parameters, Tensor, Tensor], Tensor]


def make_network(api: ModuleType) -> tuple[Predict, Parameters]:
    """A function (parameters, image) -> 10 outputs, and its parameters."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, 10),
    )

    def predict(parameters: Parameters, image: Tensor) -> Tensor:
        return api.functional_call(model, parameters, (image.unsqueeze(0),)).squeeze(0)

    return predict, {name: value.detach() for name, value in model.named_parameters()}


def by_contraction(api: ModuleType, predict: Predict) -> Kernel:
    """The kernels of all pairs, (inputs, inputs, outputs, outputs), from the Jacobians."""
    jacobians = api.vmap(api.jacrev(predict), in_dims=(None, 0))

    def kernel(parameters: Parameters, first: Tensor, second: Tensor) -> Tensor:
        lefts, rights = jacobians(parameters, first), jacobians(parameters, second)
        contracted = [
            torch.einsum("aip,bjp->abij", left.flatten(2), rights[name].flatten(2))
            for name, left in lefts.items()
        ]
        return torch.stack(contracted).sum(0)

    return kernel


def by_products(api: ModuleType, predict: Predict) -> Kernel:
    """The same by NTK-vector products."""

    def pair(parameters: Parameters, first: Tensor, second: Tensor) -> Tensor:
        outputs, pullback = api.vjp(lambda parameters: predict(parameters, second), parameters)

        def product(unit: Tensor) -> Tensor:
            (direction,) = pullback(unit)
            return api.jvp(
                lambda parameters: predict(parameters, first), (parameters,), (direction,)
            )[1]

        units = torch.eye(outputs.numel(), dtype=outputs.dtype)
        return api.vmap(product, out_dims=1)(units)  # a unit vector picks a column

    over_second = api.vmap(pair, in_dims=(None, None, 0))
    return api.vmap(over_second, in_dims=(None, 0, None))


def as_matrix(kernel: Tensor) -> Tensor:
    """(inputs, inputs, outputs, outputs) as a square matrix, an input's outputs side by side."""
    rows, columns, outputs, _ = kernel.shape
    return kernel.transpose(1, 2).reshape(rows * outputs, columns * outputs)


def regression(
    kernel: Kernel, parameters: Parameters, data: tuple[Tensor, ...], ridge: float
) -> float:
    """The test accuracy of ridge regression on one-hot labels."""
    images, labels, test_images, test_labels = data
    targets = nn.functional.one_hot(labels, 10).to(images.dtype) - 0.1
    matrix = as_matrix(kernel(parameters, images, images))
    matrix.diagonal().add_(ridge * matrix.diagonal().mean())
    weights = torch.linalg.solve(matrix, targets.flatten())
    scores = as_matrix(kernel(parameters, test_images, images)) @ weights
    return common.accuracy(scores.unflatten(0, (-1, 10)), test_labels)


def compute(api: ModuleType, options: argparse.Namespace) -> tuple[dict[str, float], Tensor]:
    """The results and the eigenvalues of the kernel, the largest first."""
    predict, parameters = make_network(api)
    contraction, products = by_contraction(api, predict), by_products(api, predict)
    images, labels, test_images, test_labels = common.digits(options.training)
    few = images[: options.pairs]
    kernel = contraction(parameters, few, few)
    difference = (kernel - products(parameters, few, few)).abs().max() / kernel.abs().max()
    spectrum = torch.linalg.eigvalsh(as_matrix(kernel)).flip(0)
    data = images, labels, test_images[: options.test], test_labels[: options.test]
    numbers = {
        "difference of the two ways": difference.item(),
        "largest eigenvalue": spectrum[0].item(),
        "smallest eigenvalue": spectrum[-1].item(),
        "share of the 10 largest": (spectrum[:10].sum() / spectrum.sum()).item(),
        "accuracy of kernel regression": regression(contraction, parameters, data, options.ridge),
    }
    return numbers, spectrum


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    parser = common.command_line(__doc__)
    parser.add_argument("--pairs", type=int, default=24, help="inputs for comparing the two ways")
    parser.add_argument("--training", type=int, default=150)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--ridge", type=float, default=1e-3, help="share of the kernel's diagonal")
    options = parser.parse_args(arguments)
    with common.transforms(options) as api:
        numbers, spectrum = compute(api, options)
    common.show(numbers)
    if options.plot:

        def draw(figure):
            axes = figure.subplots()
            axes.semilogy(range(1, len(spectrum) + 1), spectrum, ".", color="#0072b2")
            axes.set_xlabel("rank")
            axes.set_ylabel("eigenvalue of the kernel")

        common.save_plot(options.plot, draw, width=5)
    return numbers


if __name__ == "__main__":
    main()
