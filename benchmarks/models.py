"""Per-sample gradients, ``vmap(grad(loss))``, of small models of three kinds."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .report import Report
from .timing import Thunk
from .workload import Workload, report

NAME = "models"
TITLE = "Per-sample gradients of models"
CLASSES = 10


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, CLASSES),
    )


class Block(nn.Module):
    """A pre-norm transformer block, its attention written out or one fused operator."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.transpose(-2, -4).unbind(-3)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
            mixed = scores.softmax(-1) @ value
        x = x + self.project(mixed.transpose(-2, -3).flatten(-2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Two blocks that classify a sequence of tokens by the mean of its last states."""

    VOCABULARY = 128
    LENGTH = 32

    def __init__(self, fused: bool, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(self.VOCABULARY, width)
        self.positions = nn.Parameter(0.02 * torch.randn(self.LENGTH, width))
        self.blocks = nn.Sequential(*(Block(width, heads, fused) for _ in range(depth)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.tokens(tokens) + self.positions).mean(-2))


def _per_sample(
    make_model: Callable[[], nn.Module], make_inputs: Callable[[], Tensor]
) -> Callable[..., Thunk]:
    def build(api: ModuleType, device: torch.device) -> Thunk:
        model = make_model().to(device)
        parameters = {name: value.detach() for name, value in model.named_parameters()}
        inputs = make_inputs().to(device)
        labels = torch.randint(CLASSES, inputs.shape[:1]).to(device)

        def loss(parameters: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
            logits = api.functional_call(model, parameters, (x.unsqueeze(0),))
            return F.cross_entropy(logits, label.unsqueeze(0))

        gradients = api.vmap(api.grad(loss), in_dims=(None, 0, 0))
        return lambda: gradients(parameters, inputs, labels)

    return build


def _tokens() -> Tensor:
    return torch.randint(Transformer.VOCABULARY, (16, Transformer.LENGTH))


WORKLOADS = [
    Workload("MLP 784-256-256-10, batch 64", _per_sample(mlp, lambda: torch.randn(64, 784))),
    Workload("CNN on 28x28, batch 32", _per_sample(cnn, lambda: torch.randn(32, 1, 28, 28))),
    Workload(
        "transformer, 32 tokens, batch 16",
        _per_sample(lambda: Transformer(fused=False), _tokens),
    ),
    # torch.func has no rule for the fused operator on the CPU and loops over the examples.
    Workload(
        "transformer with fused attention",
        _per_sample(lambda: Transformer(fused=True), _tokens),
    ),
]


def run(seconds: float) -> list[Report]:
    return [report(NAME, TITLE, WORKLOADS, seconds=seconds)]
