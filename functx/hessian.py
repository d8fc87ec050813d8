"""`hessian`: second derivatives, by forward mode over reverse mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._arguments import ArgNums, check_argnums, check_function
from ._basis import check_chunk_size
from ._opaque import opaque
from .jacfwd import forward_jacobian
from .jacrev import reverse_jacobian

__all__ = ["hessian"]


@opaque
def hessian(
    func: Callable[..., Any], argnums: ArgNums = 0, *, chunk_size: int | None = None
) -> Callable[..., Any]:
    """Makes the function that computes the Hessian of `func`: `jacfwd(jacrev(func))`.

    Forward mode over reverse mode is the cheapest order for most functions of many inputs. Where
    an operator has no forward derivative, `jacrev(jacrev(func))` gives the same result.

    Args:
        func: Returns a tensor or a pytree of tensors, real and of floating point; one scalar in
            the usual case.
        argnums: Which positional arguments to differentiate, twice: an int, or a tuple of ints;
            negative ones count from the end. Each such argument is a tensor or a pytree of
            tensors, real and of floating point.
        chunk_size: If given, as many columns of the Hessian, and as many rows of the inner
            Jacobian, are computed at a time: less memory, more calls of `func`.

    Returns:
        A function of the arguments of `func`. It returns the structure of the output with, in the
        place of each leaf, the structure of the argument twice nested (tuples, if `argnums` is a
        tuple), and in that, for each triple, a tensor of shape
        `output.shape + input1.shape + input2.shape`.

    Raises:
        RuntimeError: `argnums` doesn't fit the arguments, one of these is not made of tensors, an
            input or output is complex, or `func` doesn't return what it should.
        ValueError: an input is of integers, or `chunk_size` is not positive.

    Complexity:
        For `n` input elements and a scalar output: `n` times the arithmetic of a gradient, in the
        operator calls of one gradient and its tangents for each chunk.

    Example:
        >>> import torch
        >>> from functx import hessian
        >>> hessian(lambda x: x[0] ** 2 * x[1])(torch.tensor([3.0, 5.0]))
        tensor([[10.,  6.],
                [ 6.,  0.]])
    """
    check_function("hessian", func)
    check_chunk_size("hessian", chunk_size, "columns")
    check_argnums("hessian", argnums)
    inner = reverse_jacobian("hessian, by jacrev", func, argnums, chunk_size=chunk_size)
    return forward_jacobian("hessian", inner, argnums, chunk_size=chunk_size)
