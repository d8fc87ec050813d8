"""Looking at the tensors inside a transform: what they print, what copies them, what they refuse.

A batched or dual tensor stands for other tensors and has no memory of its own. PyTorch's `repr`,
`numpy`, `deepcopy`, `data` and their like do not ask the dispatcher, so they are told here. So is
`isinstance(x, torch.FloatTensor)`, which costs some 10 ns more for a plain tensor.
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


def _refusing(name: str, error: type[Exception], event: str, advice: str) -> Callable[..., Any]:
    """The method of PyTorch, with an error that says why a tensor inside a transform has none.

    One that holds no batch, no tangent and no tape is its value.
    """
    method: Callable[..., Any] = getattr(Tensor, name)

    @wraps(method)
    def checked(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if _C.is_wrapper(self):
            value = _C.value_of_constant(self)
            if value is not None:
                return method(value, *args, **kwargs)
            level = cast("_C.Level", _C.level_of(self))
            where = f"a tensor inside {level.kind}"
            if not level.alive:
                where = f"a tensor that has escaped {level.kind}"
            raise error(
                f"functx.{level.kind}: {event} {where}, which stands for others and has no memory "
                f"of its own. Return it from the transformed function and {advice}."
            )
        return method(self, *args, **kwargs)

    return checked


# Methods that ask for memory: PyTorch's type of error, what happened, and what to do besides
# returning the tensor.
_REFUSED = {
    **{
        name: (
            RuntimeError,
            f".{name}() was called on",
            "convert the result, or look at it with functx.debug_unwrap",
        )
        for name in ("numpy", "tolist")
    },
    "__reduce_ex__": (
        NotImplementedError,
        "pickle or copy.copy was called on",
        "pickle the result; to copy it, call its clone()",
    ),
}


def install() -> None:
    """Tells `torch.Tensor` about our tensors; called once, on import."""
    plain_repr: Callable[..., str] = Tensor.__repr__

    @wraps(plain_repr)
    def __repr__(self: Tensor, **kwargs: Any) -> str:
        return _describe(self) if _C.is_wrapper(self) else plain_repr(self, **kwargs)

    plain_format: Callable[[Tensor, str], str] = Tensor.__format__

    @wraps(plain_format)
    def __format__(self: Tensor, format_spec: str) -> str:
        if format_spec == "" and _C.is_wrapper(self):
            return _describe(self)
        return plain_format(self, format_spec)

    plain_deepcopy: Callable[[Tensor, dict[int, Any]], Tensor] = Tensor.__deepcopy__

    @wraps(plain_deepcopy)
    def __deepcopy__(self: Tensor, memo: dict[int, Any]) -> Tensor:
        if not (_C.is_wrapper(self) and self.is_leaf and id(self) not in memo):
            return plain_deepcopy(self, memo)
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied

    plain_new_tensor = Tensor.new_tensor

    @wraps(plain_new_tensor)
    def new_tensor(self: Tensor, data: Any, **options: Any) -> Tensor:
        if not _C.is_wrapper(self):
            return plain_new_tensor(self, data, **options)
        like = {"dtype": self.dtype, "device": self.device}
        return torch.tensor(data, **{**like, **options})

    plain_data: Any = Tensor.data

    def get_data(self: Tensor) -> Tensor:
        # Without a tangent, as it is without a tape.
        return self.detach() if _C.is_wrapper(self) else plain_data.__get__(self)

    setattr(torch.Tensor, "data", property(get_data, plain_data.__set__, plain_data.__delete__))  # noqa: B010 - for mypy

    methods: dict[str, Callable[..., Any]] = {
        "__repr__": __repr__,
        "__format__": __format__,
        "__deepcopy__": __deepcopy__,
        "new_tensor": new_tensor,
    }
    for name, (error, event, advice) in _REFUSED.items():
        methods[name] = _refusing(name, error, event, advice)
    for name, method in methods.items():
        setattr(torch.Tensor, name, method)
    _C.install_data_setter()
    _C.install_instance_checks(torch.FloatTensor)
