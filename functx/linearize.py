"""`linearize`: the value of a function and its derivative there, as a linear map to be applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from . import _C
from ._arguments import check_function
from ._forward import check_primals, push_forward
from ._opaque import opaque
from ._outputs import check_differentiable
from ._transposition import linearizing
from .pytree import describe, flatten, unflatten

__all__ = ["linearize"]

_API = "linearize(f, *primals)"


@opaque
def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """Calls `func` once, and keeps its derivative as a linear map of the tangents.

    It runs `func` as `jvp` does, with the same rules and errors, while autograd records what is
    done to the tangents. That is linear; its pullback is the transpose of the derivative, and the
    pullback of that the derivative itself, of which a call replays just the operators that tangents
    go through. What `func` computes under `torch.no_grad` is a constant to the map, as it is to
    `grad`; to `jvp` it is not.

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
            tangents don't match the primals. A rule for `jvp`, of a Function or an operator,
            computes with tangents what autograd does not see.

    Complexity:
        `linearize` itself: that of a `jvp` and of a backward pass through its tangents, and memory
        for what they are multiplied by as long as `jvp_fn` lives. Each call of `jvp_fn`: that of
        the tangents of a `jvp`, without the function's own values.

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

    def record(level: _C.Level) -> tuple[Any, ...]:
        directions = _C.track([_direction(leaf) for leaf in leaves])
        with linearizing():
            result = push_forward(
                _API,
                lambda duals: func(*unflatten(duals, primals_spec)),
                leaves,
                directions,
                has_aux=False,
            )
        check_differentiable(_API, result.primals)
        pushed = [
            torch.zeros_like(primal) if tangent is None else tangent
            for primal, tangent in zip(result.primals, result.tangents, strict=True)
        ]
        released = _C.release(level, [*result.primals, *pushed])
        return level, directions, pushed, released, result.spec

    def transpose(transposed: _C.Level) -> tuple[Any, ...]:
        level, directions, pushed, released, output_spec = _C.in_grad(None, record)
        count = len(pushed)
        # The point doesn't matter: the pullback is linear.
        cotangents = _C.track([torch.zeros_like(each) for each in released[count:]])
        with _overwriting():
            pulled = _C.pullback(level, pushed, directions, cotangents, True)
        output = unflatten(_C.release(transposed, released[:count]), output_spec)
        return transposed, cotangents, pulled, output, output_spec

    transposed, cotangents, pulled, output, output_spec = _C.in_grad(None, transpose)

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
        return unflatten(
            _C.pullback(transposed, pulled, cotangents, tangent_leaves, True), output_spec
        )

    return output, jvp_fn


@contextmanager
def _overwriting() -> Iterator[None]:
    """Says more about the error that a value was overwritten which the tape has saved."""
    try:
        yield
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise RuntimeError(
            f"{_API}: f overwrites in place a value that the derivative is computed from. Write "
            f"into a clone() of it, or use functx.jvp: {error}"
        ) from error


def _direction(primal: Tensor) -> Tensor:
    """A tangent for the tape to begin with, such that what depends on it is hardly ever zero."""
    count: Any = primal.numel()
    if type(primal) not in (Tensor, Parameter) or primal.layout is not torch.strided:
        return torch.ones_like(primal)
    if not isinstance(count, int):  # a symbol
        return torch.ones_like(primal)
    line = torch.linspace(0.6, 1.7, count, dtype=primal.dtype, device=primal.device)
    return line.view(primal.shape)


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
