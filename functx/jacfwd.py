"""`jacfwd`: Jacobians column by column, by forward mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _C
from ._arguments import (
    ArgNums,
    check_argnums,
    check_function,
    reject_complex,
    resolve_argnums,
    select,
    substitute,
    wraps,
)
from ._basis import check_chunk_size, constant_zeros, standard_basis
from ._forward import ForwardResult, check_primals, push_forward
from ._opaque import opaque
from ._rng import RngSnapshot, check_randomness
from .pytree import flatten, unflatten

__all__ = ["jacfwd"]


@opaque
def jacfwd(
    func: Callable[..., Any],
    argnums: ArgNums = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Makes the function that computes the Jacobian of `func` by forward mode.

    `func` is called once, on its plain arguments and a batch of tangents, one for each input
    element. It suits functions with fewer inputs than outputs; `jacrev` suits the others.

    Args:
        func: Returns a tensor or a pytree of real tensors; with `has_aux`, a pair of that and a
            pytree of tensors.
        argnums: Which positional arguments to differentiate: an int, or a tuple of ints; negative
            ones count from the end. Each such argument is a tensor or a pytree of tensors, real
            and of floating point.
        has_aux: Whether `func` returns a pair `(output, aux)`.
        randomness: What random operators do, as for `vmap`.
        chunk_size: If given, as many columns as this are computed at a time, each time by a call
            of `func`: less memory, more calls. Under `randomness="same"` all calls draw the same
            numbers.

    Returns:
        A function of the arguments of `func`. It returns the structure of the output, with the
        structure of the argument (a tuple of these, if `argnums` is a tuple) in the place of each
        leaf, and in that, for each pair, a tensor of shape `output.shape + input.shape` and the
        dtype of the output. With `has_aux` it returns `(jacobian, aux)`.

    Raises:
        RuntimeError: `argnums` doesn't fit the arguments, one of these is not made of tensors, an
            input or output is complex, `func` doesn't return what it should, or `randomness` is
            none of the three.
        ValueError: an input is of integers, or `chunk_size` is not positive.

    Complexity:
        For `n` input elements: the arithmetic of `func` and `n` times that of its tangent, in the
        operator calls of one `jvp` for each chunk. Memory is that of `chunk_size` tangents of
        the values alive at any one time.

    Example:
        >>> import torch
        >>> from functx import jacfwd
        >>> jacfwd(lambda x: torch.stack([x, x**2, x**3]))(torch.tensor(2.0))
        tensor([ 1.,  4., 12.])
        >>> jacfwd(torch.mv, argnums=1)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2))
        tensor([[1., 2.],
                [3., 4.]])
    """
    check_function("jacfwd", func)
    check_randomness("jacfwd", randomness)
    check_chunk_size("jacfwd", chunk_size, "columns")
    check_argnums("jacfwd", argnums)
    return forward_jacobian("jacfwd", func, argnums, has_aux, randomness, chunk_size)


def forward_jacobian(
    transform: str,
    func: Callable[..., Any],
    argnums: ArgNums,
    has_aux: bool = False,
    randomness: str = "error",
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """`jacfwd`, called `transform` in messages."""

    @wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        positions = resolve_argnums(transform, argnums, len(args))
        selected = select(args, positions)
        primals, inputs_spec = flatten(selected)
        check_primals(transform, primals, selected, positions)
        reject_complex(transform, primals, "input")

        def call(duals: list[Tensor]) -> Any:
            return func(*substitute(args, positions, unflatten(duals, inputs_spec)), **kwargs)

        numels = [primal.numel() for primal in primals]
        total = sum(numels)
        # Inputs without elements are differentiated along one tangent, which is left out again.
        end = max(total, 1)
        starts = range(0, end, chunk_size or end)
        same_numbers = RngSnapshot(primals) if randomness == "same" and len(starts) > 1 else None
        chunks = []
        for start in starts:
            if same_numbers is not None:
                same_numbers.restore()
            basis = standard_basis(primals, numels, start, min(start + starts.step, end))
            chunks.append(_columns(transform, call, primals, basis, has_aux, randomness))
        result = chunks[0]
        blocks = [
            _blocks(output, [chunk.tangents[index] for chunk in chunks], primals, numels)
            for index, output in enumerate(result.primals)
        ]
        jacobians = unflatten([unflatten(row, inputs_spec) for row in blocks], result.spec)
        if result.aux_spec is None:
            return jacobians
        return jacobians, unflatten(result.aux, result.aux_spec)

    return jacobian


def _columns(
    transform: str,
    call: Callable[[list[Tensor]], Any],
    primals: list[Tensor],
    basis: list[Tensor],
    has_aux: bool,
    randomness: str,
) -> ForwardResult:
    """Pushes a chunk of the basis forward; the tangents get it as their last dimension."""

    def body(level: _C.Level) -> ForwardResult:
        tangents = _C.batch(level, basis, [0] * len(basis))
        api = f"{transform}, by jvp(f, primals, tangents)"
        result = push_forward(api, call, primals, tangents, has_aux)
        reject_complex(transform, result.primals, "output")
        columns = [
            None if tangent is None else _C.unbatch(level, (tangent,), (-1,))[0]
            for tangent in result.tangents
        ]
        aux = [_first(level, leaf) for leaf in result.aux]
        return result._replace(tangents=columns, aux=aux)

    return _C.in_vmap(basis[0].size(0), randomness, body)


def _first(level: _C.Level, leaf: Tensor) -> Tensor:
    """The value of all columns, or that of the first if random numbers went into it."""
    if _C.is_batched_at(level, leaf):
        return _C.unbatch(level, (leaf,), (0,))[0][0]
    return _C.unbatch(level, (leaf,), (None,))[0]


def _blocks(
    output: Tensor, columns: list[Tensor | None], primals: list[Tensor], numels: list[int]
) -> list[Tensor]:
    """Cuts the columns of one output into a block for each input."""
    chunks = [chunk for chunk in columns if chunk is not None]
    if not chunks:  # the output is a constant, in every chunk alike
        return [constant_zeros(output, output.shape + primal.shape) for primal in primals]
    joined = chunks[0] if len(chunks) == 1 else torch.cat(chunks, -1)
    if not any(numels):
        joined = joined.narrow(-1, 0, 0)
    if len(primals) == 1:
        return [joined.view(output.shape + primals[0].shape)]
    return [
        block.view(output.shape + primal.shape)
        for block, primal in zip(joined.split(numels, -1), primals, strict=True)
    ]
