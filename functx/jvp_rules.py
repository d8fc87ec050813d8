"""`register_jvp_rule`: how jvp differentiates an operator, said in Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from . import _C
from ._rules import (
    Operator,
    RegisteredRule,
    Rule,
    check_tensors_are_positional,
    describe,
    full_name,
    resolve,
)
from ._transposition import check_on_tape

__all__ = ["JvpRule", "register_jvp_rule"]

_API = "functx.register_jvp_rule"


class JvpRule(RegisteredRule):
    """A registered rule for `jvp`."""


@overload
def register_jvp_rule(op: Operator, rule: Rule) -> JvpRule: ...


@overload
def register_jvp_rule(op: Operator) -> Callable[[Rule], JvpRule]: ...


def register_jvp_rule(
    op: Operator, rule: Rule | None = None
) -> JvpRule | Callable[[Rule], JvpRule]:
    """Gives an operator a forward-mode derivative, which comes before every other way to get one.

    An operator of your own that has `register_autograd` needs none: the derivative is found by
    differentiating its backward. A rule is faster, or the only way if that can't be differentiated.
    This function is for any operator, PyTorch's included, and may be used as a decorator.

    A rule is called as `rule(primals, tangents, **kwargs)` where the operator is called with a
    tensor that has a tangent, and returns `(output, tangent)`.

    - `primals` are the positional arguments of the operator, in a tuple. As always in PyTorch,
      trailing arguments that have their default value are left out. `kwargs` are those that the
      operator takes by keyword only.
    - `tangents` is a tuple with an entry for each of `primals`: a tensor of its shape and dtype, or
      None if it is constant or no tensor. A list of tensors has a list there.
    - `output` is what the operator returns, and `tangent` the same for its tangent: a tensor of the
      shape and dtype of the output, or a tuple of them for several outputs. None is zero, and all
      that an output of integers can have.

    The operators that a rule calls are transformed by the transforms outside of the `jvp` only. So
    a rule may call its operator for the output; under `jvp(jvp(f))` that calls the rule again.

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
            `tangents` has no place; or it writes to an argument, or returns a view of one. One that
            writes is differentiated by the rule of the operator that returns its result, if it has
            the same name without the underscore.

    Complexity:
        That of the rule, and some microseconds for each call of the operator.

    Note:
        In `jvp(grad(f))` the operator is called on tensors that autograd records. There is no
        derivative of an operator that PyTorch composes from others: such a one is taken apart
        there, and its rule is used only where autograd does not have to record it.

    Example:
        >>> import torch
        >>> from functx import jvp, register_jvp_rule
        >>> @torch.library.custom_op("functx_doctest::cube", mutates_args=())
        ... def cube(x: torch.Tensor) -> torch.Tensor:
        ...     return torch.from_numpy(x.numpy() ** 3)
        >>> @register_jvp_rule(cube)
        ... def cube_jvp(primals, tangents):
        ...     (x,), (t,) = primals, tangents
        ...     return cube(x), 3 * x**2 * t
        >>> jvp(cube, (torch.tensor([2.0]),), (torch.tensor([1.0]),))
        (tensor([8.]), tensor([12.]))
        >>> cube_jvp.remove()
    """
    if rule is None:
        return partial(register_jvp_rule, op)
    name, overload_name = resolve(_API, op)
    check_tensors_are_positional(
        _API, name, overload_name, "tangents has places for positional arguments"
    )
    operator = full_name(name, overload_name)
    _check_returns_new_tensors(operator, name, overload_name)
    handle = _C.add_jvp_rule(name, overload_name, partial(_run, rule, operator))
    return JvpRule(operator, rule, handle)


def _check_returns_new_tensors(operator: str, name: str, overload_name: str) -> None:
    for argument in torch._C._get_schema(name, overload_name).arguments:
        if argument.alias_info is None:
            continue
        does, instead = (
            ("writes to", "an operator that returns the result instead")
            if argument.alias_info.is_write
            else ("returns a view of", "one that returns a copy")
        )
        raise NotImplementedError(
            f"{_API}: {operator} {does} its argument {argument.name}, and a rule has no way to say "
            f"what becomes of the tangent of that. Register the rule for {instead}."
        )


def _run(
    rule: Rule,
    operator: str,
    returns: int,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[tuple[Any, Any]]:
    """Calls the rule; pairs of an output and its tangent, as many as `returns`."""
    returned = rule(primals, tangents, **kwargs)
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise RuntimeError(
            f"functx.jvp: the rule of {operator} has to return two things, (output, tangent), but "
            f"returned {describe(returned)}."
        )
    output, tangent = returned
    if returns == 0:
        return []
    check_on_tape(f"the jvp rule of {operator}", tangents, tangent)
    if returns == 1:
        return [_check(operator, output, tangent)]
    if not (isinstance(output, (tuple, list)) and len(output) == returns):
        raise RuntimeError(
            f"functx.jvp: {operator} has {returns} outputs, but its rule returned "
            f"{describe(output)} for them. Return a tuple of {returns}."
        )
    return _check_all(operator, output, tangent)


def _check_all(operator: str, outputs: Any, tangents: Any) -> list[tuple[Any, Any]]:
    """Pairs the elements of two sequences of the same length; None stands for Nones."""
    if tangents is None:
        tangents = [None] * len(outputs)
    if not (isinstance(tangents, (tuple, list)) and len(tangents) == len(outputs)):
        raise RuntimeError(
            f"functx.jvp: the rule of {operator} returned {len(outputs)} outputs, but "
            f"{describe(tangents)} for their tangents. Return one for each, None for zero."
        )
    return [_check(operator, *each) for each in zip(outputs, tangents, strict=True)]


def _check(operator: str, output: Any, tangent: Any) -> tuple[Any, Any]:
    if isinstance(output, (tuple, list)):
        pairs = _check_all(operator, output, tangent)
        return [each for each, _ in pairs], [each for _, each in pairs]
    if tangent is None:
        return output, None
    rule = f"functx.jvp: the rule of {operator}"
    if not isinstance(output, Tensor) or not (output.is_floating_point() or output.is_complex()):
        kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise RuntimeError(
            f"{rule} returned a tangent for an output of {kind}, which has none. Return None for "
            f"it."
        )
    if not isinstance(tangent, Tensor):
        raise RuntimeError(
            f"{rule} returned {describe(tangent)} for the tangent of an output. Return a tensor, "
            f"or None for zero."
        )
    for aspect in ("shape", "dtype", "device"):
        expected, actual = getattr(output, aspect), getattr(tangent, aspect)
        if actual != expected:
            raise RuntimeError(
                f"{rule} returned a tangent of {aspect} {_plain(actual)} for an output of {aspect} "
                f"{_plain(expected)}. They have to be equal."
            )
    return output, tangent


def _plain(aspect: Any) -> Any:
    return tuple(aspect) if isinstance(aspect, torch.Size) else aspect
