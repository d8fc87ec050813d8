"""Looking at the tensors inside a transform: what they print, what copies them, what they refuse.

A batched or dual tensor stands for other tensors and has no memory of its own. PyTorch's `repr`,
`numpy`, `deepcopy` and their like do not ask the dispatcher, so they are told here. So is
`isinstance(x, torch.FloatTensor)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from . import _C
from ._in_front import put_before


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """Returns the value behind a tensor inside a transform, for a look at it while debugging.

    Args:
        tensor: A tensor. Inside `vmap` its value has the batch dimension in front; inside `jvp` it
            is the primal; inside `grad` the value is not tracked. A tensor that belongs to no
            transform is returned as it is.
        recurse: Whether to go on to a value that belongs to no transform, rather than one level
            down.

    Returns:
        The value. What is computed from it is not transformed.

    Example:
        >>> import torch
        >>> from functx import debug_unwrap, vmap
        >>> def f(x):
        ...     print(debug_unwrap(x).shape)
        ...     return x.sum()
        >>> vmap(f)(torch.ones(5, 3)).shape
        torch.Size([5, 3])
        torch.Size([5])
    """
    while (level := outermost_level(tensor)) is not None:
        tensor = _untracked(tensor) if level.kind == "grad" else _C.unwrap(tensor)[0]
        if not recurse:
            break
    return tensor


def outermost_level(tensor: Tensor) -> _C.Level | None:
    """The level that `tensor` belongs to first: of a `grad` which tracks it, or of a wrapper."""
    own = _C.level_of(tensor)
    if tensor.requires_grad:
        for level in reversed(_C.active_levels()):
            if own is not None and level.id <= own.id:
                break
            if level.kind == "grad":
                return level
    return own


def _untracked(tensor: Tensor) -> Tensor:
    level = _C.level_of(tensor)
    if level is None:
        return tensor.detach()
    value, tangent, is_batched = _C.unwrap(tensor)
    if level.kind == "vmap":
        return cast("Tensor", _C.wrap_batched(level, [value], [is_batched])[0])
    return _C.make_duals(level, [value], [tangent])[0]  # detach would drop the tangent


def _describe(tensor: Tensor) -> str:
    level = cast("_C.Level", _C.level_of(tensor))
    value, tangent, is_batched = _C.unwrap(tensor)
    state = ", requires_grad=True" if tensor.requires_grad else ""
    state += "" if level.alive else ", escaped"
    if level.kind == "vmap":
        return f"BatchedTensor(level={level.id}, batched={is_batched}{state}, value=\n{value!r})"
    return f"DualTensor(level={level.id}{state}, primal=\n{value!r},\ntangent=\n{tangent!r})"


def _memory_of(tensor: Tensor, error: type[Exception], event: str, advice: str) -> Tensor:
    """The value of a wrapper that holds no batch, no tangent and no tape.

    Raises:
        error: Another one stands for other tensors, and has no memory.
    """
    value = _C.value_of_constant(tensor)
    if value is not None:
        return value
    level = cast("_C.Level", _C.level_of(tensor))
    where = f"a tensor inside {level.kind}"
    if not level.alive:
        where = f"a tensor that has escaped {level.kind}"
    raise error(
        f"functx.{level.kind}: {event} {where}, which stands for others and has no memory "
        f"of its own. Return it from the transformed function and {advice}."
    )


def _reading(name: str) -> Callable[..., Any]:
    """For a method that reads the memory of the tensor."""
    event = f".{name}() was called on"
    advice = "convert the result, or look at it with functx.debug_unwrap"

    def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        value = _memory_of(self, RuntimeError, event, advice)
        return getattr(value, name)(*args, **kwargs)

    return read


def _new_tensor(self: Tensor, data: Any, **options: Any) -> Tensor:
    like = {"dtype": self.dtype, "device": self.device}
    return torch.tensor(data, **{**like, **options})


# The methods of tensors that are written in Python, from PyTorch's to ours.


def _with_repr(plain: Callable[..., str]) -> Callable[..., str]:
    def __repr__(self: Tensor, **kwargs: Any) -> str:
        return _describe(self) if _C.is_wrapper(self) else plain(self, **kwargs)

    return __repr__


def _with_format(plain: Callable[..., str]) -> Callable[..., str]:
    def __format__(self: Tensor, format_spec: str) -> str:
        if format_spec == "" and _C.is_wrapper(self):
            return _describe(self)
        return plain(self, format_spec)

    return __format__


def _with_deepcopy(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def __deepcopy__(self: Tensor, memo: dict[int, Any]) -> Tensor:
        if not (_C.is_wrapper(self) and self.is_leaf and id(self) not in memo):
            return plain(self, memo)
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied

    return __deepcopy__


def _with_reduce(plain: Callable[..., Any]) -> Callable[..., Any]:
    event = "pickle or copy.copy was called on"
    advice = "pickle the result; to copy it, call its clone()"

    def __reduce_ex__(self: Tensor, protocol: Any) -> Any:
        if _C.is_wrapper(self):
            self = _memory_of(self, NotImplementedError, event, advice)
        return plain(self, protocol)

    return __reduce_ex__


def install() -> None:
    """Tells `torch.Tensor` about our tensors; called at first use."""
    put_before(Tensor.__repr__, _with_repr)
    put_before(Tensor.__format__, _with_format)
    put_before(Tensor.__deepcopy__, _with_deepcopy)
    put_before(Tensor.__reduce_ex__, _with_reduce)
    _C.put_before_c(Tensor.numpy, _reading("numpy"))
    _C.put_before_c(Tensor.tolist, _reading("tolist"))
    _C.put_before_c(Tensor.new_tensor, _new_tensor)
    _C.install_data_setter()
    _C.install_instance_checks(torch.FloatTensor)
