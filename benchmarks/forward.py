"""`jvp` of building blocks: large ones beside the primal alone, small ones beside torch.func.

An operator costs its tangent about what it costs its primal, for every argument that has a tangent:
a product of two matrices is three, if both have one (no exact way needs fewer: the rank of the dual
numbers as an algebra is three). Each block is measured with a tangent of its first input alone and
with tangents of all. The other sides are `torch.func.jvp` and plain `torch.autograd.forward_ad`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
import torch.func
import torch.nn.functional as F
from torch import Tensor, randn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

import functx

from .overhead import chain
from .report import Report
from .timing import Thunk, keep_memory, take_turns
from .workload import Workload, assert_same
from .workload import report as compare_report

NAME, TITLE = "forward", "jvp of large blocks"
SMALL_NAME, SMALL_TITLE = "forward_small", "Forward mode on small inputs"
# Beside the number of times that the primal has to be computed at least.
MOST = 1.1
ATTEMPTS = 3


@dataclass(frozen=True)
class Block:
    """``function`` of inputs that ``large()`` and ``small()`` make.

    ``bound`` is "compute" or "memory": what limits the primal at the large size. ``costs`` is how
    many times the primal it takes at least where the first input has a tangent, and where all have.
    """

    name: str
    function: Callable[..., Tensor]
    large: Callable[[], tuple[Tensor, ...]]
    small: Callable[[], tuple[Tensor, ...]]
    bound: str
    costs: tuple[float, float] = (2, 3)

    def of_first(self) -> Block:
        """The same as a function of its first input."""

        def split(inputs: Callable[[], tuple[Tensor, ...]]) -> Callable[[], tuple[Tensor, ...]]:
            return lambda: inputs()[:1]

        others = self.large()[1:]
        return replace(
            self,
            name=f"{self.name}, tangent of the first input",
            function=lambda first: self.function(first, *others),
            large=split(self.large),
            costs=(self.costs[0],) * 2,
        )


def _mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)


def _mlp_inputs(rows: int, width: int) -> tuple[Tensor, ...]:
    hidden = 4 * width
    return (
        randn(rows, width),
        randn(hidden, width) / width**0.5,
        randn(hidden),
        randn(width, hidden) / hidden**0.5,
        randn(width),
    )


def _written_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return scores.softmax(-1) @ value


def _heads(length: int, heads: int = 8, width: int = 64) -> tuple[Tensor, ...]:
    return tuple(randn(1, heads, length, width) for _ in range(3))


BLOCKS = [
    Block("sin", torch.sin, lambda: (randn(1 << 20),), lambda: (randn(16),), "memory"),
    Block("mul", torch.mul, lambda: (randn(1 << 20),) * 2, lambda: (randn(16),) * 2, "memory"),
    Block("9 ops", chain, lambda: (randn(1 << 20),), lambda: (randn(16),), "memory"),
    Block(
        "matmul",
        torch.matmul,
        lambda: (randn(512, 512), randn(512, 512)),
        lambda: (randn(4, 4), randn(4, 4)),
        "compute",
    ),
    Block(
        "softmax",
        lambda x: x.softmax(-1),
        lambda: (randn(1024, 1024),),
        lambda: (randn(4, 8),),
        "memory",
    ),
    Block(
        "layer_norm",
        lambda x, w, b: F.layer_norm(x, w.shape, w, b),
        lambda: (randn(1024, 1024), randn(1024), randn(1024)),
        lambda: (randn(4, 8), randn(8), randn(8)),
        "memory",
    ),
    Block(
        "conv2d",
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        lambda: (randn(8, 32, 64, 64), randn(32, 32, 3, 3), randn(32)),
        lambda: (randn(1, 2, 5, 5), randn(2, 2, 3, 3), randn(2)),
        "compute",
    ),
    Block("MLP", _mlp, lambda: _mlp_inputs(512, 256), lambda: _mlp_inputs(4, 4), "compute"),
    Block(
        "attention, written out",
        _written_attention,
        lambda: _heads(512),
        lambda: _heads(4, 2, 4),
        "compute",
    ),
    Block(
        "attention, fused",
        F.scaled_dot_product_attention,
        lambda: _heads(512),
        lambda: _heads(4, 2, 4),
        "compute",
        # The kernel does not return the scores: they are one product more.
        (2.5, 3.5),
    ),
]


def run(seconds: float) -> list[Report]:
    keep_memory()
    return [_large(seconds), compare_report(SMALL_NAME, SMALL_TITLE, SMALL, seconds=seconds)]


# ---- large ---------------------------------------------------------------------------------------


def _large(seconds: float) -> Report:
    table = Report(
        name=NAME,
        title=TITLE,
        columns=[
            "block",
            "bound by",
            "primal µs",
            "functx µs",
            "torch.func µs",
            "forward_ad µs",
            "/ primal",
            "/ torch.func",
            "/ forward_ad",
        ],
        widths=[54, 9, 10, 10, 13, 13, 9, 12, 12],
    )
    table.print_header()
    for block in BLOCKS:
        torch.manual_seed(0)
        if len(block.large()) > 1:
            _measure(block.of_first(), table, seconds)
        _measure(block, table, seconds)
    table.print_summary()
    return table


def by_forward_ad(function: Callable[..., Tensor], primals: Any, tangents: Any) -> Any:
    """`jvp` by PyTorch's own dual numbers."""
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(p, t) for p, t in zip(primals, tangents, strict=True)]
        return tuple(forward_ad.unpack_dual(function(*duals)))


def _jvp(api: ModuleType, block: Block, primals: Any, tangents: Any) -> Thunk:
    """Where PyTorch's fused attention has no forward formula, the one written out runs."""

    def run() -> Any:
        return api.jvp(block.function, primals, tangents)

    return run if api is functx else _without_fused_attention(run)


def _without_fused_attention(run: Thunk) -> Thunk:
    def in_plain_operators() -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return run()

    return in_plain_operators


def _measure(block: Block, table: Report, seconds: float) -> None:
    torch.manual_seed(0)
    primals = block.large()
    tangents = tuple(map(torch.randn_like, primals))
    ours = _jvp(functx, block, primals, tangents)
    theirs = _jvp(torch.func, block, primals, tangents)
    native = _without_fused_attention(lambda: by_forward_ad(block.function, primals, tangents))
    answer = ours()
    assert_same(answer, theirs(), block.name)
    assert_same(answer, native(), block.name)
    sides: tuple[Thunk, ...] = (ours, lambda: block.function(*primals), theirs, native)
    for _ in range(ATTEMPTS):
        rounds = take_turns(sides, seconds=seconds)
        mine, primal, other, plain = (
            statistics.median(times) * 1e6 for times in zip(*rounds, strict=True)
        )
        ratios = [
            statistics.quantiles((times[0] / times[side] for times in rounds), n=4)
            for side in (1, 2, 3)
        ]
        missed = _misses(block, ratios)
        if not missed:
            break
    cells = [f"{each:.0f}" for each in (primal, mine, other, plain)]
    cells += [f"{middle:.2f}x" for _, middle, _ in ratios]
    record = {
        "name": block.name,
        "bound": block.bound,
        "rounds": len(rounds),
        "primal_us": round(primal, 2),
        "ours_us": round(mine, 2),
        "torch_func_us": round(other, 2),
        "forward_ad_us": round(plain, 2),
    }
    for side, quartiles in zip(("primal", "torch_func", "forward_ad"), ratios, strict=True):
        record[f"of_{side}_quartiles"] = [round(each, 3) for each in quartiles]
    table.add([block.name, block.bound, *cells], record, missed=missed)


def _misses(block: Block, ratios: list[list[float]]) -> bool:
    """More than it may cost beside the primal, or slower than another way beyond noise: where both
    run the same kernels, three rounds of four are above 1 by no chance."""
    of_primal, *of_others = ratios
    too_much = block.bound == "compute" and of_primal[1] > MOST * block.costs[1]
    return too_much or any(low > 1 for low, _, _ in of_others)


# ---- small ---------------------------------------------------------------------------------------


def _small_jvp(block: Block) -> Callable[[ModuleType, torch.device], Thunk]:
    def build(api: ModuleType, device: torch.device) -> Thunk:
        primals = tuple(x.to(device) for x in block.small())
        return _jvp(api, block, primals, tuple(map(torch.randn_like, primals)))

    return build


def _second_order(
    call: Callable[[ModuleType, Callable[..., Tensor], Tensor], Any],
    function: Callable[[Tensor], Tensor],
) -> Callable[[ModuleType, torch.device], Thunk]:
    def build(api: ModuleType, device: torch.device) -> Thunk:
        x = randn(8).to(device)
        return lambda: call(api, function, x)

    return build


def _rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _hvp(api: ModuleType, function: Callable[..., Tensor], x: Tensor) -> Any:
    return api.jvp(api.grad(function), (x,), (x,))


def _hessian(api: ModuleType, function: Callable[..., Tensor], x: Tensor) -> Any:
    return api.hessian(function)(x)


SMALL = [
    *(Workload(f"jvp of {block.name}", _small_jvp(block), 4.0) for block in BLOCKS),
    Workload("jvp(grad) of 9 ops", _second_order(_hvp, chain), 2.0),
    Workload("jvp(grad) of Rosenbrock's function", _second_order(_hvp, _rosenbrock), 2.0),
    Workload("hessian of 9 ops", _second_order(_hessian, chain), 2.0),
    Workload("hessian of Rosenbrock's function", _second_order(_hessian, _rosenbrock), 2.0),
]
