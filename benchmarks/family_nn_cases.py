"""What benchmarks/families.py measures of layers, losses and derivatives."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, randint, randn

from .family_cases import B, Case, N, same


def _grouped_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """One group for every example: x [B, C, H, W], weight [B, O, C, h, w]."""
    folded = x.flatten(0, 1)[None]
    return F.conv2d(folded, weight.flatten(0, 1), groups=x.shape[0])[0].unflatten(
        0, weight.shape[:2]
    )


def _instance_norm(x: Tensor) -> Tensor:
    return F.instance_norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _lstm() -> torch.nn.LSTM:
    torch.manual_seed(0)
    return torch.nn.LSTM(32, 64, batch_first=True).requires_grad_(False)


LSTM = _lstm()

GRID = F.affine_grid(torch.eye(2, 3)[None] * 0.9, [1, 1, 32, 32], align_corners=False)[0]

LAYERS = [
    Case(
        "conv1d, shared weight",
        F.conv1d,
        F.conv1d,
        lambda: (randn(1024, 16, 128), randn(32, 16, 3)),
        (0, None),
    ),
    Case(
        "conv2d, shared weight",
        F.conv2d,
        F.conv2d,
        lambda: (randn(256, 8, 32, 32), randn(16, 8, 3, 3)),
        (0, None),
    ),
    Case(
        "conv2d, a weight each",
        F.conv2d,
        _grouped_conv2d,
        lambda: (randn(128, 8, 32, 32), randn(128, 16, 8, 3, 3)),
    ),
    Case(
        "conv2d, shared input",
        F.conv2d,
        lambda x, w: F.conv2d(x[None], w.flatten(0, 1))[0].unflatten(0, w.shape[:2]),
        lambda: (randn(8, 32, 32), randn(256, 16, 8, 3, 3)),
        (None, 0),
    ),
    same("max_pool2d", lambda x: F.max_pool2d(x, 2), 64, 16, 32, 32),
    same("avg_pool2d", lambda x: F.avg_pool2d(x, 2), 128, 16, 32, 32),
    same("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, 5), 512, 16, 32, 32),
    Case(
        "interpolate, bilinear",
        lambda x: F.interpolate(x[None], scale_factor=2, mode="bilinear")[0],
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda: (randn(64, 8, 32, 32),),
    ),
    Case(
        "grid_sample",
        lambda x, grid: F.grid_sample(x[None], grid[None], align_corners=False)[0],
        lambda x, grid: F.grid_sample(x, grid, align_corners=False),
        lambda: (randn(256, 8, 32, 32), GRID.expand(256, -1, -1, -1).clone()),
    ),
    Case(
        "batch_norm, evaluation",
        F.batch_norm,
        lambda x, mean, var: F.batch_norm(x.flatten(0, 1), mean, var).unflatten(0, x.shape[:2]),
        lambda: (randn(512, 8, 16, 16, 16), randn(16), torch.rand(16) + 1),
        (0, None, None),
    ),
    Case(
        "batch_norm, training",
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: (
            F.batch_norm(x.movedim(0, 1).flatten(1, 2), None, None, training=True)
            .unflatten(1, (x.shape[0], x.shape[2]))
            .movedim(1, 0)
        ),
        lambda: (randn(48, 8, 16, 16, 16),),
    ),
    Case(
        "layer_norm, shared weight",
        lambda x, w, b: F.layer_norm(x, (256,), w, b),
        lambda x, w, b: F.layer_norm(x, (256,), w, b),
        lambda: (randn(448, 64, 256), randn(256), randn(256)),
        (0, None, None),
    ),
    Case(
        "layer_norm, a weight each",
        lambda x, w, b: F.layer_norm(x, (256,), w, b),
        lambda x, w, b: torch.addcmul(b[:, None], F.layer_norm(x, (256,)), w[:, None]),
        lambda: (randn(256, 64, 256), randn(256, 256), randn(256, 256)),
    ),
    Case(
        "group_norm",
        lambda x, w, b: F.group_norm(x[None], 4, w, b)[0],
        lambda x, w, b: F.group_norm(x, 4, w, b),
        lambda: (randn(1024, 16, 32, 32), randn(16), randn(16)),
        (0, None, None),
    ),
    Case("instance_norm", F.instance_norm, _instance_norm, lambda: (randn(48, 4, 16, 32, 32),)),
    Case(
        "lstm",
        lambda x: LSTM(x)[0],
        lambda x: LSTM(x)[0],
        lambda: (randn(768, 16, 32),),
    ),
]


def _row_means(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss of scores [B, n, C] and targets [B, n], its mean for each example."""

    def means(scores: Tensor, target: Tensor) -> Tensor:
        each = loss(scores.flatten(0, 1), target.flatten(), reduction="none")
        return each.view(target.shape).mean(1)

    return means


LOSSES = [
    Case(
        "mse_loss",
        F.mse_loss,
        lambda x, y: F.mse_loss(x, y, reduction="none").mean(1),
        lambda: (randn(B, N), randn(B, N)),
    ),
    Case(
        "huber_loss",
        F.huber_loss,
        lambda x, y: F.huber_loss(x, y, reduction="none").mean(1),
        lambda: (randn(B, N), randn(B, N)),
    ),
    Case(
        "binary_cross_entropy",
        F.binary_cross_entropy,
        lambda x, y: F.binary_cross_entropy(x, y, reduction="none").mean(1),
        lambda: (torch.rand(N, 256), torch.rand(N, 256)),
    ),
    Case(
        "nll_loss",
        F.nll_loss,
        _row_means(F.nll_loss),
        lambda: (randn(1024, 256, 64), randint(64, (1024, 256))),
    ),
    Case(
        "cross_entropy",
        F.cross_entropy,
        _row_means(F.cross_entropy),
        lambda: (randn(768, 64, 128), randint(128, (768, 64))),
    ),
]


def _gradient_by_hand(function: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """Of the sum over the batch, whose terms do not see each other."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x, *others).sum(), x)[0]


def _conv2d_weight_gradient(weight: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
    gradient = torch.ops.aten.convolution_backward(
        cotangent.flatten(0, 1)[None],
        x.flatten(0, 1)[None],
        weight.expand(x.shape[0], -1, -1, -1, -1).flatten(0, 1),
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        x.shape[0],
        [False, True, False],
    )[1]
    return gradient.unflatten(0, (x.shape[0], -1))


def _output_and_gradient(
    api: ModuleType, function: Callable[[Tensor], Tensor], x: Tensor, cotangent: Tensor
) -> tuple[Tensor, Tensor]:
    output, pull_back = api.vjp(function, x)
    return output, pull_back(cotangent)[0]


def _vjp_of(function: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda api, x, cotangent: _output_and_gradient(api, function, x, cotangent)


def _vjp_by_hand(function: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def pull_back(x: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        output = function(x)
        return output.detach(), torch.autograd.grad(output, x, cotangent)[0]

    return pull_back


DERIVATIVES = [
    Case(
        "vmap(vjp(gelu))",
        _vjp_of(F.gelu),
        _vjp_by_hand(F.gelu),
        lambda: (randn(2048, N), randn(2048, N)),
        differentiates=True,
    ),
    Case(
        "vmap(vjp(softmax))",
        _vjp_of(lambda x: x.softmax(-1)),
        _vjp_by_hand(lambda x: x.softmax(-1)),
        lambda: (randn(8192, 256), randn(8192, 256)),
        differentiates=True,
    ),
    Case(
        "vmap(vjp(max_pool2d))",
        _vjp_of(lambda x: F.max_pool2d(x, 2)),
        _vjp_by_hand(lambda x: F.max_pool2d(x, 2)),
        lambda: (randn(64, 16, 32, 32), randn(64, 16, 16, 16)),
        differentiates=True,
    ),
    Case(
        "vmap(vjp) of linear, the weight",
        lambda api, w, x, y: _output_and_gradient(api, lambda w: F.linear(x, w), w, y),
        lambda w, x, y: (x @ w.T, y.mT @ x),
        lambda: (randn(64, 128), randn(768, 32, 128), randn(768, 32, 64)),
        (None, 0, 0),
        differentiates=True,
    ),
    Case(
        "vmap(grad) of conv2d, the input",
        lambda api, x, w: api.grad(lambda x: F.conv2d(x, w).sin().sum())(x),
        lambda x, w: _gradient_by_hand(lambda x: F.conv2d(x, w).sin(), x),
        lambda: (randn(64, 8, 32, 32), randn(16, 8, 3, 3)),
        (0, None),
        differentiates=True,
    ),
    Case(
        "vmap(vjp) of conv2d, the weight",
        lambda api, w, x, y: _output_and_gradient(api, lambda w: F.conv2d(x, w), w, y),
        lambda w, x, y: (F.conv2d(x, w), _conv2d_weight_gradient(w, x, y)),
        lambda: (randn(16, 8, 3, 3), randn(192, 8, 32, 32), randn(192, 16, 30, 30)),
        (None, 0, 0),
        differentiates=True,
    ),
]

NN = [*LAYERS, *LOSSES, *DERIVATIVES]
