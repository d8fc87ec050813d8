"""Saved-tensor hooks on the tensors inside a transform.

`torch.autograd.graph.saved_tensors_hooks`, on which checkpointing and `save_on_cpu` are built,
hands what a tape saves to functions of the user's, which may detach it: autograd itself puts back
what else there was to the tensor. It knows one tape only. The value of a batched or dual tensor may
have a place on another, and a tangent; they are put back here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from . import _C


class _Tied(NamedTuple):
    """What a hook made of a tensor, and what it may have left out."""

    packed: Any
    ties: _C.Ties


def _packing(pack: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def pack_with_ties(tensor: Tensor) -> Any:
        ties = _C.ties_below(tensor)
        packed = pack(tensor)
        return packed if ties is None else _Tied(packed, ties)

    return pack_with_ties


def _unpacking(unpack: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    def unpack_with_ties(packed: Any) -> Tensor:
        if type(packed) is _Tied:
            return _C.tie(unpack(packed.packed), packed.ties)
        # A plain tensor, of which a copy made inside of a transform may be a wrapper.
        tensor = unpack(packed)
        return _C.tie(tensor, None) if _C.is_wrapper(tensor) else tensor

    return unpack_with_ties


def install() -> None:
    """Tells `saved_tensors_hooks` about our tensors; called once, on import."""
    plain_enter: Callable[[saved_tensors_hooks], None] = saved_tensors_hooks.__enter__

    @wraps(plain_enter)
    def __enter__(self: saved_tensors_hooks) -> None:
        if isinstance(self.pack_hook, torch.fx.GraphModule):  # the compiler's, which looks into it
            plain_enter(self)
            return
        torch._C._autograd._push_saved_tensors_default_hooks(
            _packing(self.pack_hook), _unpacking(self.unpack_hook)
        )

    setattr(saved_tensors_hooks, "__enter__", __enter__)  # noqa: B010 - mypy takes no method
