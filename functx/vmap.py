"""`vmap`: a function of one example becomes a function of a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import torch

from . import _C
from ._arguments import check_count, check_function, wraps
from ._dims import (
    InDims,
    MappedInputs,
    OutDims,
    check_in_dims,
    check_out_dims,
    match_inputs,
    unbatch_outputs,
)
from ._opaque import opaque
from ._rng import RngSnapshot, check_randomness
from .pytree import TreeSpec, unflatten

__all__ = ["vmap"]

P = ParamSpec("P")
R = TypeVar("R")


@opaque
def vmap(
    func: Callable[P, R],
    in_dims: InDims = 0,
    out_dims: OutDims = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[P, R]:
    """Maps a function over a dimension of its inputs, by operators on the whole batch.

    The function is called once, with tensors that hide their batch dimension; each operator it
    calls runs once, on all examples together. Calls nest, and compose with every other transform:
    `vmap(grad(loss))` is the gradient for each example.

    Args:
        func: Takes one or more tensors or pytrees of them, returns a tensor or a pytree of
            tensors. It sees shapes without the mapped dimension.
        in_dims: The dimension to map over, -ndim <= dim < ndim, for all positional arguments, or a
            tuple with an entry for each. An entry is an int, None for a value that all examples
            share, or a pytree of these that matches a prefix of the argument. At least one tensor
            has to be mapped; all that are have the same size there. Keyword arguments are passed
            on as they are.
        out_dims: Where each output gets the mapped dimension, counted in the result: an int for
            all, or a pytree that matches a prefix of the output. None is for an output that is the
            same for all examples, which may then be any object.
        randomness: What random operators do: `"error"` raises, `"different"` draws for each
            example, `"same"` draws once for all of them.
        chunk_size: If given, as many examples as this are computed at a time, and the results
            concatenated: less memory, more calls of `func`.

    Returns:
        The mapped function. A leaf of shape `s` that `func` returns comes out with shape
        `s[:d] + (batch,) + s[d:]`, with its dtype, where `d` is its entry of `out_dims`.

    Raises:
        ValueError: `in_dims`, `out_dims`, `chunk_size`, the inputs or the outputs don't fit the
            above.
        IndexError: an entry of `out_dims` is out of range.
        RuntimeError: `randomness` is none of the three, or a random operator was called under
            `"error"`.

    Complexity:
        The arithmetic of a Python loop over the examples, in the operator calls of one. Memory is
        that of all intermediate values of `chunk_size` examples.

    Example:
        >>> import torch
        >>> from functx import vmap
        >>> batch = torch.arange(6.0).reshape(3, 2)
        >>> vmap(torch.dot)(batch, batch)
        tensor([ 1., 13., 41.])
        >>> scale = lambda vector, factors: vector * factors["by"]
        >>> vmap(scale, in_dims=(0, {"by": None}), out_dims=1)(batch, {"by": torch.tensor(10.0)})
        tensor([[ 0., 20., 40.],
                [10., 30., 50.]])
    """
    check_function("vmap", func)
    check_randomness("vmap", randomness)
    check_count("vmap", chunk_size, "examples")
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(
            f"vmap: chunk_size should be None or greater than 0. (got {chunk_size}) It is the "
            f"number of examples to compute at a time, None for all."
        )
    check_in_dims(func, in_dims)
    check_out_dims(func, out_dims)

    @wraps(func)
    def batched(*args: Any, **kwargs: Any) -> Any:
        inputs = match_inputs(func, in_dims, args)
        size = inputs.batch_size
        if chunk_size is not None and chunk_size < size:
            return _map_chunks(func, inputs, kwargs, out_dims, randomness, chunk_size)
        leaves, _, spec = _map(func, size, inputs, inputs.leaves, kwargs, out_dims, randomness)
        return unflatten(leaves, spec)

    return cast("Callable[P, R]", batched)


def _map(
    func: Callable[..., Any],
    size: int,
    inputs: MappedInputs,
    leaves: Sequence[Any],
    kwargs: dict[str, Any],
    out_dims: OutDims,
    randomness: str,
) -> tuple[list[Any], Sequence[int | None], TreeSpec]:
    """Calls `func` on `size` examples; the outputs are as `unbatch_outputs` returns them."""

    def body(level: _C.Level) -> tuple[list[Any], Sequence[int | None], TreeSpec]:
        examples = _C.batch(level, leaves, inputs.dims)
        result = func(*inputs.arguments(examples), **kwargs)
        return unbatch_outputs(func, level, result, out_dims)

    return _C.in_vmap(size, randomness, body)


def _map_chunks(
    func: Callable[..., Any],
    inputs: MappedInputs,
    kwargs: dict[str, Any],
    out_dims: OutDims,
    randomness: str,
    chunk_size: int,
) -> Any:
    """Calls `func` on `chunk_size` examples at a time and concatenates what it returns."""
    same_numbers = RngSnapshot(inputs.leaves) if randomness == "same" else None
    chunks: list[list[Any]] = []
    for start in range(0, inputs.batch_size, chunk_size):
        size = min(chunk_size, inputs.batch_size - start)
        part = [
            leaf if dim is None else leaf.narrow(dim, start, size)
            for leaf, dim in zip(inputs.leaves, inputs.dims, strict=True)
        ]
        if same_numbers is not None:
            same_numbers.restore()
        leaves, dims, spec = _map(func, size, inputs, part, kwargs, out_dims, randomness)
        chunks.append(leaves)
    # One output at a time, dropping its chunks as soon as they are copied.
    joined = []
    for index, dim in enumerate(dims):
        parts = [leaves[index] for leaves in chunks]
        joined.append(parts[0] if dim is None else torch.cat(parts, dim))
        for leaves in chunks:
            leaves[index] = None
    return unflatten(joined, spec)
