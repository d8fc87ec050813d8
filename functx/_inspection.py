"""Looking at the tensors inside a transform: what they print, and what they refuse.

A batched or dual tensor stands for other tensors and has no memory of its own. PyTorch's `repr`,
`numpy`, `tolist` and `new_tensor` do not ask the dispatcher, so they are told here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor

from . import _C


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """Returns the value behind a tensor inside a transform, for a look at it while debugging.

    Args:
        tensor: A tensor. Inside `vmap` its value has the batch dimension in front; inside `jvp` it
            is the primal. A tensor that belongs to no transform is returned as it is.
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
    while _C.is_wrapper(tensor):
        tensor = _C.unwrap(tensor)[0]
        if not recurse:
            break
    return tensor


def _describe(tensor: Tensor) -> str:
    level = cast("_C.Level", _C.level_of(tensor))
    value, tangent, is_batched = _C.unwrap(tensor)
    state = "" if level.alive else ", escaped"
    if level.kind == "vmap":
        return f"BatchedTensor(level={level.id}, batched={is_batched}{state}, value=\n{value!r})"
    return f"DualTensor(level={level.id}{state}, primal=\n{value!r},\ntangent=\n{tangent!r})"


def _refusing(name: str) -> Callable[..., Any]:
    """The method of PyTorch, with an error that says why a tensor inside a transform has none."""
    method: Callable[..., Any] = getattr(Tensor, name)

    @wraps(method)
    def checked(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if _C.is_wrapper(self):
            kind = cast("_C.Level", _C.level_of(self)).kind
            raise RuntimeError(
                f"functx.{kind}: .{name}() was called on a tensor inside {kind}, which stands for "
                "others and has no memory of its own. Return it from the transformed function and "
                "convert the result, or look at it with functx.debug_unwrap."
            )
        return method(self, *args, **kwargs)

    return checked


def install() -> None:
    """Tells `torch.Tensor` about our tensors; called once, on import."""
    plain_repr: Callable[..., str] = Tensor.__repr__

    @wraps(plain_repr)
    def __repr__(self: Tensor, **kwargs: Any) -> str:
        return _describe(self) if _C.is_wrapper(self) else plain_repr(self, **kwargs)

    plain_new_tensor = Tensor.new_tensor

    @wraps(plain_new_tensor)
    def new_tensor(self: Tensor, data: Any, **options: Any) -> Tensor:
        if not _C.is_wrapper(self):
            return plain_new_tensor(self, data, **options)
        like = {"dtype": self.dtype, "device": self.device}
        return torch.tensor(data, **{**like, **options})

    methods: dict[str, Callable[..., Any]] = {"__repr__": __repr__, "new_tensor": new_tensor}
    for name in ("numpy", "tolist"):
        methods[name] = _refusing(name)
    for name, method in methods.items():
        setattr(torch.Tensor, name, method)
