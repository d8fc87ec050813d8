"""Control flow as an operator inside of our transforms: `cond`, and what is said of the others.

PyTorch compiles what `torch.cond` is given, for tensors that the compiler knows. On ours it would
fail, so one that first asks whether a transform is active stands in front of `torch.cond`. The
other operators that take functions (`while_loop`, `scan`, `flex_attention`) have no rule; PyTorch
would say so of a dispatch key that it has no name for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator

from . import _C
from ._in_front import plain, put_before
from .pytree import describe, flatten, unflatten

# `functx.dropin` puts another function where it is.
_torch_cond = torch.cond
_plain_cond = plain(_torch_cond)


def cond(
    pred: bool | int | float | Tensor,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    operands: tuple[Any, ...] | list[Any] = (),
) -> Any:
    """Calls one of two functions; inside of `vmap`, each example has the result of its own choice.

    Outside of transforms this is `torch.cond`. Inside, a `pred` that is the same for all
    examples chooses the function to call, and only that one is called. If it differs between
    examples, both are called, and `torch.where` chooses for each. As always with `torch.where`,
    the gradient of the result that was not chosen is multiplied by zero, so it should be finite.

    Args:
        pred: What to choose by, a bool, a number or a tensor of one element.
        true_fn: Takes the operands and returns a tensor or a pytree of tensors.
        false_fn: Same; where `pred` differs between examples, it returns tensors of the same
            shapes and dtypes in the same structure.
        operands: The arguments, a tuple or list.

    Returns:
        `true_fn(*operands)` or `false_fn(*operands)`.

    Raises:
        RuntimeError: `pred` has more than one element, or it differs between examples and the
            results do not match.

    Example:
        >>> import torch
        >>> from functx import vmap
        >>> from functx.experimental.control_flow import cond
        >>> f = lambda x: cond(x.sum() > 2, torch.negative, torch.clone, (x,))
        >>> vmap(f)(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
        tensor([[ 1.,  0.],
                [-1., -2.]])
    """
    if torch.compiler.is_dynamo_compiling():
        return _torch_cond(pred, true_fn, false_fn, operands)
    if _C.level_depth() == 0:
        return _plain_cond(pred, true_fn, false_fn, operands)
    if isinstance(pred, Tensor):
        if pred.numel() != 1:
            raise RuntimeError(
                f"functx.cond: pred has to be one element, but has shape {tuple(pred.shape)}. "
                f"Reduce it, for example with .any()."
            )
        if _differs_between_examples(pred):
            choices = [function(*operands) for function in (true_fn, false_fn)]
            return _choose(pred.reshape(()).bool(), *choices)
    return true_fn(*operands) if pred else false_fn(*operands)


def _differs_between_examples(tensor: Tensor) -> bool:
    while _C.is_wrapper(tensor):
        tensor, _, is_batched = _C.unwrap(tensor)
        if is_batched:
            return True
    return False


def _choose(pred: Tensor, if_true: Any, if_false: Any) -> Any:
    true_leaves, true_spec = flatten(if_true)
    false_leaves, false_spec = flatten(if_false)
    if true_spec != false_spec:
        _mismatch(describe(true_spec), describe(false_spec))
    chosen = []
    for true_leaf, false_leaf in zip(true_leaves, false_leaves, strict=True):
        kinds = [_kind(true_leaf), _kind(false_leaf)]
        if kinds[0] != kinds[1]:
            _mismatch(*kinds)
        is_tensor = isinstance(true_leaf, Tensor)
        chosen.append(torch.where(pred, true_leaf, false_leaf) if is_tensor else true_leaf)
    return unflatten(chosen, true_spec)


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}" if isinstance(leaf, Tensor) else repr(leaf)


def _mismatch(if_true: str, if_false: str) -> None:
    raise RuntimeError(
        f"functx.cond: pred differs between examples, so both functions have to return the same "
        f"structure, shapes and dtypes, but true_fn gave {if_true} and false_fn {if_false}."
    )


def _naming(plain_dispatch: Callable[..., Any]) -> Callable[..., Any]:
    def dispatch(operator: HigherOrderOperator, key: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return plain_dispatch(operator, key, *args, **kwargs)
        except NotImplementedError as error:
            if key in DispatchKey.__members__.values() or _C.level_depth() == 0:
                raise
            kind = _C.active_levels()[-1].kind
            raise NotImplementedError(
                f"functx.{kind}: torch.ops.higher_order.{operator.name()} has no rule inside of "
                f"{kind}. Write what it does in ordinary operators, with a loop of Python or "
                f"torch.where, or call it outside."
            ) from error

    return dispatch


def install() -> None:
    """Puts ours in front of PyTorch's; called at first use."""
    put_before(_torch_cond, lambda _: cond)
    put_before(HigherOrderOperator.dispatch, _naming)
