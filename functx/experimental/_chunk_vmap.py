"""`chunk_vmap`: a vmap in a number of parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from .._arguments import wraps
from .._dims import InDims, OutDims, match_inputs
from ..vmap import vmap

__all__ = ["chunk_vmap"]

P = ParamSpec("P")
R = TypeVar("R")


def chunk_vmap(
    func: Callable[P, R],
    in_dims: InDims = 0,
    out_dims: OutDims = 0,
    randomness: str = "error",
    chunks: int = 2,
) -> Callable[P, R]:
    """Maps a function over a dimension of its inputs, a part of the examples at a time.

    Args:
        func: As for `vmap`.
        in_dims: As for `vmap`.
        out_dims: As for `vmap`.
        randomness: As for `vmap`.
        chunks: The number of parts; fewer, if the examples don't suffice. `vmap` has `chunk_size`
            for those who rather say how many examples to compute at a time.

    Returns:
        The mapped function, as from `vmap`.

    Raises:
        ValueError: `chunks` is not positive, or as for `vmap`.

    Example:
        >>> import torch
        >>> from functx.experimental import chunk_vmap
        >>> chunk_vmap(torch.sum, chunks=2)(torch.ones(5, 3))
        tensor([3., 3., 3., 3., 3.])
    """
    if chunks < 1:
        raise ValueError(f"chunk_vmap: chunks should be greater than 0, got {chunks}.")
    vmap(func, in_dims, out_dims, randomness)  # complains of what is wrong for any inputs

    @wraps(func)
    def chunked(*args: Any, **kwargs: Any) -> Any:
        batch_size = match_inputs(func, in_dims, args).batch_size
        chunk_size = max(1, -(-batch_size // chunks))
        mapped = vmap(func, in_dims, out_dims, randomness, chunk_size=chunk_size)
        return mapped(*args, **kwargs)

    return cast("Callable[P, R]", chunked)
