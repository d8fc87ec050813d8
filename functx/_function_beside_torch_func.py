"""`torch.autograd.Function` where our transforms meet those of torch.func.

torch.func takes a Function apart level by level as we do, by an operator of its own, to which all
Functions are new-style. What is left of a Function when our inner levels are off is handed to it as
such a one, and when it is done with the transforms inside of ours, it is our turn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import custom_function_call
from torch._ops import _compute_keyset
from torch.autograd.function import Function

from . import _C
from ._custom_function import Context, CustomOperation, Operation, Result
from ._in_front import plain
from .pytree import flatten

_plain_apply = plain(Function.apply.__func__)  # type: ignore[attr-defined]


def call_in_torch_func(
    operation: Operation, args: tuple[Any, ...], needs: tuple[bool, ...], wants_context: bool
) -> Result:
    """Calls the operation on tensors that are no wrappers of ours, but may be of torch.func."""
    if (
        isinstance(operation, CustomOperation)
        and operation.is_new_style
        and (not wants_context or operation.has_vmap)
    ):
        output = _plain_apply(operation.function, *args)
        is_tuple = isinstance(output, tuple)
        result = Result(output if is_tuple else (output,), is_tuple, None)
        return operation.with_context(args, needs, result) if wants_context else result
    known = _KnownFunction(operation, needs)
    returned = _plain_apply(known.as_class(), *args)
    return Result(returned[: known.count], known.is_tuple, known.context(args, returned))


class _KnownFunction:
    """An operation as a new-style Function.

    At each of its levels torch.func calls `setup_context` with the inputs and outputs of that level
    and nothing else, so what the operation keeps besides is returned behind the outputs.
    """

    def __init__(self, operation: Operation, needs: tuple[bool, ...]) -> None:
        self.operation = operation
        self.needs = needs
        # What `forward` found: the number of outputs and of what is returned behind them, whether
        # the outputs are a tuple, and the context without tensors, with the places of these among
        # the leaves of what went in and came out.
        self.count = 0
        self.kept_count = 0
        self.is_tuple = False
        self._context = Context()
        self._places: list[int | None] = []

    def as_class(self) -> type[Function]:
        methods = (self.forward, self.setup_context, self.backward, self.jvp)
        members = {method.__name__: staticmethod(method) for method in methods}
        return type(self.operation.name, (Function,), {**members, "generate_vmap_rule": True})

    def forward(self, *args: Any) -> tuple[Any, ...]:
        outputs, self.is_tuple, context = self.operation.forward(args, self.needs)
        assert context is not None
        kept = {id(leaf): leaf for leaf in context.leaves() if isinstance(leaf, Tensor)}
        for leaf in flatten((args, outputs))[0]:
            kept.pop(id(leaf), None)
        self.count, self.kept_count = len(outputs), len(kept)
        returned = (*outputs, *kept.values())
        places: dict[int, int] = {}
        for place, leaf in enumerate(flatten((args, returned))[0]):
            if isinstance(leaf, Tensor):
                places.setdefault(id(leaf), place)
        leaves = context.leaves()
        self._places = [places.get(id(leaf)) for leaf in leaves]
        self._context = context.with_leaves(
            [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        )
        return returned

    def context(self, args: tuple[Any, ...], returned: tuple[Any, ...]) -> Context:
        known = flatten((args, returned))[0]
        return self._with_tensors([known[place] for place in self._places if place is not None])

    def _with_tensors(self, tensors: Sequence[Any]) -> Context:
        remaining = iter(tensors)
        leaves = zip(self._context.leaves(), self._places, strict=True)
        return self._context.with_leaves(
            [leaf if place is None else next(remaining) for leaf, place in leaves]
        )

    def setup_context(self, ctx: Any, args: tuple[Any, ...], returned: tuple[Any, ...]) -> None:
        context = self.context(args, returned)
        pairs = zip(context.leaves(), self._places, strict=True)
        tensors = [leaf for leaf, place in pairs if place is not None]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(*context.marked("dirty_tensors"))
        ctx.mark_non_differentiable(*context.marked("non_differentiable"), *returned[self.count :])

    def backward(self, ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        context = self._with_tensors(ctx.saved_tensors)
        needs = tuple(ctx.needs_input_grad)
        return tuple(self.operation.backward(context, needs, gradients[: self.count]))

    def jvp(self, ctx: Any, *tangents: Tensor | None) -> tuple[Any, ...]:
        context = self._with_tensors(ctx.saved_tensors)
        return (*self.operation.jvp(context, tangents), *[None] * self.kept_count)


def take_part_in_torch_func(apply: Callable[..., Any]) -> None:
    """Has torch.func's operator for Functions ask us first where an argument is a wrapper."""
    # They have no names in Python.
    front_key, mode_key = map(torch._C.DispatchKey, _C.dispatch_keys())
    custom_function_call.non_fallthrough_keys = custom_function_call.non_fallthrough_keys.remove(
        mode_key
    )
    other_keys = custom_function_call.non_fallthrough_keys.remove(front_key)

    @custom_function_call.py_impl(front_key)
    def at_front_key(function: type[Function], *args: Any, **kwargs: Any) -> Any:
        leaves = (*args, *kwargs.values())
        if _C.transforms_of(leaves) and not _C.yields_to_torch_func(leaves):
            return apply(function, args, kwargs)
        keys = _compute_keyset((function, *args), kwargs, other_keys)
        return custom_function_call.dispatch(
            keys.highestPriorityTypeId(), function, *args, **kwargs
        )
