"""What all rules that are registered for operators share: the operator's name, and the handle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._library.custom_ops import CustomOpDef
from torch._ops import OpOverload, OpOverloadPacket

from . import _C

Operator = OpOverload | OpOverloadPacket | CustomOpDef | str
Rule = Callable[..., Any]


class RegisteredRule:
    """A registered rule: called, it is the function that was registered.

    Attributes:
        operator: The name of the operator, with its overload.
        function: The rule.
    """

    def __init__(self, operator: str, function: Rule, handle: _C.RuleHandle) -> None:
        self.operator = operator
        self.function = function
        self._handle = handle

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the rule; for tests of it."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<functx.{type(self).__name__} for {self.operator}: {self.function!r}>"

    def remove(self) -> None:
        """Undoes the registration: what was done for the operator before is done again."""
        self._handle.remove()


def resolve(api: str, op: Operator) -> tuple[str, str]:
    """Name and overload of an operator.

    Raises:
        ValueError: there is none, or several could be meant. `api` is named in the message.
    """
    if isinstance(op, CustomOpDef):
        op = op._opoverload
    if isinstance(op, OpOverload):
        name, overload_name = op._schema.name, op._schema.overload_name
    elif isinstance(op, OpOverloadPacket):
        name, overload_name = op._qualified_op_name, ""
    elif isinstance(op, str):
        name, _, overload_name = op.partition(".")
        overload_name = "" if overload_name == "default" else overload_name
    else:
        raise ValueError(
            f"{api}: got {op!r}, which is not an operator. Pass one such as "
            f'torch.ops.aten.sin.default, or its name, "aten::sin".'
        )
    try:
        torch._C._dispatch_find_schema_or_throw(name, overload_name)
    except RuntimeError:
        raise ValueError(f"{api}: {_advice(name, overload_name)}") from None
    return name, overload_name


def full_name(name: str, overload_name: str) -> str:
    """The name as PyTorch writes it.

    >>> full_name("aten::sum", "dim_IntList"), full_name("aten::sin", "")
    ('aten::sum.dim_IntList', 'aten::sin')
    """
    return f"{name}.{overload_name}" if overload_name else name


def check_tensors_are_positional(api: str, name: str, overload_name: str, reason: str) -> None:
    """Raises NotImplementedError if the operator takes a tensor by keyword only."""
    for argument in torch._C._get_schema(name, overload_name).arguments:
        if argument.kwarg_only and "Tensor" in str(argument.type):
            raise NotImplementedError(
                f"{api}: {name}.{overload_name} takes the tensor {argument.name} by keyword only, "
                f"and {reason}. Register the rule for an overload without it."
            )


def describe(value: Any) -> str:
    """How messages speak of what a rule has returned.

    >>> describe((1, 2)), describe(None)
    ('a tuple of 2', 'a NoneType')
    """
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _advice(name: str, overload_name: str) -> str:
    names = [each for each in torch._C._dispatch_get_all_op_names() if each.split(".")[0] == name]
    if not names:
        return f"there is no operator {name}. Define it before its rule, and check the spelling."
    meant = full_name(name, overload_name) if overload_name else f"{name} without overload"
    return f"there is no {meant}. Name one of: {', '.join(sorted(names))}."
