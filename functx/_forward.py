"""One forward-mode evaluation, shared by `jvp` and `jacfwd`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from . import _C
from ._arguments import ArgNums, argument, undifferentiated
from ._outputs import split_aux, tensor_leaves
from .pytree import TreeSpec


def check_primals(api: str, primals: list[Any], tree: Any, argnums: ArgNums | None = None) -> None:
    """Checks the leaves that a derivative is taken with respect to.

    Args:
        api: What was called, for messages.
        primals: The leaves.
        tree: What has these leaves.
        argnums: The positions of these arguments; None: `tree` is the tuple of all arguments.

    Raises:
        RuntimeError: there is none, or one is not a tensor.
        ValueError: one is a tensor of integers or booleans.
        NotImplementedError: one has no shape.
    """
    if not primals:
        raise RuntimeError(
            f"{api}: Expected primals to contain at least one Tensor. Pass what f is to be "
            f"differentiated by as its arguments."
        )
    for index, primal in enumerate(primals):
        if not _is_differentiable(primal):
            _refuse(
                api, "primal", primal, argument(tree, index, argnums), undifferentiated(argnums)
            )


def check_tangents(api: str, tangents: list[Any], tree: Any) -> None:
    """Checks the leaves of `tree`, the tuple of all tangents; raises as `check_primals` does."""
    for index, tangent in enumerate(tangents):
        if not _is_differentiable(tangent):
            remedy = "pass zeros for an input that stays fixed"
            _refuse(api, "tangent", tangent, argument(tree, index), remedy)


def _is_differentiable(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and (value.is_floating_point() or value.is_complex())
        and not (value.is_nested and value.layout is torch.strided)
    )


def _refuse(api: str, role: str, value: Any, where: str, otherwise: str) -> NoReturn:
    if not isinstance(value, Tensor):
        raise RuntimeError(
            f"{api}: Expected {role}s to only contain Tensors, got {type(value)} for {where}. Pass "
            f"torch.tensor(value), or {otherwise}."
        )
    if not (value.is_floating_point() or value.is_complex()):
        raise ValueError(
            f"{api}: Expected {role} to be floating point or complex, but got: {value.dtype} for "
            f"{where}. Convert it first, for example with x.float(), or {otherwise}."
        )
    raise NotImplementedError(
        f"{api}: Expected {role} to have a shape, which a nested tensor of layout torch.strided, "
        f"like that for {where}, has not. Make it with layout=torch.jagged."
    )


class ForwardResult(NamedTuple):
    """Output leaves with their tangents, None for zero; `aux_spec` is None without `has_aux`."""

    primals: list[Tensor]
    tangents: list[Tensor | None]
    spec: TreeSpec
    aux: list[Tensor]
    aux_spec: TreeSpec | None


def push_forward(
    api: str,
    func: Callable[..., Any],
    primals: list[Tensor],
    tangents: list[Tensor],
    has_aux: bool,
) -> ForwardResult:
    """Calls `func` with a list of duals made of `primals` and `tangents`.

    Raises:
        RuntimeError: what `func` returns is not as it should be.
    """

    def body(level: _C.Level) -> ForwardResult:
        output = func(_C.make_duals(level, primals, tangents))
        aux_leaves: list[Tensor] = []
        aux_spec = None
        if has_aux:
            output, aux_leaves, aux_spec = split_aux(api, output)
            aux_leaves, _ = _C.unpack_duals(level, aux_leaves)
        outputs, spec = tensor_leaves(api, output)
        return ForwardResult(*_C.unpack_duals(level, outputs), spec, aux_leaves, aux_spec)

    return _C.in_jvp(body)
