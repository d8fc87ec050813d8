"""`jvp`: the value of a function and its derivative in one direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ._arguments import argument, check_function
from ._forward import check_primals, check_tangents, push_forward
from ._opaque import opaque
from .pytree import describe, flatten, unflatten

__all__ = ["jvp"]

_API = "jvp(f, primals, tangents)"


@overload
def jvp(
    func: Callable[..., Any],
    primals: Any,
    tangents: Any,
    *,
    strict: bool = False,
    has_aux: Literal[False] = False,
) -> tuple[Any, Any]: ...


@overload
def jvp(
    func: Callable[..., Any],
    primals: Any,
    tangents: Any,
    *,
    strict: bool = False,
    has_aux: Literal[True],
) -> tuple[Any, Any, Any]: ...


@opaque
def jvp(
    func: Callable[..., Any],
    primals: Any,
    tangents: Any,
    *,
    strict: bool = False,
    has_aux: bool = False,
) -> tuple[Any, Any] | tuple[Any, Any, Any]:
    """Calls `func` and computes its Jacobian-vector product along with its value.

    This is forward mode: every operator computes the tangent of its result next to the result.

    Args:
        func: Takes `*primals`, returns a tensor or a pytree of tensors; with `has_aux`, a pair of
            that and a pytree of tensors.
        primals: The tuple of arguments: tensors or pytrees of tensors, of floating point or complex
            dtype. All are differentiated.
        tangents: The direction: the structure and shapes of `primals`. A tangent of another real
            dtype is converted to that of its primal.
        strict: Whether to raise if an output doesn't depend on `primals`. Without it the tangent of
            such an output is zeros.
        has_aux: Whether `func` returns a pair `(output, aux)`.

    Returns:
        `(output, tangent)`, with `has_aux` `(output, tangent, aux)`. The tangent has the structure,
        shapes and dtypes of the output; it is the sum over all inputs of Jacobian times tangent.

    Raises:
        RuntimeError: `primals` is not a tuple, or `tangents` doesn't match it; an output is not a
            tensor; with `strict`, an output is independent of the inputs.
        ValueError: a primal or a tangent is of integers.

    Complexity:
        Two to three times the time of `func`; no memory is kept after an operator is done.

    Example:
        >>> import torch
        >>> from functx import jvp
        >>> jvp(torch.mul, (torch.tensor(3.0), torch.tensor(4.0)),
        ...     (torch.tensor(1.0), torch.tensor(10.0)))
        (tensor(12.), tensor(34.))
    """
    check_function("jvp", func)
    if not isinstance(primals, tuple):
        raise RuntimeError(
            f"{_API}: Expected primals to be a tuple. E.g. it should be valid to call f(*primals). "
            f"Write (x,) for a single argument; got {type(primals)}."
        )
    primal_leaves, primals_spec = flatten(primals)
    tangent_leaves, tangents_spec = flatten(tangents)
    if primals_spec != tangents_spec:
        raise RuntimeError(
            f"{_API}: Expected primals and tangents to have the same python structure. Got primals "
            f"with structure {describe(primals_spec)} and tangents with structure "
            f"{describe(tangents_spec)}. Nest the tangents as the primals, with zeros for an input "
            f"that stays fixed."
        )
    check_primals(_API, primal_leaves, primals)
    check_tangents(_API, tangent_leaves, tangents)
    for index, (primal, tangent) in enumerate(zip(primal_leaves, tangent_leaves, strict=True)):
        if tangent.shape != primal.shape or tangent.dtype != primal.dtype:
            tangent_leaves[index] = _convert(primal, tangent, argument(primals, index))
    result = push_forward(
        _API,
        lambda duals: func(*unflatten(duals, primals_spec)),
        primal_leaves,
        tangent_leaves,
        has_aux,
    )
    tangents_out = [
        _zero_tangent(primal, strict) if tangent is None else tangent
        for primal, tangent in zip(result.primals, result.tangents, strict=True)
    ]
    output = unflatten(result.primals, result.spec)
    tangent = unflatten(tangents_out, result.spec)
    if result.aux_spec is None:
        return output, tangent
    return output, tangent, unflatten(result.aux, result.aux_spec)


def _convert(primal: Tensor, tangent: Tensor, where: str) -> Tensor:
    """Gives a tangent the dtype of its primal, where that loses no imaginary part."""
    if tangent.shape != primal.shape:
        raise RuntimeError(
            f"{_API}: Got a tangent that has a different size than that of the original Tensor for "
            f"{where}, this is not supported. The primal is of size {list(primal.shape)} while the "
            f"tangent is of size {list(tangent.shape)}. Expand the tangent; it is not broadcast."
        )
    if tangent.is_complex() and not primal.is_complex():
        raise ValueError(
            f"{_API}: Got a complex tangent ({tangent.dtype}) for a real primal ({primal.dtype}), "
            f"{where}. Pass its real part, or make the primal complex."
        )
    return tangent.to(primal.dtype)


def _zero_tangent(primal: Tensor, strict: bool) -> Tensor:
    if strict:
        raise RuntimeError(
            "jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. "
            "This is not allowed with strict=True; without it the tangent is zeros."
        )
    return torch.zeros_like(primal)
