"""What benchmarks/families.py measures: operators of each family, and their batch by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, randint, randn


@dataclass(frozen=True)
class Case:
    """``function`` takes one example, ``by_hand`` the whole batch of the same ``inputs``.

    ``by_hand`` is meant to be the fastest of the ways that someone who knows PyTorch would try.
    """

    name: str
    function: Callable[..., Any]
    by_hand: Callable[..., Any]
    inputs: Callable[[], tuple[Tensor, ...]]
    in_dims: Any = 0
    randomness: str = "error"
    differentiates: bool = False  # then ``function`` takes the module of the transforms first


B, N = 16384, 1024


def same(name: str, function: Callable[..., Any], *shape: int) -> Case:
    """A function that takes any number of dimensions in front."""
    return Case(name, function, function, lambda: (randn(shape),))


POINTWISE = [
    same("sin", torch.sin, 4096, N),
    same("gelu", F.gelu, B, N),
    same("silu", F.silu, B, N),
    same("digamma", torch.digamma, 512, 512),
    Case("erfinv", torch.erfinv, torch.erfinv, lambda: (torch.rand(4096, N) - 0.5,)),
    Case(
        "mul, one factor shared", torch.mul, torch.mul, lambda: (randn(B, N), randn(N)), (0, None)
    ),
    Case(
        "add, a scalar each",
        torch.add,
        lambda x, y: x + y[:, None],
        lambda: (randn(B, N), randn(B)),
    ),
    Case(
        "addcmul, one factor shared",
        torch.addcmul,
        torch.addcmul,
        lambda: (randn(B, N), randn(B, N), randn(N)),
        (0, 0, None),
    ),
    Case(
        "add, float and an integer each",
        torch.add,
        lambda x, y: x + y[:, None],
        lambda: (randn(B, N), randint(9, (B,))),
    ),
    Case("gt, shared bounds", torch.gt, torch.gt, lambda: (randn(B, N), randn(N)), (0, None)),
    Case(
        "where, one side shared",
        torch.where,
        torch.where,
        lambda: (randn(4096, N) > 0, randn(4096, N), randn(N)),
        (0, 0, None),
    ),
    same("cos_", torch.cos_, 4096, N),
    Case(
        "masked_fill, shared mask",
        lambda x, mask: x.masked_fill(mask, -1.0),
        lambda x, mask: x.masked_fill(mask, -1.0),
        lambda: (randn(8192, N), randn(N) > 0),
        (0, None),
    ),
]

REDUCTIONS = [
    Case("sum of all", torch.sum, lambda x: x.sum((1, 2)), lambda: (randn(4096, 64, 128),)),
    Case("sum(0)", lambda x: x.sum(0), lambda x: x.sum(1), lambda: (randn(4096, 64, 128),)),
    same("amax(-1)", lambda x: x.amax(-1), 4096, 64, 128),
    Case("var(0)", lambda x: x.var(0), lambda x: x.var(1), lambda: (randn(64, 64, 128),)),
    same("logsumexp(-1)", lambda x: x.logsumexp(-1), 2048, 16, 128),
    Case(
        "argmax of all",
        torch.argmax,
        lambda x: x.flatten(1).argmax(1),
        lambda: (randn(8192, 8, 128),),
    ),
    Case("max(0)", lambda x: x.max(0), lambda x: x.max(1), lambda: (randn(1024, 64, 64),)),
    Case("prod of all", torch.prod, lambda x: x.prod(1), lambda: (torch.rand(49152, 512) + 0.5,)),
    Case("norm", torch.linalg.norm, lambda x: x.norm(dim=1), lambda: (randn(32768, 1024),)),
    same("cumsum(-1)", lambda x: x.cumsum(-1), 4096, N),
    same("sort", torch.sort, 1024, 256),
    same("topk", lambda x: x.topk(10), N, 512),
    Case("median", torch.median, lambda x: x.median(1)[0], lambda: (randn(1024, 512),)),
    same("softmax(-1)", lambda x: x.softmax(-1), 3072, 16, 128),
    Case(
        "log_softmax(0)",
        lambda x: x.log_softmax(0),
        lambda x: x.log_softmax(1),
        lambda: (randn(1536, 64, 64),),
    ),
]

PRODUCTS = [
    Case(
        "mv, shared matrix",
        torch.mv,
        lambda a, x: x @ a.T,
        lambda: (randn(512, 512), randn(1024, 512)),
        (None, 0),
    ),
    Case(
        "mv, shared vector",
        torch.mv,
        torch.matmul,
        lambda: (randn(2048, 64, 128), randn(128)),
        (0, None),
    ),
    Case(
        "mv",
        torch.mv,
        lambda a, x: torch.bmm(x[:, None], a.mT)[:, 0],
        lambda: (randn(2048, 64, 128), randn(2048, 128)),
    ),
    Case(
        "dot",
        torch.dot,
        torch.linalg.vecdot,
        lambda: (randn(8192, N), randn(8192, N)),
    ),
    Case("mm", torch.mm, torch.bmm, lambda: (randn(1024, 64, 64), randn(1024, 64, 64))),
    Case(
        "mm, shared right",
        torch.mm,
        torch.matmul,
        lambda: (randn(1024, 64, 64), randn(64, 64)),
        (0, None),
    ),
    Case(
        "mm, shared left",
        torch.mm,
        torch.matmul,
        lambda: (randn(64, 64), randn(1024, 64, 64)),
        (None, 0),
    ),
    Case(
        "bmm, shared right",
        torch.bmm,
        torch.matmul,
        lambda: (randn(128, 8, 32, 64), randn(8, 64, 64)),
        (0, None),
    ),
    Case(
        "addmm, shared matrix and bias",
        torch.addmm,
        lambda bias, x, w: torch.addmm(bias, x.flatten(0, 1), w).unflatten(0, x.shape[:2]),
        lambda: (randn(64), randn(1024, 64, 64), randn(64, 64)),
        (None, 0, None),
    ),
    Case(
        "einsum, bilinear form",
        lambda x, a, y: torch.einsum("i,ij,j->", x, a, y),
        lambda x, a, y: torch.einsum("bi,ij,bj->b", x, a, y),
        lambda: (randn(4096, 256), randn(256, 256) / 256, randn(4096, 256)),
        (0, None, 0),
    ),
    Case(
        "linear, shared weight",
        F.linear,
        F.linear,
        lambda: (randn(1024, 512), randn(512, 512), randn(512)),
        (0, None, None),
    ),
    Case(
        "linear, a weight each",
        F.linear,
        lambda x, w, b: torch.baddbmm(b[:, None], x, w.mT),
        lambda: (randn(256, 32, 128), randn(256, 128, 128), randn(256, 128)),
    ),
    Case("cdist", torch.cdist, torch.cdist, lambda: (randn(512, 64, 32), randn(512, 64, 32))),
    Case(
        "scaled_dot_product_attention",
        F.scaled_dot_product_attention,
        F.scaled_dot_product_attention,
        lambda: (randn(32, 4, 128, 32), randn(32, 4, 128, 32), randn(32, 4, 128, 32)),
    ),
]


def _rows_of_tables(rows: Tensor, tables: Tensor) -> Tensor:
    """All tables as one long one."""
    first = torch.arange(len(tables))[:, None] * tables.shape[1]
    return F.embedding(rows + first, tables.flatten(0, 1))


INDEXING = [
    Case(
        "embedding",
        F.embedding,
        F.embedding,
        lambda: (randint(1000, (1024, 64)), randn(1000, 256)),
        (0, None),
    ),
    Case(
        "embedding, a table each",
        F.embedding,
        _rows_of_tables,
        lambda: (randint(100, (512, 128)), randn(512, 100, 256)),
    ),
    Case(
        "gather(0)",
        lambda x, i: x.gather(0, i),
        lambda x, i: x.gather(1, i),
        lambda: (randn(256, 128, 64), randint(128, (256, 128, 64))),
    ),
    Case(
        "gather(0), shared index",
        lambda x, i: x.gather(0, i),
        lambda x, i: x.gather(1, i.expand(x.shape[0], -1, -1)),
        lambda: (randn(256, 128, 64), randint(128, (128, 64))),
        (0, None),
    ),
    Case(
        "scatter_add(0)",
        lambda x, i, y: x.scatter_add(0, i, y),
        lambda x, i, y: x.scatter_add(1, i, y),
        lambda: (randn(256, 128, 64), randint(128, (256, 128, 64)), randn(256, 128, 64)),
    ),
    Case(
        "take_along_dim(-1)",
        lambda x, i: x.take_along_dim(i, -1),
        lambda x, i: x.take_along_dim(i, -1),
        lambda: (randn(4096, 512), randint(512, (4096, 512))),
    ),
    Case(
        "index_select(0), shared index",
        lambda x, i: x.index_select(0, i),
        lambda x, i: x.index_select(1, i),
        lambda: (randn(512, 128, 256), randint(128, (128,))),
        (0, None),
    ),
    Case(
        "index_select(0)",
        lambda x, i: x.index_select(0, i),
        lambda x, i: _rows_of_tables(i, x),
        lambda: (randn(512, 128, 256), randint(128, (512, 128))),
    ),
    Case(
        "x[i, :, j]",
        lambda x, i, j: x[i, :, j],
        lambda x, i, j: x[torch.arange(len(x))[:, None], i, :, j],
        lambda: (randn(128, 32, 32, 32), randint(32, (128, 512)), randint(32, (128, 512))),
    ),
    Case(
        "index_put, accumulating",
        lambda x, i, y: x.index_put((i,), y, accumulate=True),
        lambda x, i, y: x.index_put((torch.arange(len(x))[:, None], i), y, accumulate=True),
        lambda: (randn(256, 128, 64), randint(128, (256, 128)), randn(256, 128, 64)),
    ),
]

REARRANGING = [
    Case(
        "cat, one part shared",
        lambda x, y: torch.cat([x, y]),
        lambda x, y: torch.cat([x, y.expand(len(x), -1, -1)], 1),
        lambda: (randn(4096, 32, 64), randn(32, 64)),
        (0, None),
    ),
    Case(
        "stack",
        lambda x, y: torch.stack([x, y]),
        lambda x, y: torch.stack([x, y], 1),
        lambda: (randn(8192, N), randn(8192, N)),
    ),
    same("pad with zeros", lambda x: F.pad(x, (1, 1, 1, 1)), 384, 16, 32, 32),
    same("pad, reflecting", lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 384, 16, 32, 32),
    Case("roll(0)", lambda x: x.roll(3, 0), lambda x: x.roll(3, 1), lambda: (randn(1792, 64, 64),)),
    Case("flip(0)", lambda x: x.flip(0), lambda x: x.flip(1), lambda: (randn(1792, 64, 64),)),
    same("tril", torch.tril, 1024, 64, 64),
    same("diag_embed", torch.diag_embed, 1024, 128),
    Case("tile", lambda x: x.tile(2, 2), lambda x: x.tile(1, 2, 2), lambda: (randn(448, 64, 64),)),
]

LINALG = [
    same("fft", torch.fft.fft, 4096, 512),
    same("rfft2", torch.fft.rfft2, 1024, 64, 64),
    Case(
        "cholesky",
        torch.linalg.cholesky,
        torch.linalg.cholesky,
        lambda: (_positive_definite(2048, 32),),
    ),
    Case(
        "solve",
        torch.linalg.solve,
        torch.linalg.solve,
        lambda: (_positive_definite(1024, 32), randn(1024, 32, 4)),
    ),
    Case(
        "solve, shared matrix",
        torch.linalg.solve,
        lambda a, b: torch.linalg.solve(a, b.T).T,
        lambda: (_positive_definite(256), randn(2048, 256)),
        (None, 0),
    ),
    Case("inv", torch.linalg.inv, torch.linalg.inv, lambda: (_positive_definite(256, 32),)),
    Case("det", torch.linalg.det, torch.linalg.det, lambda: (_positive_definite(1024, 32) / 32,)),
    Case(
        "eigh, the values",
        lambda a: torch.linalg.eigh(a)[0],
        lambda a: torch.linalg.eigh(a)[0],
        lambda: (_positive_definite(128, 32),),
    ),
    same("svd, the values", lambda a: torch.linalg.svd(a)[1], 64, 32, 32),
    same("qr", torch.linalg.qr, 512, 32, 32),
]


def _positive_definite(*shape: int) -> Tensor:
    """[..., n] to [..., n, n]."""
    n = shape[-1]
    factor = randn(*shape, n)
    return factor @ factor.mT / n + torch.eye(n)


RANDOM = [
    Case(
        "dropout",
        lambda x: F.dropout(x, 0.3),
        lambda x: F.dropout(x, 0.3),
        lambda: (randn(512, N),),
        randomness="different",
    ),
    Case(
        "randn_like",
        torch.randn_like,
        torch.randn_like,
        lambda: (randn(2048, N),),
        randomness="different",
    ),
]

OPERATORS = [
    *POINTWISE,
    *REDUCTIONS,
    *PRODUCTS,
    *INDEXING,
    *REARRANGING,
    *LINALG,
    *RANDOM,
]
