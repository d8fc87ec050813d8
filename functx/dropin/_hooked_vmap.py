"""`vmap` for libraries that hook into it.

tensordict replaces the private helpers by which `torch.vmap` takes its inputs apart and puts its
outputs together, so that they see its containers. While they are replaced, this vmap calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.vmap

from .. import vmap as plain_vmap
from .._arguments import wraps
from .._dims import InDims, OutDims
from ._private import _create_batched_inputs, vmap_increment_nesting


def vmap(
    func: Callable[..., Any],
    in_dims: InDims = 0,
    out_dims: OutDims = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    plain = plain_vmap(func, in_dims, out_dims, randomness, chunk_size=chunk_size)
    # As code outside of PyTorch sees them: ours, or a library's.
    helpers: Any = torch._functorch.vmap
    create = helpers._create_batched_inputs
    if create is _create_batched_inputs or chunk_size is not None:
        return plain
    process, unwrap = helpers._process_batched_inputs, helpers._unwrap_batched

    @wraps(func)
    def batched(*args: Any, **kwargs: Any) -> Any:
        batch_size, flat_in_dims, flat_args, spec = process(in_dims, args, func)
        with vmap_increment_nesting(batch_size, randomness) as level:
            inputs = create(flat_in_dims, flat_args, level, spec)
            return unwrap(func(*inputs, **kwargs), out_dims, level, batch_size, func)

    return batched
