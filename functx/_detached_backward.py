"""A `backward` whose results are constants to autograd, though they depend on the gradients.

It may have detached them, computed under `no_grad`, or by an inner `torch.autograd.grad` that does
not record. Without `once_differentiable`, PyTorch takes its derivative for zero without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function

from . import _C
from ._basis import innermost_value
from ._once_differentiable import collect_tracked, is_once_differentiable, make_final


def refuse_detached(
    name: str, gradients: Sequence[Tensor | None], results: Sequence[Tensor | None]
) -> None:
    """Checks what the backward of the Function `name` made of `gradients`, where it is recorded.

    A backward is linear in the gradients. So if all of those are tracked, then only a result of
    zeros need not be.

    Raises:
        RuntimeError: the derivative of a result would be lost.
    """
    if not torch.is_grad_enabled():
        return
    given = [gradient for gradient in gradients if gradient is not None]
    if not given or not all(map(_is_tracked, given)):
        return
    for result in results:
        if result is not None and not _is_tracked(result) and _is_known_not_to_be_zero(result):
            raise RuntimeError(
                f"functx: trying to differentiate twice {name}, whose backward detaches the "
                f"gradients, or does with them what autograd does not see, so that its own "
                f"derivative is not known. Make its backward of differentiable operators, with "
                f"create_graph=True if it asks autograd."
            )


def watch(function: type[Function], outputs: Any) -> None:
    """Has the node that recorded a call of `function` checked, if there is one."""
    kind: Any = function._backward_cls
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        node: Any = output.grad_fn if isinstance(output, Tensor) else None
        if type(node) is kind:
            node._functx_watches = True
            if kind.apply is BackwardCFunction.apply:
                kind.apply = _apply
            return


def _apply(node: Any, *gradients: Tensor | None) -> Any:
    """What autograd calls, in place of `BackwardCFunction.apply`: a hook would take longer."""
    results = BackwardCFunction.apply(node, *gradients)
    if not (torch.is_grad_enabled() and getattr(node, "_functx_watches", False)):
        return results
    function = node._forward_cls
    results = results if isinstance(results, tuple) else (results,)
    if is_once_differentiable(function.backward):
        return _final(results, (*gradients, *node.saved_tensors))
    # Those of custom operators are classes that PyTorch writes.
    name = function.__name__.removeprefix("GeneratedBackwardFor_")
    refuse_detached(name, gradients, results)
    return results


def _final(
    results: Sequence[Tensor | None], tensors: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The results of a backward that is once_differentiable.

    PyTorch's decorator puts a node that raises behind them, but leads from it to nothing: who asks
    for certain derivatives only never comes there. Ours leads to all that is tracked.
    """
    sources: dict[int | None, list[Tensor]] = {}
    for tensor in tensors:
        if tensor is not None:
            collect_tracked(tensor, sources)
    return tuple(
        None if result is None else make_final(_untracked(result), sources) for result in results
    )


def _untracked(tensor: Tensor) -> Tensor:
    return _C.without_tape(tensor) if _C.is_wrapper(tensor) else tensor.detach()


def _is_tracked(tensor: Tensor) -> bool:
    sources: dict[int | None, list[Tensor]] = {}
    collect_tracked(tensor, sources)
    return bool(sources)


def _is_known_not_to_be_zero(tensor: Tensor) -> bool:
    value = innermost_value(tensor)
    return _C.has_numbers((value,)) and bool(value.count_nonzero())
