"""What an `autograd.Function` does, as functions of tensors and a context.

`CustomOperation` is the class as the user wrote it; `BatchedOperation` is another operation for all
examples of a batch. `functx/_autograd_function.py` decides which of their methods runs on what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx, _SingleLevelFunction

from . import _C
from ._once_differentiable import is_once_differentiable
from ._transposition import check_on_tape, transpose
from .pytree import flatten, unflatten

T = TypeVar("T")


class Context(FunctionCtx):
    """What the user's methods get as `ctx`.

    All that they leave here is in `__dict__`, in attributes as PyTorch names them. Tensors there
    are found again by their place among the leaves of `__dict__`, which no change of level moves.
    """

    needs_input_grad: tuple[bool, ...]

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors of `save_for_backward`, or inside `jvp` those of `save_for_forward`."""
        saved: tuple[Tensor | None, ...] = getattr(self, "to_save", ())
        return saved

    def leaves(self) -> list[Any]:
        return flatten(self.__dict__)[0]

    def with_leaves(self, leaves: Sequence[Any]) -> Context:
        """A context like this one, with other tensors."""
        return self.with_attributes(**unflatten(leaves, flatten(self.__dict__)[1]))

    def with_attributes(self, **attributes: Any) -> Context:
        context = Context()
        context.__dict__.update(self.__dict__)
        context.__dict__.update(attributes)
        return context

    def marked(self, name: str) -> tuple[Tensor, ...]:
        """The tensors marked as "dirty_tensors" or "non_differentiable"."""
        tensors: tuple[Tensor, ...] = getattr(self, name, None) or ()
        return tensors

    def for_backward(self) -> Context:
        """Without what is saved by autograd, or not needed any more, and would keep a graph alive.

        The places of leaves stay the same.
        """
        names = ("to_save", "saved_for_forward", "dirty_tensors", "non_differentiable")
        blank = {
            name: (None,) * len(self.__dict__[name]) for name in names if name in self.__dict__
        }
        return self.with_attributes(**blank)


class Result(NamedTuple):
    """What `forward` returned."""

    outputs: tuple[Any, ...]
    is_tuple: bool  # or `outputs` is the only one, packed
    context: Context | None


class Operation(Protocol):
    """What can be done with an `autograd.Function`. One instance is made for each call of it."""

    name: str
    is_once_differentiable: bool

    def forward(self, args: tuple[Any, ...], needs: tuple[bool, ...]) -> Result:
        """Computes the outputs. Autograd doesn't record; `needs` says what is differentiated."""

    def backward(
        self, context: Context, needs: tuple[bool, ...], gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Gradients of the arguments, from those of the outputs; None is zero."""

    def jvp(self, context: Context, tangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Tangents of the outputs, from those of the arguments; None is zero."""


class _Like(NamedTuple):
    """What zeros for a tensor have to be like."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def zeros(self) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)

    def probe(self, compares: bool) -> Tensor:
        return _C.probe(self.shape, self.dtype, self.device, compares)


def _descriptions(values: Sequence[Any]) -> list[_Like | None]:
    return [_Like(v.shape, v.dtype, v.device) if isinstance(v, Tensor) else None for v in values]


def can_have_tangent(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


class CustomOperation:
    """A Function, on the tensors that its author thought of."""

    def __init__(self, function: type[Function]) -> None:
        self.function = function
        self.name = function.__name__
        self.is_new_style = function.setup_context != _SingleLevelFunction.setup_context
        self.has_vmap = function.vmap is not Function.vmap
        backwards = [f for f in (function.backward, function.vjp) if f is not Function.backward]
        if len(backwards) == 2:
            raise RuntimeError(
                f"functx: {self.name} has both backward and vjp, which mean the same. Keep one."
            )
        self.has_backward = bool(backwards)
        self._backward: Callable[..., Any] = (backwards or [Function.backward])[0]
        self.is_once_differentiable = is_once_differentiable(self._backward)
        self._inputs: list[_Like | None] = []
        self._outputs: list[_Like | None] = []
        self._differentiable: list[bool] = []

    def forward(self, args: tuple[Any, ...], needs: tuple[bool, ...]) -> Result:
        context = Context()
        context.needs_input_grad = needs
        with torch.no_grad():
            if self.is_new_style:
                output = self.function.forward(*args)
                self.function.setup_context(context, args, output)
            else:
                output = self.function.forward(context, *args)
        is_tuple = isinstance(output, tuple)
        return self._describe(args, Result(output if is_tuple else (output,), is_tuple, context))

    def with_context(
        self, args: tuple[Any, ...], needs: tuple[bool, ...], result: Result
    ) -> Result:
        """The result with a context for it; `forward` was not used to compute the outputs."""
        if not self.is_new_style:
            again = self.forward(args, needs)
            known = {id(a): b for a, b in zip(again.outputs, result.outputs, strict=True)}
            context = again.context or Context()
            context = context.with_leaves([known.get(id(leaf), leaf) for leaf in context.leaves()])
            return result._replace(context=context)
        context = Context()
        context.needs_input_grad = needs
        with torch.no_grad():
            output = result.outputs if result.is_tuple else result.outputs[0]
            self.function.setup_context(context, args, output)
        return self._describe(args, result._replace(context=context))

    def _describe(self, args: tuple[Any, ...], result: Result) -> Result:
        assert result.context is not None
        excluded = {id(tensor) for tensor in result.context.marked("non_differentiable")}
        self._inputs = _descriptions(args)
        self._outputs = _descriptions(result.outputs)
        self._differentiable = [
            can_have_tangent(o) and id(o) not in excluded for o in result.outputs
        ]
        return result

    def backward(
        self, context: Context, needs: tuple[bool, ...], gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        context = context.with_attributes(needs_input_grad=needs)
        if getattr(context, "materialize_grads", True):
            gradients = _materialized(gradients, self._outputs)
        boxed = getattr(self.function, "boxed_grads_call", False)
        returned = self._backward(context, *([list(gradients)] if boxed else gradients))
        results = list(returned) if isinstance(returned, tuple) else [returned]
        count = len(self._inputs)
        if len(results) < count or any(result is not None for result in results[count:]):
            raise RuntimeError(
                f"{self.name}.backward has to return one gradient for each input of forward, "
                f"{count}, and returned {len(results)}. Return None for an input without one."
            )
        return results[:count]

    def jvp(self, context: Context, tangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        if self.function.jvp is Function.jvp:
            return self._jvp_by_backward(context, tangents)
        if getattr(context, "saved_for_forward", None) is not None:
            context = context.with_attributes(to_save=context.saved_for_forward)
        if getattr(context, "materialize_grads", True):
            tangents = _materialized(tangents, self._inputs, integers=False)
        returned = self.function.jvp(context, *tangents)
        results = list(returned) if isinstance(returned, tuple) else [returned]
        if len(results) != len(self._outputs):
            raise RuntimeError(
                f"functx.jvp: {self.name}.jvp has to return one tangent for each output of forward "
                f"(expected {len(self._outputs)} but got {len(results)}). Return None for an "
                f"output without one."
            )
        for result, output in zip(results, self._outputs, strict=True):
            if result is not None and not isinstance(result, Tensor):
                raise RuntimeError(
                    f"functx.jvp: {self.name}.jvp has to return a Tensor or None for each output "
                    f"of forward, and returned {type(result)}."
                )
            if result is not None and output is not None and result.shape != output.shape:
                raise RuntimeError(
                    f"functx.jvp: {self.name}.jvp returned a tangent of shape "
                    f"{tuple(result.shape)} for an output of shape {tuple(output.shape)}. They "
                    f"have to be equal."
                )
        check_on_tape(f"{self.name}.jvp", tangents, results)
        return [t if d else None for t, d in zip(results, self._differentiable, strict=True)]

    def _jvp_by_backward(
        self, context: Context, tangents: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Jacobian times tangents by transposing `backward`, which is linear in its gradients."""
        if not self.has_backward or self.is_once_differentiable:
            reason = (
                "backward is once_differentiable" if self.has_backward else "there is no backward"
            )
            raise NotImplementedError(
                f"functx.jvp: {self.name} has no jvp staticmethod, and none can be derived, since "
                f"{reason}. Define jvp(ctx, *tangents) to use it with forward mode AD."
            )
        needs = tuple(tangent is not None for tangent in tangents)
        probes = [
            like.probe if like is not None and is_differentiable else None
            for like, is_differentiable in zip(self._outputs, self._differentiable, strict=True)
        ]
        return transpose(
            self.name,
            lambda gradients: self.backward(context, needs, gradients),
            probes,
            tangents,
        )


def _materialized(
    values: Sequence[Tensor | None], likes: list[_Like | None], integers: bool = True
) -> list[Tensor | None]:
    return [
        like.zeros()
        if value is None
        and like is not None
        and (integers or like.dtype.is_floating_point or like.dtype.is_complex)
        else value
        for value, like in zip(values, likes, strict=True)
    ]


class BatchedOperation:
    """An operation for all examples at once: it runs under a vmap level of its own.

    Batch dimensions are in front. The tensors that the operation leaves in its context become
    values here, and are batched again for `backward` and `jvp`.
    """

    def __init__(self, operation: Operation, level: _C.Level, batched: list[bool]) -> None:
        self.operation = operation
        self.name = operation.name
        self.is_once_differentiable = operation.is_once_differentiable
        self._batch_size = level.batch_size
        self._randomness = level.randomness
        self._batched = batched  # of the leaves of the arguments
        self._inputs: list[tuple[torch.Size, bool] | None] = []
        self._outputs: list[bool] = []
        # Of the leaves of outputs and context, when `forward` is done.
        self.batched_outputs: list[bool] = []
        self.batched_context: list[bool] = []

    def _in_level(self, body: Callable[[_C.Level], T]) -> T:
        return _C.in_vmap(self._batch_size, self._randomness, body)

    def forward(self, args: tuple[Any, ...], needs: tuple[bool, ...]) -> Result:
        values, spec = flatten(args)

        def body(level: _C.Level) -> Result:
            wrapped = _C.wrap_batched(level, values, self._batched)
            pairs = zip(values, wrapped, self._batched, strict=True)
            examples = unflatten([w if is_batched else v for v, w, is_batched in pairs], spec)
            result = self.operation.forward(examples, needs)
            self._note_inputs(level, examples, result)
            outputs = self._unbatch_outputs(level, result)
            context = self._unbatch_context(level, examples, result, outputs)
            _, output_spec = flatten(result.outputs)
            return Result(unflatten(outputs, output_spec), result.is_tuple, context)

        return self._in_level(body)

    def _note_inputs(self, level: _C.Level, examples: tuple[Any, ...], result: Result) -> None:
        self._inputs = [
            (arg.shape, _C.is_batched_at(level, arg)) if isinstance(arg, Tensor) else None
            for arg in examples
        ]
        assert result.context is not None
        for tensor in result.context.marked("dirty_tensors"):
            if not _C.is_batched_at(level, tensor):
                raise RuntimeError(
                    f"functx.vmap: {self.name} writes in place to an input that all examples share "
                    f"(mark_dirty), while other inputs differ between them. Expand and clone it, "
                    f"or map over it as well."
                )

    def _unbatch_outputs(self, level: _C.Level, result: Result) -> list[Any]:
        """The values of the leaves of the outputs; notes which are batched.

        An output with a gradient is, whether it depends on an input or not, because there is a
        gradient for each example.
        """
        assert result.context is not None
        excluded = {id(tensor) for tensor in result.context.marked("non_differentiable")}
        values: list[Any] = []
        self._outputs, self.batched_outputs = [], []
        for output in result.outputs:
            leaves, _ = flatten(output)
            of_leaves, batched = _C.split_batched(level, leaves)
            if can_have_tangent(output) and not batched[0] and id(output) not in excluded:
                of_leaves, batched = list(_C.unbatch(level, leaves, (0,))), [True]
            values += of_leaves
            self.batched_outputs += batched
            self._outputs.append(isinstance(output, Tensor) and batched[0])
        return values

    def _unbatch_context(
        self, level: _C.Level, examples: tuple[Any, ...], result: Result, outputs: list[Any]
    ) -> Context:
        assert result.context is not None
        leaves = result.context.leaves()
        values, self.batched_context = _C.split_batched(level, leaves)
        places = {id(output): i for i, output in enumerate(flatten(result.outputs)[0])}
        for arg in flatten(examples)[0]:
            places.pop(id(arg), None)
        for index, leaf in enumerate(leaves):
            place = places.get(id(leaf))
            if place is not None:
                values[index] = outputs[place]
                self.batched_context[index] = self.batched_outputs[place]
        return result.context.with_leaves(values)

    def _examples_of(self, level: _C.Level, context: Context) -> Context:
        leaves = context.leaves()
        return context.with_leaves(_C.wrap_batched(level, leaves, self.batched_context))

    def backward(
        self, context: Context, needs: tuple[bool, ...], gradients: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        def body(level: _C.Level) -> list[Tensor | None]:
            results = self.operation.backward(
                self._examples_of(level, context),
                needs,
                _C.wrap_batched(level, gradients, self._outputs),
            )
            return [
                None if result is None or of is None else _gradient(level, result, *of)
                for result, of in zip(results, self._inputs, strict=True)
            ]

        return self._in_level(body)

    def jvp(self, context: Context, tangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        def body(level: _C.Level) -> list[Tensor | None]:
            flags = [of is not None and of[1] for of in self._inputs]
            results = self.operation.jvp(
                self._examples_of(level, context), _C.wrap_batched(level, tangents, flags)
            )
            dims = [0 if is_batched else None for is_batched in self._outputs]
            return list(_C.unbatch(level, results, dims))

        return self._in_level(body)


def _gradient(level: _C.Level, result: Tensor, shape: torch.Size, is_batched: bool) -> Tensor:
    """The gradient of an input of which an example has this shape."""
    if result.shape != shape:
        result = result.sum_to_size(shape)
    # One for each example, even if they are equal: those of a shared input add up.
    (batch,) = _C.unbatch(level, (result,), (0,))
    return batch if is_batched else batch.sum(0)
