"""`once_differentiable`: what such a `backward` returns is final, in every stratum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _C

# All that the decorator returns share it.
_ONCE = once_differentiable(lambda ctx: None).__code__


def is_once_differentiable(backward: Callable[..., Any]) -> bool:
    """Whether `backward` is marked, maybe inside of other decorators."""
    current: Any = backward
    while current is not None:
        if getattr(current, "__code__", None) is _ONCE:
            return True
        current = getattr(current, "__wrapped__", None)
    return False


def collect_tracked(tensor: Tensor, found: dict[int | None, list[Tensor]]) -> None:
    """Adds `tensor` and what it is made of, where autograd tracks it, by the ids of levels."""
    if tensor.requires_grad:
        found.setdefault(_level_id(tensor), []).append(tensor)
    if _C.is_wrapper(tensor):
        for value in _C.unwrap(tensor)[:2]:
            if value is not None:
                collect_tracked(value, found)


def _level_id(tensor: Tensor) -> int | None:
    level = _C.level_of(tensor)
    return None if level is None else level.id


def make_final(tensor: Tensor, sources: dict[int | None, list[Tensor]]) -> Tensor:
    """`tensor`, in which differentiation by a source, in its stratum, raises an error."""
    level = _C.level_of(tensor)
    if level is not None:
        value, tangent, is_batched = _C.unwrap(tensor)
        value = make_final(value, sources)
        if level.kind == "vmap":
            tensor = _C.wrap_batched(level, (value,), (is_batched,))[0]
        else:
            tangent = None if tangent is None else make_final(tangent, sources)
            tensor = _C.make_duals(level, (value,), (tangent,))[0]
    tracked = sources.get(_level_id(tensor))
    if not tracked:
        return tensor
    error = torch._C._functions.DelayedError(
        b"functx: trying to differentiate twice a function that was marked with "
        b"@once_differentiable. Remove the mark if its backward is made of differentiable "
        b"operators.",
        1 + len(tracked),
    )
    final: Tensor = error(tensor, *tracked)[0]
    return final
