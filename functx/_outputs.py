"""What every differentiating transform does with the result of the function it has called."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .pytree import TreeSpec, flatten


def split_aux(api: str, result: Any) -> tuple[Any, list[Tensor], TreeSpec]:
    """Splits the result of a function called with `has_aux=True`.

    Returns:
        The output to differentiate; leaves and structure of the auxiliary part.

    Raises:
        RuntimeError: `result` is not a pair, or a leaf of the auxiliary part is not a tensor.
    """
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(
            f"{api}: output of function f should be a tuple: (output, aux) if has_aux is True, "
            f"got {_kind(result)}. Return a pair, or drop has_aux."
        )
    output, aux = result
    leaves, spec = flatten(aux)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(
                f"{api}: Expected tensors, got unsupported type {type(leaf)} in aux. Wrap numbers "
                f"by torch.tensor, and keep other objects out of the returned value."
            )
    return output, leaves, spec


def tensor_leaves(api: str, output: Any) -> tuple[list[Tensor], TreeSpec]:
    """Flattens an output that has to consist of tensors, one at least.

    Raises:
        RuntimeError: it is empty, or a leaf is not a tensor.
    """
    leaves, spec = flatten(output)
    if not leaves or (len(leaves) == 1 and leaves[0] is None):
        raise RuntimeError(
            f"{api}: Expected f to be a function that has non-empty output (got output = "
            f"{leaves}). Does f return its result?"
        )
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(
                f"{api}: expected f(*primals) to return only tensors, got unsupported type "
                f"{type(leaf)}. Wrap numbers by torch.tensor, and leave out other objects."
            )
    return leaves, spec


def check_differentiable(api: str, outputs: list[Tensor]) -> None:
    """Raises RuntimeError if an output is of integers or booleans."""
    for output in outputs:
        if not (output.is_floating_point() or output.is_complex()):
            raise RuntimeError(
                f"{api}: All outputs of f must be floating-point or complex Tensors, got Tensor "
                f"with dtype {output.dtype}. Leave it out of the result, or return it as aux where "
                f"has_aux is an option."
            )


def check_scalar(api: str, output: Any) -> None:
    """Raises RuntimeError unless `output` is a real tensor without dimensions."""
    if not isinstance(output, Tensor):
        raise RuntimeError(
            f"{api}: Expected f(*args) to return a Tensor, got {type(output)}. {_remedy(output)}"
        )
    if output.dim() != 0:
        raise RuntimeError(
            f"{api}: Expected f(*args) to return a scalar Tensor, got tensor with {output.dim()} "
            f"dims. Reduce it, for example with .sum(), or use vjp or jacrev."
        )
    if output.is_complex():
        raise RuntimeError(
            f"{api}: grad can be implicitly created only for real scalar outputs but got "
            f"{output.dtype}. Return the real part or the modulus, or use vjp with a cotangent."
        )


def _remedy(output: Any) -> str:
    if output is None:
        return "Does f return its result?"
    if isinstance(output, (int, float, complex)):
        return "A number has no derivative: keep the result a tensor, without .item()."
    return "For a pair (output, aux) pass has_aux=True; for several outputs use vjp or jacrev."


def _kind(result: Any) -> str:
    if isinstance(result, tuple):
        return f"a tuple of length {len(result)}"
    return str(type(result))
