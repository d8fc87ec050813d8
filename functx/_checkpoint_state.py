"""Checkpoints inside a transform: none is reentrant, all are recomputed as they were made.

A checkpoint that is not reentrant runs its function again in the backward pass. By then a module
that was called with other parameters has its own back: the gradients would be those of a mixture,
without a word. And some of the transforms have returned: operators whose second derivative takes
more than PyTorch's formula would be recorded in another way than the first time, and tensors taken
for others.

A reentrant one calls `Tensor.backward` when its gradient is asked for. That adds to the `.grad` of
all leaves that its function reads, where a transform returns the gradients of its inputs and no
others. So inside of a transform it is one that is not reentrant, whose derivatives are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from . import _C


class _Replaced(threading.local):
    """The modules whose state is replaced in this thread and what replaces it, the outer first."""

    def __init__(self) -> None:
        self.states: list[tuple[nn.Module, dict[str, Tensor]]] = []


_replaced = _Replaced()


class _Recomputing(threading.local):
    """Whether a checkpoint that was made inside a transform is being recomputed in this thread."""

    active = False


_recomputing = _Recomputing()


@contextmanager
def checkpoints_within(module: nn.Module, values: dict[str, Tensor]) -> Iterator[None]:
    """While `module` has `values`: checkpoints that are made now are recomputed with them."""
    if torch.compiler.is_compiling():  # which recomputes by other means
        yield
        return
    _C.prepare_thread()
    _replaced.states.append((module, dict(values)))
    try:
        yield
    finally:
        _replaced.states.pop()


def install() -> None:
    """Puts ours in the place of what a checkpoint keeps, and of reentrant ones; at first use."""
    plain = checkpoint._CheckpointFrame

    class Frame(plain):  # type: ignore[misc, valid-type]
        def __init__(self, recompute_fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
            super().__init__(_with_state(recompute_fn), *args, **kwargs)

    Frame.__name__ = Frame.__qualname__ = plain.__name__
    setattr(checkpoint, "_CheckpointFrame", Frame)  # noqa: B010 - for mypy
    checkpoint.CheckpointFunction.apply = classmethod(_apply)  # type: ignore[assignment, method-assign]


def _apply(cls: type[checkpoint.CheckpointFunction], *args: Any) -> Any:
    if not _C.level_depth() and not _recomputing.active:
        return super(checkpoint.CheckpointFunction, cls).apply(*args)  # type: ignore[no-untyped-call]
    run, preserve_rng_state, *inputs = args
    return checkpoint.checkpoint(
        run,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=preserve_rng_state,
        determinism_check="none",
    )


def _with_state(recompute: Callable[..., Any]) -> Callable[..., Any]:
    states = tuple(_replaced.states)
    derivatives = _C.current_derivatives()
    if not states and not _C.level_depth() and not _recomputing.active:
        return recompute

    @wraps(recompute)
    def recompute_with_state(*args: Any, **kwargs: Any) -> Any:
        from .functional_call import replaced_state

        with ExitStack() as stack:
            stack.enter_context(_recomputation())
            for module, values in states:
                stack.enter_context(replaced_state(module, dict(values)))
            return _C.call_assuming_derivatives(derivatives, recompute, *args, **kwargs)

    return recompute_with_state


@contextmanager
def _recomputation() -> Iterator[None]:
    before, _recomputing.active = _recomputing.active, True
    try:
        yield
    finally:
        _recomputing.active = before
