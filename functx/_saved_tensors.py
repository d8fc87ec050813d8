"""Saved-tensor hooks on the tensors inside a transform.

`torch.autograd.graph.saved_tensors_hooks`, on which checkpointing and `save_on_cpu` are built,
hands what a tape saves to functions of the user's, which may detach it: autograd itself puts back
what else there was to the tensor. It knows one tape only. The value of a batched or dual tensor may
have a place on another, and a tangent; they are put back here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._C import _autograd
from torch.autograd.graph import saved_tensors_hooks

from . import _C
from ._in_front import hide, put_before


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


def _push(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> None:
    is_known = getattr(pack, "__code__", None) is _PACKING_CODE
    # Those of the compiler are graphs, which it looks into.
    if not (is_known or isinstance(pack, torch.fx.GraphModule)):
        pack, unpack = _packing(pack), _unpacking(unpack)
    _autograd._push_saved_tensors_default_hooks(pack, unpack)


def _code_of(function: Callable[..., Any]) -> CodeType:
    return cast("FunctionType", function).__code__


_PACKING_CODE = _code_of(_packing(torch.detach))


def _entering(_: Callable[..., Any]) -> Callable[..., Any]:
    def __enter__(self: saved_tensors_hooks) -> None:
        _push(self.pack_hook, self.unpack_hook)

    return __enter__


def install() -> None:
    """Tells `saved_tensors_hooks` about our tensors; called at first use."""
    put_before(saved_tensors_hooks.__enter__, _entering)
    for code in (_PACKING_CODE, _code_of(_unpacking(torch.detach)), _code_of(_push)):
        hide(code)


def take_over_active() -> None:
    """Tells those hooks that this thread has entered before."""
    active = []
    while (hooks := _autograd._top_saved_tensors_default_hooks(True)) is not None:
        active.append(hooks)
        _autograd._pop_saved_tensors_default_hooks()
    for pack, unpack in reversed(active):
        _push(pack, unpack)
