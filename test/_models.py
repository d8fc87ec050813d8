"""Small models for the tests: each with a loss of (params, example, target) for one example."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.SiLU(), nn.Linear(6, 3)
        )

    def forward(self, x):
        return self.layers(x)


class Cnn(nn.Module):
    """Takes one image (C, H, W); convolutions and norms see a batch of one."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.norm2 = nn.GroupNorm(3, 6)
        self.head = nn.Linear(6 * 2 * 2, 3)
        self.dropout = dropout

    def forward(self, x):
        x = x.unsqueeze(0)
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.max_pool2d(x, 2)
        x = F.gelu(self.norm2(self.conv2(x)))
        x = F.adaptive_avg_pool2d(F.avg_pool2d(x, 2, stride=1), 2)
        x = F.dropout(x.flatten(1), self.dropout, self.dropout > 0)
        return self.head(x).squeeze(0)


class Transformer(nn.Module):
    """One sequence of tokens; a single block with causal attention."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.tokens = nn.Embedding(11, width)
        self.positions = nn.Parameter(torch.randn(6, width) * 0.1)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.head = nn.Linear(width, 11)

    def attention(self, x):
        length, width = x.shape
        qkv = self.qkv(x).view(length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(1, 2, 0, 3).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = torch.softmax(q @ k.transpose(-2, -1), -1)
        y = y + 0.1 * (scores @ v)
        return self.out(y.transpose(0, 1).reshape(length, width))

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions[: tokens.shape[-1]]
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x)


@dataclass
class Problem:
    """A model with data: `loss(params, x, y)` is that of one example."""

    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor

    @property
    def params(self):
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def predict(self, params, x):
        buffers = dict(self.model.named_buffers())
        return functional_call(self.model, (params, buffers), (x,))

    def loss(self, params, x, y):
        return F.cross_entropy(self.predict(params, x), y)


def make_mlp(dtype=torch.float64):
    return Problem(Mlp().to(dtype), torch.randn(4, 5, dtype=dtype), torch.tensor([0, 2, 1, 0]))


def make_cnn(dtype=torch.float64, dropout=0.0):
    model = Cnn(dropout).to(dtype)
    model(torch.randn(2, 11, 11, dtype=dtype))  # gives batch norm some statistics
    model.eval()
    return Problem(model, torch.randn(3, 2, 11, 11, dtype=dtype), torch.tensor([0, 2, 1]))


def make_transformer(dtype=torch.float64):
    tokens, targets = torch.randint(0, 11, (3, 6)), torch.randint(0, 11, (3, 6))
    return Problem(Transformer().to(dtype), tokens, targets)


PROBLEMS = {"mlp": make_mlp, "cnn": make_cnn, "transformer": make_transformer}
