"""The standard basis of the space that a list of tensors spans together, as Jacobians need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _C
from ._arguments import check_count


def check_chunk_size(transform: str, chunk_size: Any, of: str) -> None:
    """Raises TypeError unless `chunk_size` is an int or None, ValueError unless it is positive."""
    check_count(transform, chunk_size, f"{of} of the Jacobian")
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(
            f"{transform}: `chunk_size` should be greater than 0. (got {chunk_size}) It is the "
            f"number of {of} of the Jacobian to compute at a time, None for all."
        )


def constant_zeros(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Zeros of the dtype, on the device and of the class of `like`, but never batched or dual."""
    value = innermost_value(like)
    if type(value) is Tensor:
        return torch.zeros(shape, dtype=value.dtype, device=value.device)
    return value.new_zeros(shape)


def innermost_value(tensor: Tensor) -> Tensor:
    """What is below all wrappers."""
    while _C.is_wrapper(tensor):
        tensor = _C.unwrap(tensor)[0]
    return tensor


def standard_basis(
    tensors: Sequence[Tensor], numels: Sequence[int], start: int, stop: int
) -> list[Tensor]:
    """Basis vectors `start` to `stop` of the concatenation of `tensors`, flattened.

    Args:
        tensors: What gives shapes, dtypes and devices.
        numels: Their numbers of elements, which sum to the dimension `n` of the space.
        start: First vector, `0 <= start < n`.
        stop: One past the last vector.

    Returns:
        For each tensor its part of each vector: shape `(stop - start, *tensor.shape)`.

    >>> standard_basis([torch.zeros(2), torch.zeros(())], [2, 1], 1, 3)
    [tensor([[0., 1.],
            [0., 0.]]), tensor([0., 1.])]
    """
    rows = stop - start
    basis = []
    offset = 0
    for tensor, numel in zip(tensors, numels, strict=True):
        is_plain = type(innermost_value(tensor)) is Tensor
        if is_plain and rows == numel and start == offset:
            part = torch.eye(numel, dtype=tensor.dtype, device=tensor.device)
        else:
            # One where basis vector start + row is coordinate offset + column.
            part = constant_zeros(tensor, (rows, numel))
            part.diagonal(start - offset).fill_(1)
        basis.append(part.view(rows, *tensor.shape))
        offset += numel
    return basis
