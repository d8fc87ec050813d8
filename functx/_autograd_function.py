"""`torch.autograd.Function` under our transforms, level by level, from the innermost outwards.

A Function is to be differentiated by its own `backward` and `jvp` and mapped by its own `vmap`, in
whatever order the transforms are nested; its `forward` is code that none of them looks into. So
`apply` on wrappers does to the Function what the innermost level does to an operator, which gives
the call of an operation (see `functx/_custom_function.py`) on the values at that level, where the
next level is the innermost. Where there is a tape, autograd records that call as one node.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import Function
from torch.nn.modules._functions import BackwardHookFunction

from . import _C
from ._custom_function import (
    BatchedOperation,
    Context,
    CustomOperation,
    Operation,
    Result,
    can_have_tangent,
)
from ._detached_backward import refuse_detached, watch
from ._function_beside_torch_func import call_in_torch_func, take_part_in_torch_func
from ._in_front import plain, put_before
from ._once_differentiable import collect_tracked, make_final
from .batching_rules import VmapInfo, check_out_dim, split_result
from .pytree import TreeSpec, broadcast_prefix, describe, flatten, unflatten

# Bits of `_C.transforms_of`.
_BATCHED = 2
_DIFFERENTIATED_BELOW = 4

_plain_apply = plain(Function.apply.__func__)  # type: ignore[attr-defined]


def _apply(
    function: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any], transforms: int
) -> Any:
    """`function.apply` where an argument is a wrapper."""
    if torch._C._are_functorch_transforms_active():
        if _C.yields_to_torch_func((*args, *kwargs.values())):
            return _plain_apply(function, *args, **kwargs)
        return _apply_before_torch_func(function, args, kwargs)
    has_rule = transforms & _BATCHED and function.vmap is not Function.vmap
    if (
        # As ordinary code, recorded by at most the innermost tape, it is what it should be.
        not (transforms & _DIFFERENTIATED_BELOW or has_rule)
        # Non-reentrant checkpointing calls it, in some versions of PyTorch, to get at its node.
        or function is getattr(torch.utils.checkpoint, "_NoopSaveInputs", None)
    ):
        return _plain_apply(function, *args, **kwargs)
    if function.__module__ == "torch._library.autograd":
        # The derivative of a custom operator: we are in the operator's kernel for autograd, which
        # calls the one below for `forward`.
        return _plain_apply(_recording_below(function), *args)
    if function is BackwardHookFunction:
        # Full backward hooks of a module look for its node, by the name.
        level = _C.innermost_level_of(args)
        assert level is not None
        return _plain_apply(_HOOKED, *_C.lift(level, args))
    if has_rule and function.generate_vmap_rule:
        raise RuntimeError(
            f"functx.vmap: {function.__name__} has both generate_vmap_rule=True and an overridden "
            f"vmap staticmethod, so it is not clear which rule is meant. Keep one of them."
        )
    operation = CustomOperation(function)
    args = _positional(operation, args, kwargs)
    needs = tuple(isinstance(arg, Tensor) and _is_differentiated(arg) for arg in args)
    return _outputs(_evaluate(operation, args, needs, wants_context=False))


def _apply_before_torch_func(
    function: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """`function.apply` inside torch.func's transforms, where those around the call are ours."""
    operation = CustomOperation(function)
    args = _positional(operation, args, kwargs)
    # What torch.func differentiates is not to be seen from here.
    needs = tuple(map(can_have_tangent, args))
    return _outputs(_evaluate(operation, args, needs, wants_context=False))


def _positional(
    operation: CustomOperation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    if operation.is_new_style:
        bound = inspect.signature(operation.function.forward).bind(*args, **kwargs)
        bound.apply_defaults()
        args, kwargs = bound.args, bound.kwargs
    if kwargs:
        raise TypeError(f"{operation.name}.apply() takes no keyword arguments: {list(kwargs)}")
    return args


def _outputs(result: Result) -> Any:
    return result.outputs if result.is_tuple else result.outputs[0]


@cache
def _recording_below(function: type[Function]) -> type[Function]:
    """The Function with a `forward` that is recorded in the strata below the node's own."""
    forward = staticmethod(torch.enable_grad()(function.forward))
    return types.new_class(
        function.__name__,
        (function,),
        exec_body=lambda namespace: namespace.update(forward=forward),
    )


def _is_differentiated(arg: Tensor) -> bool:
    return arg.requires_grad or bool(_C.transforms_of((arg,)) & _DIFFERENTIATED_BELOW)


def _evaluate(
    operation: Operation, args: tuple[Any, ...], needs: tuple[bool, ...], wants_context: bool
) -> Result:
    """Calls the operation; the context in the result may be None unless it is wanted."""
    leaves, spec = flatten(args)
    level = _C.innermost_level_of(tuple(leaves))
    if level is None:
        if torch._C._are_functorch_transforms_active():
            return call_in_torch_func(operation, args, needs, wants_context)
        if isinstance(operation, CustomOperation) and not wants_context:
            output = _plain_apply(operation.function, *args)
            is_tuple = isinstance(output, tuple)
            return Result(output if is_tuple else (output,), is_tuple, None)
        if _is_recorded(args):
            return _record(operation, None, args, needs)
        return operation.forward(args, needs)
    lifted = _C.lift(level, leaves)
    args = unflatten(lifted, spec)
    if _is_recorded(args):
        result = _record(operation, level, args, needs)
    else:
        result = _at_level(operation, level, args, needs, wants_context)
    return _replaced(result, lifted, leaves)


def _replaced(result: Result, old: Sequence[Any], new: Sequence[Any]) -> Result:
    """The result with one tensor for another wherever it is."""
    replacements = {id(a): b for a, b in zip(old, new, strict=True) if a is not b}
    if not replacements:
        return result
    outputs = tuple(replacements.get(id(output), output) for output in result.outputs)
    context = result.context
    if context is not None:
        leaves = [replacements.get(id(leaf), leaf) for leaf in context.leaves()]
        context = context.with_leaves(leaves)
    return result._replace(outputs=outputs, context=context)


class _Hooked(BackwardHookFunction):
    """The node to hook on in the graph of one stratum; those of the strata below see nothing."""

    @staticmethod
    def forward(ctx: Any, *args: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(_C.without_tape, BackwardHookFunction.forward(ctx, *args)))


_HOOKED = types.new_class(BackwardHookFunction.__name__, (_Hooked,))


# ---- tapes -----------------------------------------------------------------------------------


def _is_recorded(args: tuple[Any, ...]) -> bool:
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )


class _Call:
    """An operation on its way through `apply` of autograd, which returns nothing but outputs.

    The node keeps it, so the result, which holds on to the graph, is taken out afterwards.
    """

    def __init__(
        self, operation: Operation, level: _C.Level | None, needs: tuple[bool, ...]
    ) -> None:
        self.operation = operation
        self.level = level
        self.needs = needs
        self.result: Result | None = None

    def run(self, args: tuple[Any, ...]) -> Result:
        if self.level is None:
            self.result = self.operation.forward(args, self.needs)
        else:
            # Autograd has switched recording off, for all strata.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                self.result = _at_level(self.operation, self.level, args, self.needs, True)
        return self.result


class _Recorded(Function):
    """The node of an operation in the graph of one stratum."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *args: Any) -> tuple[Any, ...]:
        outputs, _, context = call.run(args)
        assert context is not None
        ctx.call = call
        ctx.context = context.for_backward()
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(*context.marked("dirty_tensors"))
        ctx.mark_non_differentiable(*context.marked("non_differentiable"))
        ctx.save_for_backward(*getattr(context, "to_save", ()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        pull = _pull_once if ctx.call.operation.is_once_differentiable else _pull
        return (None, *pull(ctx, *gradients))

    @staticmethod
    def jvp(ctx: Any, _call: None, *tangents: Tensor | None) -> tuple[Any, ...]:
        return tuple(ctx.call.operation.jvp(ctx.call.result.context, tangents))


def _pull(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    context: Context = ctx.context
    if hasattr(context, "to_save"):
        context = context.with_attributes(to_save=ctx.saved_tensors)
    needs = ctx.needs_input_grad[1:]
    results = tuple(ctx.call.operation.backward(context, needs, gradients))
    refuse_detached(ctx.call.operation.name, gradients, results)
    return results


def _pull_once(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    """For a `backward` that is once_differentiable: to differentiate the result is an error.

    PyTorch's decorator knows of the tape of this stratum only.
    """
    with torch.no_grad():
        results = _pull(ctx, *gradients)
    sources: dict[int | None, list[Tensor]] = {}
    if torch.is_grad_enabled():
        for tensor in (*gradients, *ctx.saved_tensors):
            if tensor is not None:
                collect_tracked(tensor, sources)
    return tuple(None if result is None else make_final(result, sources) for result in results)


def _record(
    operation: Operation, level: _C.Level | None, args: tuple[Any, ...], needs: tuple[bool, ...]
) -> Result:
    call = _Call(operation, level, needs)
    # Not the `apply` of Function, which is the one that led here. Inside torch.func's transforms
    # PyTorch wants to be told that we know.
    with enable_single_level_autograd_function():
        outputs = super(Function, _Recorded).apply(call, *args)  # type: ignore[no-untyped-call]
    result, call.result = call.result, None
    assert result is not None
    unchanged = {id(arg) for arg in args}
    pairs = zip(result.outputs, outputs, strict=True)
    changed = [pair for pair in pairs if id(pair[0]) not in unchanged]
    result = _replaced(result, [old for old, _ in changed], [new for _, new in changed])
    return result._replace(outputs=outputs)


# ---- levels ----------------------------------------------------------------------------------


def _at_level(
    operation: Operation,
    level: _C.Level,
    args: tuple[Any, ...],
    needs: tuple[bool, ...],
    wants_context: bool,
) -> Result:
    """What the level does to an operation. Its own tape, if any, is not its business."""
    rule = _batch if level.kind == "vmap" else _push_forward
    return rule(operation, level, args, needs, wants_context)


def _batch(
    operation: Operation,
    level: _C.Level,
    args: tuple[Any, ...],
    needs: tuple[bool, ...],
    wants_context: bool,
) -> Result:
    leaves, spec = flatten(args)
    values, batched = _C.split_batched(level, leaves)
    values = _apart(values, leaves)
    if any(batched) and isinstance(operation, CustomOperation) and operation.has_vmap:
        result = _use_vmap_rule(operation, level, args, values, batched)
        return operation.with_context(args, needs, result) if wants_context else result
    # If nothing is batched here, the operation may yet be one of an inner level's batch.
    in_batch = BatchedOperation(operation, level, batched) if any(batched) else None
    inner = in_batch or operation
    result = _C.call_outside(level, _evaluate, inner, unflatten(values, spec), needs, wants_context)
    known = dict(zip(map(id, values), leaves, strict=True))
    context = result.context
    outputs, output_spec = flatten(result.outputs)
    flags = in_batch.batched_outputs if in_batch is not None else [False] * len(outputs)
    wrapped = _wrap(level, outputs, flags, known)
    if context is not None and wants_context:
        known = {**dict(zip(map(id, outputs), wrapped, strict=True)), **known}
        tensors = context.leaves()
        flags = in_batch.batched_context if in_batch is not None else [False] * len(tensors)
        context = context.with_leaves(_wrap(level, tensors, flags, known))
    return Result(unflatten(wrapped, output_spec), result.is_tuple, context)


def _apart(values: list[Any], leaves: Sequence[Any]) -> list[Any]:
    """`values`, with an alias of one that is the value of two leaves: identity tells them apart."""
    owners: dict[int, Any] = {}
    return [
        torch.ops.aten.alias(value)
        if isinstance(value, Tensor) and owners.setdefault(id(value), leaf) is not leaf
        else value
        for value, leaf in zip(values, leaves, strict=True)
    ]


def _wrap(
    level: _C.Level, values: Sequence[Any], batched: Sequence[bool], known: dict[int, Any]
) -> list[Any]:
    """Tensors of `level`, those that are known already by the id of their value."""
    wrapped = _C.wrap_batched(level, values, batched)
    return [known.get(id(value), w) for value, w in zip(values, wrapped, strict=True)]


def _use_vmap_rule(
    operation: CustomOperation,
    level: _C.Level,
    args: tuple[Any, ...],
    values: list[Any],
    batched: list[bool],
) -> Result:
    """Calls the `vmap` staticmethod of the Function."""
    leaves, spec = flatten(args)
    in_dims = unflatten([0 if is_batched else None for is_batched in batched], spec)
    info = VmapInfo(level.batch_size, level.randomness)
    returned = _C.call_outside(
        level, operation.function.vmap, info, in_dims, *unflatten(values, spec)
    )
    output, out_dims = split_result(f"vmap staticmethod of {operation.name}", returned)
    outputs, output_spec = flatten(output)
    dims = broadcast_prefix(out_dims, output_spec)
    if dims is None:
        raise RuntimeError(
            f"functx.vmap: the vmap staticmethod of {operation.name} returned an incompatible "
            f"(output, out_dims) tuple: out_dims={out_dims!r} does not fit the structure of the "
            f"output, {describe(output_spec)}. Give an int or None for each tensor, or one for all."
        )
    known = {id(value): leaf for value, leaf in zip(values, leaves, strict=True)}
    wrapped = []
    for value, dim in zip(outputs, dims, strict=True):
        if isinstance(value, Tensor):
            check_out_dim(operation.name, level, value, dim)
            leaf = known.get(id(value))
            value = leaf if leaf is not None else _C.wrap_result(level, value, dim)
        wrapped.append(value)
    result = unflatten(wrapped, output_spec)
    is_tuple = isinstance(result, tuple)
    return Result(result if is_tuple else (result,), is_tuple, None)


def _push_forward(
    operation: Operation,
    level: _C.Level,
    args: tuple[Any, ...],
    needs: tuple[bool, ...],
    wants_context: bool,
) -> Result:
    leaves, spec = flatten(args)
    primals, tangents = _split_duals(level, leaves)
    primals = _apart(primals, leaves)
    by_leaf = {id(leaf): tangent for leaf, tangent in zip(leaves, tangents, strict=True)}
    # PyTorch does not look for tensors to differentiate inside of other arguments.
    of_args = [by_leaf[id(arg)] if isinstance(arg, Tensor) else None for arg in args]
    has_tangent = any(tangent is not None for tangent in of_args)

    def outside() -> tuple[Result, Sequence[Tensor | None], dict[int, Tensor | None]]:
        result = _evaluate(operation, unflatten(primals, spec), needs, wants_context or has_tangent)
        of_outputs: Sequence[Tensor | None] = [None] * len(result.outputs)
        if has_tangent:
            assert result.context is not None
            of_outputs = operation.jvp(result.context, of_args)
        of_context = (
            _tangents_of_context(operation, result, primals, tangents, needs, spec)
            if wants_context and has_tangent
            else {}
        )
        return result, of_outputs, of_context

    result, of_outputs, of_context = _C.call_outside(level, outside)
    known = dict(zip(map(id, primals), leaves, strict=True))
    dirty = {id(t) for t in result.context.marked("dirty_tensors")} if result.context else set()
    outputs: list[Any] = []
    for value, tangent in zip(result.outputs, of_outputs, strict=True):
        if id(value) in dirty:
            outputs.append(known[id(value)])
            _C.write_tangent(level, outputs[-1], tangent)
        else:
            outputs.append(_make_dual(level, value, tangent))
    context = result.context
    if context is not None and wants_context:
        known = {**dict(zip(map(id, result.outputs), outputs, strict=True)), **known}
        duals = [
            known[id(leaf)] if id(leaf) in known else _make_dual(level, leaf, of_context.get(index))
            for index, leaf in enumerate(context.leaves())
        ]
        context = context.with_leaves(duals)
    return Result(tuple(outputs), result.is_tuple, context)


def _tangents_of_context(
    operation: Operation,
    result: Result,
    primals: list[Any],
    tangents: list[Tensor | None],
    needs: tuple[bool, ...],
    spec: TreeSpec,
) -> dict[int, Tensor | None]:
    """The tangents of what `forward` keeps and is neither input nor output, by place among leaves.

    No rule of the Function gives these. What it keeps is used where its backward is differentiated
    in turn, so `forward` is run once more, on duals.
    """
    context = result.context
    assert context is not None
    known = {id(tensor) for tensor in (*primals, *result.outputs)}
    others = [
        index
        for index, leaf in enumerate(context.leaves())
        if can_have_tangent(leaf) and id(leaf) not in known
    ]
    if not others:
        return {}
    if context.marked("dirty_tensors"):
        raise RuntimeError(
            f"functx.jvp: {operation.name} changes an input in place and keeps a tensor that is "
            f"neither an input nor an output, of which the derivative is not known. Return it as "
            f"an output as well."
        )

    def body(level: _C.Level) -> dict[int, Tensor | None]:
        with torch.random.fork_rng(devices=_devices(primals)):
            duals = [
                p if t is None else _C.make_duals(level, (p,), (t,))[0]
                for p, t in zip(primals, tangents, strict=True)
            ]
            again = operation.forward(unflatten(duals, spec), needs)
        assert again.context is not None
        _, found = _C.unpack_duals(level, [again.context.leaves()[index] for index in others])
        return dict(zip(others, found, strict=True))

    return _C.in_jvp(body)


def _devices(leaves: Sequence[Any]) -> list[torch.device]:
    tensors = (leaf for leaf in leaves if isinstance(leaf, Tensor))
    return list({tensor.device for tensor in tensors if tensor.device.type == "cuda"})


def _split_duals(level: _C.Level, leaves: Sequence[Any]) -> tuple[list[Any], list[Tensor | None]]:
    primals: list[Any] = list(leaves)
    tangents: list[Tensor | None] = [None] * len(leaves)
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            (primals[index],), (tangents[index],) = _C.unpack_duals(level, (leaf,))
    return primals, tangents


def _make_dual(level: _C.Level, value: Any, tangent: Tensor | None) -> Any:
    """A tensor, or a tree with tensors in it, at a forward-mode level."""
    if isinstance(value, Tensor):
        return _C.make_duals(level, (value,), (tangent,))[0]
    leaves, spec = flatten(value)
    return unflatten(_C.lift(level, leaves), spec)


def _asking(plain_apply: Callable[..., Any]) -> Callable[..., Any]:
    transforms_of, level_depth = _C.transforms_of, _C.level_depth

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        transforms = transforms_of(args)
        if kwargs:
            transforms |= transforms_of(tuple(kwargs.values()))
        if transforms == 0:
            outputs = plain_apply(cls, *args, **kwargs)
        else:
            outputs = _apply(cls, args, kwargs, transforms)
        if level_depth() > 0:
            watch(cls, outputs)
        return outputs

    return apply


def install() -> None:
    """Makes `Function.apply` ask us about wrappers; called at first use."""
    take_part_in_torch_func(_apply_before_torch_func)
    put_before(Function.apply.__func__, _asking)  # type: ignore[attr-defined]
