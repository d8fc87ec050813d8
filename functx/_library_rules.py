"""Finds the vmap rules that users gave to PyTorch, by `torch.library.register_vmap`.

A `CustomOpDef`, what `torch.library.custom_op` and `triton_op` return, keeps its rule in an
attribute. For an operator that was defined otherwise, the rule is nowhere but in the closure of a
kernel, which PyTorch made when the rule was registered. From the first transform on it is noted
when that happens; the kernels that were made before are looked for once, when first needed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch._library.utils import lookup_op
from torch._ops import OpOverload

from ._in_front import put_before

Rule = Callable[..., Any]

# The rules of operators that are no CustomOpDef; None: looked for in vain.
_rules: dict[str, Rule | None] = {}


def find(operator: str) -> Rule | None:
    """The rule of an operator that has a vmap kernel, or None if that was registered otherwise.

    >>> find("aten::sin") is None
    True
    """
    definition = OPDEFS.get(operator)
    if definition is not None and definition._vmap_fn is not None:
        return definition._vmap_fn
    if operator not in _rules:
        _rules[operator] = _find_in_kernels(operator)
    return _rules[operator]


def _find_in_kernels(operator: str) -> Rule | None:
    kernel_name = "register_vmap.<locals>.register.<locals>.wrapped_func"
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__qualname__ == kernel_name:
            names, cells = each.__code__.co_freevars, each.__closure__ or ()
            captured = {n: cell.cell_contents for n, cell in zip(names, cells, strict=True)}
            operators = [v for v in captured.values() if isinstance(v, OpOverload)]
            if operators and operators[0]._name == operator:
                return captured.get("func")
    return None


def install() -> None:
    """Notes the rules that `torch.library.register_vmap` gets; called at first use."""
    put_before(torch.library.register_vmap, _noting)


def _noting(plain: Callable[..., Any]) -> Callable[..., Any]:
    def register_vmap(op: Any, func: Rule | None = None, /, *, lib: Any = None) -> Any:
        register = plain(op, None, lib=lib)

        def note(rule: Rule) -> Any:
            result = register(rule)
            if isinstance(op, (str, OpOverload)):
                _rules[op._name if isinstance(op, OpOverload) else lookup_op(op)._name] = rule
            return result

        return note if func is None else note(func)

    return register_vmap
