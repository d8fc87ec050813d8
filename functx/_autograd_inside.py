"""PyTorch's own autograd inside a transform: `torch.autograd.grad`, `Tensor.backward`, checkpoints.

The tapes are PyTorch's, and so nearly all of it works on wrappers as on plain tensors. In three
places it does not know of them, and we step in front of these, looking for wrappers first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, _vmap_internals
from torch.utils import checkpoint

from . import _C
from ._in_front import put_before
from .pytree import flatten, unflatten
from .vmap import vmap


def install() -> None:
    """Tells PyTorch's autograd about wrappers; called at first use."""
    put_before(torch.autograd.graph._engine_run_backward, _with_seeds)
    put_before(_vmap_internals._vmap, _nested)
    checkpoint._recomputation_hook = _RecomputationHook  # type: ignore[assignment, misc]


# ---- the engine ------------------------------------------------------------------------------


def _with_seeds(run: Callable[..., Any]) -> Callable[..., Any]:
    """The call of the engine, with gradients to start from that suit outputs which are wrappers."""
    transforms_of, level_depth = _C.transforms_of, _C.level_depth

    def run_backward(
        outputs: tuple[Any, ...], gradients: tuple[Tensor | None, ...], *args: Any, **kwargs: Any
    ) -> Any:
        if not level_depth():
            return run(outputs, gradients, *args, **kwargs)
        if transforms_of(outputs):
            gradients = _seeds(outputs, gradients, args[2])
        return _C.call_carrying_levels(run, outputs, gradients, *args, **kwargs)

    return run_backward


def _seeds(
    outputs: Sequence[Any], gradients: Sequence[Tensor | None], inputs: Sequence[Any]
) -> tuple[Tensor | None, ...]:
    seeds = list(gradients)
    # The others are edges of the graph, which stand for no tensor.
    places = [place for place, output in enumerate(outputs) if isinstance(output, Tensor)]
    of_tensors = _C.engine_seeds(
        [outputs[place] for place in places],
        [gradients[place] for place in places],
        [tensor for tensor in inputs if isinstance(tensor, Tensor)],
    )
    for place, seed in zip(places, of_tensors, strict=True):
        seeds[place] = seed
    return tuple(seeds)


# ---- is_grads_batched and vectorize ----------------------------------------------------------


def _nested(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The vmap that torch.autograd uses, which came before torch.func, by ours inside of ours."""

    def map_batch(
        func: Callable[..., Any],
        in_dims: Any = 0,
        out_dims: Any = 0,
        allow_none_pass_through: bool = False,
    ) -> Callable[..., Any]:
        outside = plain(func, in_dims, out_dims, allow_none_pass_through)

        @wraps(func)
        def mapped(*args: Any) -> Any:
            if all(level.kind == "grad" for level in _C.active_levels()):
                return outside(*args)
            return _map_present(func, in_dims, out_dims, args)

        return mapped

    return map_batch


def _map_present(func: Callable[..., Any], in_dims: Any, out_dims: Any, args: Any) -> Any:
    """`vmap(func, in_dims, out_dims)(*args)`, where an output may be None."""
    places: list[int] = []
    blank: Any = None

    def present(*args: Any) -> tuple[Any, ...]:
        nonlocal blank
        leaves, spec = flatten(func(*args))
        places[:] = [place for place, leaf in enumerate(leaves) if leaf is not None]
        blank = [None] * len(leaves), spec
        return tuple(leaves[place] for place in places)

    outputs = vmap(present, in_dims, out_dims)(*args)
    leaves, spec = blank
    for place, output in zip(places, outputs, strict=True):
        leaves[place] = output
    return unflatten(leaves, spec)


# ---- checkpoints -----------------------------------------------------------------------------


class _RecomputationHook(checkpoint._recomputation_hook):
    """What a checkpoint recomputes is detached, by which it would lose its tangent under jvp."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        pack = self.pack_hook
        self.pack_hook = lambda tensor: pack(_C.without_tape(tensor))
