"""Cases of fused attention, and their derivatives by plain autograd of attention written out."""

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from _attention import attend
from _reference import autograd_grad, directional_derivative

import functx

INPUTS = (0, 1, 2)


@dataclass(frozen=True)
class Case:
    """Sizes of query and key [N, heads, length, width], and what decides about the scores."""

    name: str
    query: tuple = (2, 3, 5, 8)
    key: tuple = (2, 3, 7, 8)
    mask: tuple | None = None
    dtype: torch.dtype = torch.float64  # of the mask
    options: dict = field(default_factory=dict)

    def __str__(self):
        return self.name

    def inputs(self):
        torch.manual_seed(0)
        shapes = (self.query, self.key, self.key)
        return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)

    def make_mask(self):
        if self.mask is None:
            return None
        mask = torch.randn(self.mask, dtype=torch.float64)
        return mask > -0.5 if self.dtype == torch.bool else mask

    def fused_and_written(self):
        mask = self.make_mask()
        gqa = {"enable_gqa": True} if self.query[1] != self.key[1] else {}

        def fused(q, k, v):
            return F.scaled_dot_product_attention(q, k, v, mask, **self.options, **gqa)

        return fused, lambda q, k, v: attend(q, k, v, mask, **self.options)


CAUSAL = {"is_causal": True}
# With one thread, the score matrix of those with several hundred queries is several blocks.
CASES = [
    Case("plain"),
    Case("scale", options={"scale": 0.3}),
    Case("causal", options=CAUSAL),
    Case("causal, more queries", query=(2, 3, 9, 8), options=CAUSAL),
    Case("mask", mask=(5, 7)),
    Case("mask per item", mask=(2, 1, 5, 7)),
    Case("mask of keys", mask=(2, 1, 1, 7)),
    Case("mask per head", mask=(1, 3, 5, 7)),
    Case("bool mask", mask=(5, 7), dtype=torch.bool),
    Case("groups of heads", query=(2, 6, 5, 8), key=(2, 2, 7, 8)),
    Case("one query", query=(2, 3, 1, 8)),
    Case("blocks", query=(1, 2, 270, 4), key=(1, 2, 260, 4)),
    Case("blocks, causal", query=(1, 2, 260, 4), key=(1, 2, 260, 4), options=CAUSAL),
    Case("blocks, causal, more keys", query=(1, 2, 260, 4), key=(1, 2, 400, 4), options=CAUSAL),
    Case("blocks, causal, more queries", query=(1, 2, 400, 4), key=(1, 2, 260, 4), options=CAUSAL),
    Case("blocks, mask", query=(1, 2, 270, 4), key=(1, 2, 260, 4), mask=(2, 270, 260)),
    Case("blocks of heads", query=(3, 7, 70, 4), key=(3, 7, 130, 4), mask=(3, 1, 1, 130)),
]
SMALL = [case for case in CASES if not case.name.startswith("blocks")]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_small_case = pytest.mark.parametrize("case", SMALL, ids=str)


def like(tensors):
    return tuple(torch.randn_like(x) for x in tensors)


def loss_of(f):
    """Neither linear nor the same for all outputs."""
    return lambda *args: f(*args).sin().sum()


def written_jvp(f, primals, tangents):
    """By plain autograd: J^T u is linear in u, and its derivative by u along a tangent is J t."""
    probe = torch.zeros_like(f(*primals)).requires_grad_()
    primals = [x if x.requires_grad else x.detach().requires_grad_() for x in primals]
    pulled = torch.autograd.grad(f(*primals), primals, probe, create_graph=True)
    return torch.autograd.grad(pulled, probe, tangents, create_graph=True)[0]


def as_tuple(tree):
    return tree if isinstance(tree, tuple) else (tree,)


def loop(f, batched, args):
    """vmap of `f`, for those of `args` that are batched."""
    count = next(len(x) for x, b in zip(args, batched, strict=True) if b)
    results = [
        as_tuple(f(*(x[i] if b else x for x, b in zip(args, batched, strict=True))))
        for i in range(count)
    ]
    stacked = tuple(torch.stack(each) for each in zip(*results, strict=True))
    return stacked if len(stacked) > 1 else stacked[0]


def written_gradient_jvp(f, primals, tangents):
    return directional_derivative(lambda *x: autograd_grad(loss_of(f), *x), primals, tangents)


class Functx:
    """functx, with a jvp that returns the tangent only."""

    grad = staticmethod(functx.grad)

    @staticmethod
    def jvp(f, primals, tangents):
        return functx.jvp(f, primals, tangents)[1]


class Autograd:
    """The same by plain autograd."""

    jvp = staticmethod(written_jvp)

    @staticmethod
    def grad(f):
        def gradient(*args):
            args = [x if x.requires_grad else x.detach().requires_grad_() for x in args]
            return torch.autograd.grad(f(*args), args[0], create_graph=True)[0]

        return gradient


SOME = [case for case in SMALL if case.name in ("plain", "causal", "bool mask", "groups of heads")]
MASKS = [(5, 7), (2, 1, 5, 7), (1, 3, 1, 7), (2, 3, 5, 7)]
