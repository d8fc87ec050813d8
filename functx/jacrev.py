"""`jacrev`: Jacobians row by row, by reverse mode."""

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
    differentiable_leaves,
    reject_complex,
    resolve_argnums,
    select,
    substitute,
    wraps,
)
from ._basis import check_chunk_size, constant_zeros, standard_basis
from ._opaque import opaque
from ._outputs import check_differentiable, split_aux, tensor_leaves
from .pytree import unflatten

__all__ = ["jacrev"]


@opaque
def jacrev(
    func: Callable[..., Any],
    argnums: ArgNums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """Makes the function that computes the Jacobian of `func` by reverse mode.

    `func` is called once; one backward pass, vectorised over the elements of its outputs, gives
    all rows. It suits functions with fewer outputs than inputs; `jacfwd` suits the others.

    Args:
        func: Returns a tensor or a pytree of tensors, real and of floating point; with `has_aux`,
            a pair of that and a pytree of tensors.
        argnums: Which positional arguments to differentiate: an int, or a tuple of ints; negative
            ones count from the end. Each such argument is a tensor or a pytree of tensors, real
            and of floating point.
        has_aux: Whether `func` returns a pair `(output, aux)`.
        chunk_size: If given, as many rows as this are computed at a time: less memory, more
            passes. With 1 they are computed by a loop without `vmap`, so nothing in the backward
            pass has to be something that `vmap` can do.
        _preallocate_and_copy: With `chunk_size`, whether to copy each chunk into the result at
            once, which needs the least memory, instead of concatenating all of them in the end.

    Returns:
        A function of the arguments of `func`. It returns the structure of the output, with the
        structure of the argument (a tuple of these, if `argnums` is a tuple) in the place of each
        leaf, and in that, for each pair, a tensor of shape `output.shape + input.shape`. With
        `has_aux` it returns `(jacobian, aux)`.

    Raises:
        RuntimeError: `argnums` doesn't fit the arguments, an input or output is complex or of
            integers, or `func` doesn't return what it should.
        ValueError: an argument to differentiate is not made of tensors, or `chunk_size` is not
            positive.

    Complexity:
        For `m` output elements: `m` times the arithmetic of `func`, in the operator calls of one
        backward pass for each chunk. Memory is that of the intermediate values of `func`, and of
        `chunk_size` times those of a backward pass.

    Example:
        >>> import torch
        >>> from functx import jacrev
        >>> jacrev(lambda x: torch.stack([x.sum(), x.prod()]))(torch.tensor([2.0, 3.0, 4.0]))
        tensor([[ 1.,  1.,  1.],
                [12.,  8.,  6.]])
        >>> jacobian = jacrev(torch.outer, argnums=(0, 1))(torch.ones(2), torch.ones(3))
        >>> [tuple(block.shape) for block in jacobian]
        [(2, 3, 2), (2, 3, 3)]
    """
    check_function("jacrev", func)
    check_chunk_size("jacrev", chunk_size, "rows")
    check_argnums("jacrev", argnums)
    return reverse_jacobian("jacrev", func, argnums, has_aux, chunk_size, _preallocate_and_copy)


def reverse_jacobian(
    transform: str,
    func: Callable[..., Any],
    argnums: ArgNums,
    has_aux: bool = False,
    chunk_size: int | None = None,
    copy_chunks: bool = False,
) -> Callable[..., Any]:
    """`jacrev`, called `transform` in messages."""
    api = f"{transform}, by vjp(f, *primals)"

    @wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        positions = resolve_argnums(transform, argnums, len(args))
        selected = select(args, positions)
        primals, inputs_spec = differentiable_leaves(transform, selected, positions)
        reject_complex(transform, primals, "input")

        def body(level: _C.Level) -> tuple[_Tape, Any, Any]:
            inputs = _C.track(primals)
            result = func(*substitute(args, positions, unflatten(inputs, inputs_spec)), **kwargs)
            aux = None
            if has_aux:
                result, aux_leaves, aux_spec = split_aux(api, result)
                aux = unflatten(_C.release(level, aux_leaves), aux_spec)
            outputs, outputs_spec = tensor_leaves(api, result)
            check_differentiable(api, outputs)
            reject_complex(transform, outputs, "output")
            return _Tape(level, inputs, outputs, keep=bool(has_aux)), aux, outputs_spec

        tape, aux, outputs_spec = _C.in_grad((args, kwargs, positions), body)
        try:
            blocks = tape.blocks(chunk_size, copy_chunks)
        finally:
            _C.let_go(tape.level)
        jacobians = unflatten([unflatten(row, inputs_spec) for row in blocks], outputs_spec)
        return (jacobians, aux) if has_aux else jacobians

    return jacobian


class _Tape:
    """What `func` left behind: its recorded inputs and its outputs, flattened.

    It is freed with the last row, unless `keep` says that aux may share it.
    """

    __slots__ = ("inputs", "keep", "level", "numels", "outputs", "total")

    def __init__(
        self, level: _C.Level, inputs: list[Tensor], outputs: list[Tensor], keep: bool
    ) -> None:
        self.level = level
        self.keep = keep
        self.inputs = inputs
        self.outputs = outputs
        self.numels = [output.numel() for output in outputs]
        self.total = sum(self.numels)

    def blocks(self, chunk_size: int | None, copy_chunks: bool) -> list[list[Tensor]]:
        """For each output, for each input, a tensor of shape `output.shape + input.shape`."""
        outputs = self.outputs
        if len(outputs) == 1 and outputs[0].dim() == 0:
            # A gradient: there is nothing to vectorise over, and no shape to change.
            return [_C.pullback(self.level, outputs, self.inputs, (None,), self.keep)]
        by_input = [
            rows.split(self.numels) if len(outputs) > 1 else (rows,)
            for rows in self._all_rows(chunk_size, copy_chunks)
        ]
        return [
            [
                by_output[index].view(output.shape + primal.shape)
                for by_output, primal in zip(by_input, self.inputs, strict=True)
            ]
            for index, output in enumerate(outputs)
        ]

    def _all_rows(self, chunk_size: int | None, copy_chunks: bool) -> list[Tensor]:
        """For each input the Jacobian of all outputs, of shape `(total, *input.shape)`."""
        total = self.total
        if total == 0:
            return [constant_zeros(primal, (0, *primal.shape)) for primal in self.inputs]
        starts = range(0, total, chunk_size or total)
        chunks = (
            self._rows(start, min(start + starts.step, total), chunk_size) for start in starts
        )
        if len(starts) == 1:
            return next(chunks)
        if not copy_chunks:
            return [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        copies: list[Tensor] = []
        for start, chunk in zip(starts, chunks, strict=True):
            copies = copies or [rows.new_empty((total, *rows.shape[1:])) for rows in chunk]
            for copy, rows in zip(copies, chunk, strict=True):
                copy.narrow(0, start, rows.size(0)).copy_(rows)
        return copies

    def _rows(self, start: int, stop: int, chunk_size: int | None) -> list[Tensor]:
        """Rows `start` to `stop` of `_all_rows`."""
        basis = standard_basis(self.outputs, self.numels, start, stop)
        keep = self.keep or stop < self.total
        if chunk_size == 1:
            cotangents = [part[0] for part in basis]
            row = _C.pullback(self.level, self.outputs, self.inputs, cotangents, keep)
            return [_dense(gradient).unsqueeze(0) for gradient in row]

        def body(level: _C.Level) -> list[Tensor]:
            cotangents = _C.batch(level, basis, [0] * len(basis))
            rows = _C.pullback(self.level, self.outputs, self.inputs, cotangents, keep)
            return [_dense(each) for each in _C.unbatch(level, rows, [0] * len(rows))]

        return _C.in_vmap(stop - start, "error", body)


def _dense(gradient: Tensor) -> Tensor:
    """Some gradients, such as that of an embedding, may be sparse."""
    return gradient.to_dense() if gradient.is_sparse else gradient
