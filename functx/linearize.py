"""`linearize`: the value of a function and its derivative there, as a linear map to be applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _C
from ._arguments import check_function
from ._forward import check_primals
from ._opaque import opaque
from ._outputs import check_differentiable, tensor_leaves
from .pytree import describe, flatten, unflatten

__all__ = ["linearize"]

_API = "linearize(f, *primals)"


@opaque
def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """Calls `func` once, and keeps its derivative as a linear map of the tangents.

    The pullback of `func` is linear in its cotangent, and the pullback of that, the transpose of
    the transpose, is the derivative itself. Autograd records both while `linearize` runs; a call
    of the map replays just the operators that tangents go through.

    Args:
        func: Takes `primals`, returns a tensor or a pytree of tensors of floating point or complex
            dtype.
        *primals: Tensors or pytrees of tensors, of floating point or complex dtype.

    Returns:
        `(output, jvp_fn)`. `jvp_fn(*tangents)` takes what looks like `primals` and returns what
        looks like `output`: the sum over all inputs of Jacobian times tangent. It may be called
        any number of times and under other transforms; `vmap(jvp_fn)` applies it to a batch.

    Raises:
        ValueError: a primal is of integers.
        RuntimeError: a primal is not made of tensors, an output is of integers or not a tensor, or
            tangents don't match the primals. An operator has no second derivative: `jvp` needs
            none.

    Complexity:
        `linearize` itself: that of `func` and one backward pass, and memory for the intermediate
        values of both as long as `jvp_fn` lives. Each call of `jvp_fn`: that of the tangents of a
        `jvp`, without the function's own values.

    Example:
        >>> import torch
        >>> from functx import linearize
        >>> output, jvp_fn = linearize(torch.mul, torch.tensor(3.0), torch.tensor(4.0))
        >>> output
        tensor(12.)
        >>> jvp_fn(torch.tensor(1.0), torch.tensor(10.0))
        tensor(34.)
    """
    check_function("linearize", func)
    leaves, primals_spec = flatten(primals)
    check_primals(_API, leaves, primals)
    transpose = _C.push_grad()
    try:
        level = _C.push_grad()
        try:
            inputs = _C.track(leaves)
            outputs, output_spec = tensor_leaves(_API, func(*unflatten(inputs, primals_spec)))
            check_differentiable(_API, outputs)
            released = _C.release(level, outputs)
        finally:
            _C.pop(level)
        # The point doesn't matter: the pullback is linear.
        cotangents = _C.track([torch.zeros_like(each) for each in released])
        pulled = _C.pullback(level, outputs, inputs, cotangents, True)
        output = unflatten(_C.release(transpose, released), output_spec)
    finally:
        _C.pop(transpose)

    @opaque
    def jvp_fn(*tangents: Any) -> Any:
        tangent_leaves, tangents_spec = flatten(tangents)
        if tangents_spec != primals_spec:
            raise RuntimeError(
                f"jvp_fn of {_API}: Expected the tangents "
                f"{describe(tangents_spec)} to have the same argspec as the primals "
                f"{describe(primals_spec)}. Pass one tangent for each primal, zeros for one that "
                f"stays fixed."
            )
        for index, (primal, tangent) in enumerate(zip(leaves, tangent_leaves, strict=True)):
            _check_tangent(index, primal, tangent)
        pushed = _C.pullback(transpose, pulled, cotangents, tangent_leaves, True)
        return unflatten(pushed, output_spec)

    return output, jvp_fn


def _check_tangent(index: int, primal: Tensor, tangent: Any) -> None:
    if not isinstance(tangent, Tensor):
        raise RuntimeError(
            f"jvp_fn of {_API}: tangent:{index} in flattened pytree is of type "
            f"{type(tangent)}. Pass torch.tensor(value)."
        )
    for aspect in ("shape", "device", "dtype"):
        expected, actual = getattr(primal, aspect), getattr(tangent, aspect)
        if actual != expected:
            raise RuntimeError(
                f"jvp_fn of {_API}: tangent:{index} with {aspect} {actual} in "
                f"flattened pytree doesn't match the {aspect} {expected} of the corresponding "
                f"primal. Tangents are neither broadcast nor converted."
            )
