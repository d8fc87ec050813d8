"""`register_batching_rule`: how vmap runs an operator, said in Python.

The rules that PyTorch's `register_vmap` was given run here too: `_library_rules` finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, overload

from torch import Tensor

from . import _C, _library_rules
from ._rules import (
    Operator,
    RegisteredRule,
    Rule,
    check_tensors_are_positional,
    describe,
    full_name,
    resolve,
)

__all__ = ["BatchingRule", "register_batching_rule"]

_API = "functx.register_batching_rule"


class VmapInfo(NamedTuple):
    """What a rule is told about the vmap that it runs for."""

    batch_size: int
    randomness: str


class BatchingRule(RegisteredRule):
    """A registered rule for `vmap`."""


@overload
def register_batching_rule(op: Operator, rule: Rule) -> BatchingRule: ...


@overload
def register_batching_rule(op: Operator) -> Callable[[Rule], BatchingRule]: ...


def register_batching_rule(
    op: Operator, rule: Rule | None = None
) -> BatchingRule | Callable[[Rule], BatchingRule]:
    """Gives an operator a batching rule, which comes before every other way to batch it.

    For an operator of your own, `torch.library.register_vmap` does as well: `vmap` here and in
    `torch.func` both use that rule. This function is for any operator, PyTorch's included, and may
    be used as a decorator.

    A rule is called as `rule(info, in_dims, *args, **kwargs)` where the operator is called with a
    tensor that differs between examples, and returns `(output, out_dims)`.

    - `args` and `kwargs` are those of the operator, with the examples of a tensor along one
      dimension more. As always in PyTorch, trailing arguments that have their default value are
      left out.
    - `in_dims` is a tuple with an entry for each of `args`: the batch dimension of a tensor, or
      None if it is the same for all examples or no tensor. A list has a list there.
    - `info.batch_size` and `info.randomness` are those of the `vmap`.
    - `out_dims` says where the batch dimension of each output is, from the end if negative, or
      None for one that is the same for all examples. One int or None may stand for all outputs.

    The operators that a rule calls are transformed by the transforms outside of the `vmap` only.
    What the operator writes to, the rule has to write to.

    Args:
        op: An operator such as `torch.ops.aten.sin.default`, the result of
            `torch.library.custom_op`, or a name such as `"aten::sum.dim_IntList"`. Without an
            overload, `torch.ops.aten.sin` and `"aten::sin"` mean the one called `default`.
        rule: The rule. Without it, the result is a decorator.

    Returns:
        The registered rule, whose `remove` undoes the registration. Of several rules for an
        operator, the one registered last is used.

    Raises:
        ValueError: There is no such operator, or several that could be meant.
        RuntimeError: Later, when the rule runs: what it returned is not as above.
        NotImplementedError: The operator has a tensor among its keyword-only arguments, for which
            `in_dims` has no place.

    Complexity:
        That of the rule, and some microseconds for each call of the operator.

    Note:
        Where autograd has to record an operator on the tensors inside the `vmap`, as in
        `vmap(grad(f))`, it records the operator and calls the rule underneath. There is no
        derivative of an operator that PyTorch composes from others, though: such a one is taken
        apart there, and its rule is used only where autograd does not have to record it.

    Example:
        >>> import torch
        >>> from functx import register_batching_rule, vmap
        >>> @torch.library.custom_op("functx_doctest::total", mutates_args=())
        ... def total(x: torch.Tensor) -> torch.Tensor:
        ...     return x.sum()
        >>> @register_batching_rule(total)
        ... def total_of_batch(info, in_dims, x):
        ...     return x.movedim(in_dims[0], 0).flatten(1).sum(1), 0
        >>> vmap(total)(torch.ones(3, 2, 2))
        tensor([4., 4., 4.])
        >>> total_of_batch.remove()
    """
    if rule is None:
        return partial(register_batching_rule, op)
    name, overload_name = resolve(_API, op)
    check_tensors_are_positional(
        _API, name, overload_name, "in_dims has places for positional arguments"
    )
    operator = full_name(name, overload_name)
    handle = _C.add_batching_rule(name, overload_name, partial(_run, rule, operator))
    return BatchingRule(operator, rule, handle)


def _run(
    rule: Rule,
    operator: str,
    level: _C.Level,
    returns: int,
    in_dims: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[Any]:
    """Calls the rule on values; the results, as many as `returns`, belong to `level` again."""
    returned = rule(VmapInfo(level.batch_size, level.randomness), in_dims, *args, **kwargs)
    outputs, out_dims = split_result(f"batching rule of {operator}", returned)
    if returns == 0:
        return []
    if returns == 1:
        return [_wrap(operator, level, outputs, out_dims)]
    if not (isinstance(outputs, (tuple, list)) and len(outputs) == returns):
        raise RuntimeError(
            f"functx.vmap: {operator} has {returns} outputs, but its batching rule returned "
            f"{describe(outputs)} for them. Return a tuple of {returns}."
        )
    return _wrap(operator, level, outputs, out_dims)


def _wrap(operator: str, level: _C.Level, output: Any, out_dim: Any) -> Any:
    if isinstance(output, Tensor):
        if isinstance(out_dim, (tuple, list)) and len(out_dim) == 1:
            (out_dim,) = out_dim
        check_out_dim(operator, level, output, out_dim)
        return _C.wrap_result(level, output, out_dim)
    if not isinstance(output, (tuple, list)):
        return output
    out_dims = out_dim if isinstance(out_dim, (tuple, list)) else [out_dim] * len(output)
    if len(out_dims) != len(output):
        raise RuntimeError(
            f"functx.vmap: the batching rule of {operator} returned {len(output)} outputs but "
            f"out_dims={out_dim!r}. Give one entry for each, or one int for all."
        )
    return [_wrap(operator, level, *each) for each in zip(output, out_dims, strict=True)]


def split_result(rule: str, returned: Any) -> tuple[Any, Any]:
    """`(output, out_dims)` of what a rule returned."""
    if isinstance(returned, tuple) and len(returned) == 2:
        return returned
    raise RuntimeError(
        f"functx.vmap: the {rule} has to have two returns, (output, out_dims), but returned "
        f"{describe(returned)}."
    )


def check_out_dim(operator: str, level: _C.Level, output: Tensor, out_dim: Any) -> None:
    if out_dim is None:
        return
    shape = tuple(output.shape)
    if not isinstance(out_dim, int):
        raise RuntimeError(
            f"functx.vmap: the batching rule of {operator} returned {out_dim!r} in out_dims for a "
            f"tensor. Give the position of its batch dimension, or None."
        )
    if not -len(shape) <= out_dim < len(shape) or shape[out_dim] != level.batch_size:
        raise RuntimeError(
            f"functx.vmap: the batching rule of {operator} returned an output of shape {shape} "
            f"with out_dims {out_dim}, but no dimension of the batch size, {level.batch_size}, is "
            f"there. Give None for an output that is the same for all examples."
        )


def _find_library_rule(operator: str) -> Callable[..., list[Any]] | None:
    rule = _library_rules.find(operator)
    return None if rule is None else partial(_run, rule, operator)


def install() -> None:
    """Lets the extension know of the rules that PyTorch was given; called at first use."""
    _library_rules.install()
    _C.ask_for_library_rules(_find_library_rule)
