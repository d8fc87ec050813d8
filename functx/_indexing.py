"""`x[i]` and `x[i] = y`, where `i` is a number of its own for each example.

Such a number takes a dimension away like an int, but there is no view that lies at a different
place for each example. So these dimensions are indexed first, which copies, and the rest of the
index is applied to the copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _C


def _dims_of(entry: Any) -> int:
    """How many dimensions of a tensor an entry of an index stands for."""
    if entry is None or entry is Ellipsis or isinstance(entry, bool):
        return 0
    if isinstance(entry, Tensor) and entry.dtype in (torch.bool, torch.uint8):
        return entry.dim()
    return 1


def _split(tensor: Tensor, index: Any) -> tuple[list[Tensor | None], tuple[Any, ...]]:
    """The batched numbers at the dimensions they stand for, and the other entries."""
    entries = index if isinstance(index, tuple) else (index,)
    skipped = tensor.dim() - sum(map(_dims_of, entries))
    numbers: list[Tensor | None] = []
    rest = []
    for entry in entries:
        if _C.is_batched_number(entry):
            numbers.append(entry.long())
        else:
            numbers.extend([None] * (skipped if entry is Ellipsis else _dims_of(entry)))
            rest.append(entry)
    return numbers, tuple(rest)


def _getitem(tensor: Tensor, index: Any) -> Tensor:
    numbers, rest = _split(tensor, index)
    part: Tensor = torch.ops.aten.index.Tensor(tensor, numbers)
    return part[rest] if rest else part


def _setitem(tensor: Tensor, index: Any, value: Any) -> None:
    numbers, rest = _split(tensor, index)
    part = torch.ops.aten.index.Tensor(tensor, numbers)
    part[rest or ...] = value
    torch.ops.aten.index_put_.default(tensor, numbers, part)


def install() -> None:
    """Tells `torch.Tensor` about such indices; called at first use."""
    _C.install_item_access(_getitem, _setitem)
