"""A model of the zoo as a function of its parameters and one example."""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from functx import functional_call

EXAMPLES = 3
DIRECTIONS = 2  # Jacobians and Hessians are taken along so many directions: few, but dense ones
PROJECTIONS = 3  # and of so many numbers made of the output


@dataclasses.dataclass
class Entry:
    """What a model's builder returns. `call(module, x, *data)` computes the outputs of an example:
    `x` is differentiated, `data` is not. `xs` and each of `datas` are stacks of examples.

    `error` is how far plain autograd, the reference, is off by itself. Without `autocasts` it comes
    to no end under autocast.
    """

    module: nn.Module
    xs: torch.Tensor
    datas: tuple = ()
    call: Callable = lambda module, x: module(x.unsqueeze(0))
    error: float = 0.0
    autocasts: bool = True


class Bound(nn.Module):
    """`functional_call` swaps the parameters of a module, so the call goes through one."""

    def __init__(self, entry):
        super().__init__()
        self.inner = entry.module
        self.call = entry.call

    def forward(self, x, *data):
        return self.call(self.inner, x, *data)


def floats(x):
    """All that a model returns in floating point, as one vector."""
    if isinstance(x, torch.Tensor):
        return [x.reshape(-1)] if x.is_floating_point() else []
    if isinstance(x, dict):
        x = x.values()
    if isinstance(x, (list, tuple)) or hasattr(x, "__iter__"):
        return [part for item in x for part in floats(item)]
    return []


def numbers(shape, phase, dtype):
    """Numbers around zero that are the same for whoever asks."""
    count = torch.Size(shape).numel()
    return (0.7 * torch.arange(count, dtype=torch.float64) + phase).cos().reshape(shape).to(dtype)


class Subject:
    """An entry in one precision, with the points, directions and tangents that the checks use."""

    def __init__(self, entry, dtype):
        self.dtype = dtype
        self.error, self.autocasts = entry.error, entry.autocasts
        self.module = Bound(entry).to(dtype)
        # Biases start at zero, and whole blocks are scaled by 1e-6: that may hide no error.
        with torch.no_grad():
            for k, p in enumerate(self.module.parameters()):
                p += 0.2 * numbers(p.shape, k, dtype)
        self.xs = entry.xs.to(dtype)
        self.datas = tuple(d.to(dtype) if d.is_floating_point() else d for d in entry.datas)
        self.params = {
            name: p.detach().clone()
            for name, p in self.module.named_parameters()
            if p.requires_grad
        }
        self.x, self.data = self.xs[0], tuple(d[0] for d in self.datas)
        self.x_directions = numbers((DIRECTIONS, *self.x.shape), 0.1, dtype)
        self.param_directions = {
            name: numbers((DIRECTIONS, *p.shape), k, dtype) * (0.3 * p.abs().mean() + 0.01)
            for k, (name, p) in enumerate(self.params.items())
        }
        self.param_tangents = {name: d[0] for name, d in self.param_directions.items()}
        self.x_tangents = numbers(self.xs.shape, 0.2, dtype)
        self.zero = torch.zeros(DIRECTIONS, dtype=dtype)
        self.single = dtype is not torch.float64 or self.computes_in_single_precision()

    def computes_in_single_precision(self):
        """Many models compute softmax and norms in float32 whatever they are given: over tiny steps
        the output moves in jumps, not in a line."""
        with torch.no_grad():
            steps = [1e-8 * k * self.x_directions[0] for k in range(16)]
            line = torch.stack([self.out(self.params, self.x + step, *self.data) for step in steps])
        bend = (line[2:] - 2 * line[1:-1] + line[:-2]).abs().max()
        return bool(bend > 1e-12 * (1 + line.abs().max()))

    def out(self, params, x, *data):
        """A few numbers that depend on every part of the output."""
        parts = torch.cat(floats(functional_call(self.module, params, (x, *data))))
        weights = numbers((PROJECTIONS, parts.numel()), 0.3, parts.dtype)
        return weights @ parts / parts.numel() ** 0.5

    def loss(self, params, x, *data):
        out = self.out(params, x, *data)
        return out[0] + (out * out).sum()

    def out_along_x(self, z):
        return self.out(self.params, self.moved_x(self.x, z), *self.data)

    def out_along_params(self, z):
        return self.out(self.moved_params(z), self.x, *self.data)

    def loss_along_x(self, z):
        return self.loss(self.params, self.moved_x(self.x, z), *self.data)

    def loss_along_params(self, z):
        return self.loss(self.moved_params(z), self.x, *self.data)

    def example_along_x(self, z, x, *data):
        return self.loss(self.params, self.moved_x(x, z), *data)

    def moved_x(self, x, z):
        return x + torch.tensordot(z, self.x_directions, 1)

    def moved_params(self, z):
        return {
            name: p + torch.tensordot(z, self.param_directions[name], 1)
            for name, p in self.params.items()
        }

    def example(self, k):
        return self.xs[k], tuple(d[k] for d in self.datas)
