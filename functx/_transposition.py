"""Derivatives by transposition: a backward turned into a jvp, and a jvp that can be turned around.

A backward u -> J^T u is linear, so that its own pullback is v -> J v: that is how a Function
without a `jvp` is differentiated forwards. `linearize` does the same with a whole function. Both
need everything that is linear to be recorded by autograd, and to be linear. Code of the user's
need not be: what can be seen of that is checked here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from . import _C
from ._basis import innermost_value
from .pytree import flatten

MaybeTensors = Sequence[Tensor | None]


def transpose(
    name: str,
    backward: Callable[[MaybeTensors], MaybeTensors],
    probes: Sequence[Callable[[bool], Tensor] | None],
    tangents: MaybeTensors,
) -> list[Tensor | None]:
    """Tangents of the outputs of a Function, from its backward and the tangents of its inputs.

    `backward` runs twice: the second time with other gradients, to see whether it is linear. Where
    numbers can't be compared, since a program is traced, once.

    Args:
        name: That of the Function, for messages.
        backward: From gradients of the outputs to those of the inputs.
        probes: What makes a gradient to run it with, for each output that has one.
        tangents: Those of the inputs, None for zero.

    Raises:
        RuntimeError: the backward can't be differentiated, or is not linear.
    """
    random = _C.RandomState(tangents) if _C.has_numbers(tangents) else None

    def body(level: _C.Level) -> tuple[_C.Level, list[Tensor], MaybeTensors, MaybeTensors]:
        seeds = _C.track(_cotangents(probes, compares=False))
        # The tape is gone in a moment: hooks of a checkpoint around us are not for it.
        results = _C.without_saved_tensor_hooks(
            lambda: _conform(backward(_in_places(probes, seeds)), tangents)
        )
        _check_recorded(name, results)
        again: MaybeTensors = ()
        if random is not None and any(result is not None for result in results):
            others = [each.detach() for each in _C.track(_cotangents(probes, compares=True))]
            with _second_run(name, random):
                again = _conform(backward(_in_places(probes, others)), tangents)
        return level, seeds, results, again

    level, seeds, results, again = _C.in_grad(None, body)
    roots = [
        (result, tangent)
        for result, tangent in zip(results, tangents, strict=True)
        if result is not None and tangent is not None and result.requires_grad
    ]
    pulled: MaybeTensors = [None] * len(seeds)
    if roots:
        try:
            pulled = _C.pullback(level, [r for r, _ in roots], seeds, [t for _, t in roots], False)
        except RuntimeError as error:
            raise RuntimeError(
                f"functx.jvp: {name} has no jvp staticmethod, and its backward could not be "
                f"differentiated to get one: {error} Define jvp(ctx, *tangents)."
            ) from error
    if again:
        for compares, gradients in ((False, results), (True, again)):
            if not _C.is_transpose(gradients, tangents, _cotangents(probes, compares), pulled):
                raise RuntimeError(
                    f"functx.jvp: {name} has no jvp staticmethod, and its backward is not linear "
                    f"in the gradients (it clips, rounds or normalises them, say), detaches some "
                    f"of what it does with them, or is not the same twice, so that one can't be "
                    f"derived. Define jvp(ctx, *tangents)."
                )
    return _in_places(probes, pulled)


def _cotangents(probes: Sequence[Callable[[bool], Tensor] | None], compares: bool) -> list[Tensor]:
    return [probe(compares) for probe in probes if probe is not None]


def _in_places(
    probes: Sequence[Callable[[bool], Tensor] | None], values: MaybeTensors
) -> list[Tensor | None]:
    remaining = iter(values)
    return [None if probe is None else next(remaining) for probe in probes]


def _conform(results: MaybeTensors, tangents: MaybeTensors) -> list[Tensor | None]:
    """Gradients of the inputs that have tangents, in their shapes."""
    return [
        None if result is None or tangent is None else result.sum_to_size(tangent.shape)
        for result, tangent in zip(results, tangents, strict=True)
    ]


def _check_recorded(name: str, results: MaybeTensors) -> None:
    """Zeros need not depend on the gradients; all else does, though autograd may not see it."""
    for result in results:
        if result is None or result.requires_grad:
            continue
        if innermost_value(result).count_nonzero():
            raise RuntimeError(
                f"functx.jvp: {name} has no jvp staticmethod, and its backward detaches the "
                f"gradients, so that one can't be derived. Define jvp(ctx, *tangents)."
            )


@contextmanager
def _second_run(name: str, random: _C.RandomState) -> Iterator[None]:
    """Nothing is recorded, and the same random numbers are drawn."""
    random.swap()
    try:
        with torch.no_grad():
            yield
    except Exception as error:
        raise RuntimeError(
            f"functx.jvp: {name} has no jvp staticmethod, and its backward, which ran a second "
            f"time to see whether it is linear in the gradients, failed then: {error} Define "
            f"jvp(ctx, *tangents), or keep what it uses."
        ) from error
    finally:
        random.swap()


# ---- jvps under linearize ------------------------------------------------------------------


class _Linearizing(threading.local):
    depth = 0


_linearizing = _Linearizing()


@contextmanager
def linearizing() -> Iterator[None]:
    """While a tape records what is done to tangents, for their way to be turned around."""
    _linearizing.depth += 1
    try:
        yield
    finally:
        _linearizing.depth -= 1


def check_on_tape(name: str, tangents: Any, results: Any) -> None:
    """Raises if a jvp of the user's takes tangents off the tape of a `linearize` around it.

    Zeros need not be there; the tangents that `linearize` starts from are such that hardly anything
    else is zero. Nor what is computed under `no_grad`, which is a constant.

    Args:
        name: Whose jvp, for the message.
        tangents: Those of the inputs, a tree.
        results: Those of the outputs, a tree.
    """
    if _linearizing.depth == 0 or not torch.is_grad_enabled():
        return
    if not any(map(_is_tracked, _tensors(tangents))):
        return
    for result in _tensors(results):
        if _is_tracked(result) or not _C.has_numbers([result]):
            continue
        if innermost_value(result).count_nonzero():
            raise RuntimeError(
                f"functx.linearize: {name} computes with the tangents what autograd does not see "
                f"(in numpy, or detached), so that it can't be applied to others later. Write it "
                f"in operators of torch, or use functx.jvp."
            )


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in flatten(tree)[0] if isinstance(leaf, Tensor)]


def _is_tracked(tensor: Tensor) -> bool:
    if tensor.requires_grad:
        return True
    if not _C.is_wrapper(tensor):
        return False
    value, tangent, _ = _C.unwrap(tensor)
    return _is_tracked(value) or (tangent is not None and _is_tracked(tangent))
