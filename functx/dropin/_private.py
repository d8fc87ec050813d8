"""What PyTorch's private helpers for transforms do, done with functx's levels and wrappers.

Levels are numbers to these helpers: 1 is the outermost active one. A tensor is seen as torch.func
would wrap it: though functx has no wrapper for reverse mode, one that is tracked by an active
`grad` counts as wrapped by that. Where no transform of functx is involved, PyTorch's own helper
answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only, tree_unflatten

from .. import _C
from .._arguments import ArgNums, resolve_argnums, select, substitute
from .._dims import InDims, OutDims, unbatch_outputs
from .._inspection import debug_unwrap, outermost_level
from ..functional_call import functional_call, replaced_state
from ..grad import grad, grad_and_value
from ..jvp import jvp
from ..pytree import broadcast_prefix, flatten, unflatten
from ..vjp import vjp
from ..vmap import vmap

Function = Callable[..., Any]

# Seen from this module, the helpers in it are PyTorch's own.
_theirs: Any = torch._C._functorch

# ---- Tensors ------------------------------------------------------------------------------------


def _is_batched(tensor: Tensor, level: _C.Level | None) -> bool:
    return level is not None and level.kind == "vmap" and _C.unwrap(tensor)[2]


def is_batchedtensor(tensor: Tensor) -> bool:
    return _is_batched(tensor, outermost_level(tensor)) or _theirs.is_batchedtensor(tensor)


def is_gradtrackingtensor(tensor: Tensor) -> bool:
    level = outermost_level(tensor)
    if level is None:
        return _theirs.is_gradtrackingtensor(tensor)
    return level.kind != "vmap"


def is_functorch_wrapped_tensor(tensor: Tensor) -> bool:
    return outermost_level(tensor) is not None or _theirs.is_functorch_wrapped_tensor(tensor)


def is_dead_tensor_wrapper(tensor: Tensor) -> bool:
    if not _C.is_wrapper(tensor):
        return _theirs.is_dead_tensor_wrapper(tensor)
    return not cast("_C.Level", _C.level_of(tensor)).alive


def get_unwrapped(tensor: Tensor) -> Tensor:
    if outermost_level(tensor) is None:
        return _theirs.get_unwrapped(tensor)
    return debug_unwrap(tensor, recurse=False)


def unwrap_if_dead(tensor: Tensor) -> Tensor:
    if not _C.is_wrapper(tensor):
        return _theirs.unwrap_if_dead(tensor)
    return _C.unwrap(tensor)[0] if is_dead_tensor_wrapper(tensor) else tensor


def maybe_get_bdim(tensor: Tensor) -> int:
    level = outermost_level(tensor)
    if level is None:
        return _theirs.maybe_get_bdim(tensor)
    return 0 if _is_batched(tensor, level) else -1


def maybe_get_level(tensor: Tensor) -> int:
    level = outermost_level(tensor)
    if level is None:
        return _theirs.maybe_get_level(tensor)
    return _number(level) if level.alive else -2


def dlevel(tensor: Tensor) -> int:
    level = outermost_level(tensor)
    if level is None or level.kind == "vmap":
        return _theirs.dlevel(tensor)
    return _number(level) if level.alive else -1


# ---- Levels -------------------------------------------------------------------------------------


def _number(level: _C.Level) -> int:
    return [each.id for each in _C.active_levels()].index(level.id) + 1


def _level(number: int, *kinds: str) -> _C.Level:
    levels = _C.active_levels()
    if not 0 < number <= len(levels) or levels[number - 1].kind not in kinds:
        active = ", ".join(level.kind for level in levels) or "none"
        raise RuntimeError(
            f"functx.dropin: there is no active level {number} of {' or '.join(kinds)}; the "
            f"active ones are, from 1: {active}. Use a helper only inside of its level."
        )
    return levels[number - 1]


def _pop(kind: str) -> int:
    number = len(_C.active_levels())
    _C.pop(_level(number, kind))
    return number


def current_level() -> int:
    return maybe_current_level() or _theirs.current_level()


def maybe_current_level() -> int | None:
    return len(_C.active_levels()) or _theirs.maybe_current_level()


def _are_functorch_transforms_active() -> bool:
    return bool(_C.active_levels()) or torch._C._are_functorch_transforms_active()


def get_dynamic_layer_stack_depth() -> int:
    return len(_C.active_levels()) or _theirs.get_dynamic_layer_stack_depth()


class Interpreter:
    """One active level, as PyTorch describes it to libraries."""

    def __init__(self, level: _C.Level) -> None:
        self._level = level

    def level(self) -> int:
        """Its number: 1 for the outermost."""
        return _number(self._level)

    def key(self) -> Any:
        """Its kind, as PyTorch's enumeration has it."""
        return getattr(_theirs.TransformType, self._level.kind.capitalize())

    def batch_size(self) -> int:
        """The number of examples of a vmap; 0 for the others."""
        return self._level.batch_size

    def randomness(self) -> str:
        """What a vmap was told that random operators do."""
        return self._level.randomness

    def lower(self) -> NoReturn:
        """Refused: functx calls the rules for an operator itself."""
        raise RuntimeError(
            "functx.dropin: an interpreter can't be lowered, since functx doesn't dispatch "
            "operators by interpreters. Register the rule of the operator by "
            "torch.library.register_vmap or functx.register_batching_rule."
        )


def get_interpreter_stack() -> list[Any] | None:
    levels = _C.active_levels()
    return [Interpreter(level) for level in levels] or _theirs.get_interpreter_stack()


def peek_interpreter_stack() -> Any:
    level = _C.innermost_level()
    return _theirs.peek_interpreter_stack() if level is None else Interpreter(level)


def retrieve_all_functorch_interpreters() -> list[Any]:
    levels = _C.active_levels()
    if levels:
        return [Interpreter(level) for level in levels]
    return torch._functorch.pyfunctorch.retrieve_all_functorch_interpreters()


def retrieve_current_functorch_interpreter() -> Any:
    level = _C.innermost_level()
    if level is not None:
        return Interpreter(level)
    return torch._functorch.pyfunctorch.retrieve_current_functorch_interpreter()


# ---- vmap ---------------------------------------------------------------------------------------


def _vmap_increment_nesting(batch_size: int, randomness: str) -> int:
    return _number(_C.push_vmap(batch_size, randomness))


def _vmap_decrement_nesting() -> int:
    return _pop("vmap")


@contextlib.contextmanager
def vmap_increment_nesting(batch_size: int, randomness: str) -> Iterator[int]:
    level = _C.push_vmap(batch_size, randomness)
    try:
        yield _number(level)
    finally:
        _C.pop(level)


def _add_batch_dim(tensor: Tensor, batch_dim: int, level: int) -> Tensor:
    dim = batch_dim % max(tensor.dim(), 1)
    return cast("Tensor", _C.batch(_level(level, "vmap"), [tensor], [dim])[0])


def _remove_batch_dim(tensor: Tensor, level: int, batch_size: int, out_dim: int) -> Tensor:
    return _C.unbatch(_level(level, "vmap"), [tensor], [out_dim])[0]


def _create_batched_inputs(
    flat_in_dims: list[Any], flat_args: list[Any], vmap_level: int, args_spec: Any
) -> Any:
    return tree_unflatten(_batch(vmap_level, flat_args, flat_in_dims), args_spec)


def _batch(level: int, leaves: Sequence[Any], dims: Sequence[int | None]) -> list[Any]:
    pairs = zip(leaves, dims, strict=True)
    positive = [None if dim is None else dim % max(leaf.dim(), 1) for leaf, dim in pairs]
    return _C.batch(_level(level, "vmap"), leaves, positive)


def _unwrap_batched(
    batched_outputs: Any, out_dims: OutDims, vmap_level: int, batch_size: int, func: Function
) -> Any:
    level = _level(vmap_level, "vmap")
    leaves, _, spec = unbatch_outputs(func, level, batched_outputs, out_dims)
    return unflatten(leaves, spec)


def _maybe_remove_batch_dim(
    name: str, batched_output: Any, vmap_level: int, batch_size: int, out_dim: int | None
) -> Any:
    def func() -> None: ...

    func.__name__ = name
    return _unwrap_batched(batched_output, out_dim, vmap_level, batch_size, func)


def wrap_batched(args: Any, bdims: Any, level: int) -> Any:
    leaves, spec = flatten(args)
    dims = broadcast_prefix(bdims, spec)
    if dims is None:
        raise RuntimeError(
            f"functx.dropin: wrap_batched: the dims {bdims} don't fit the structure of the values."
        )
    return unflatten(_batch(level, leaves, dims), spec)


def unwrap_batched(args: Any, level: int) -> tuple[Any, Any]:
    leaves, spec = flatten(args)
    own = _level(level, "vmap")
    dims = [
        0 if isinstance(leaf, Tensor) and _C.is_batched_at(own, leaf) else None for leaf in leaves
    ]
    return unflatten(_C.unbatch(own, leaves, dims), spec), unflatten(dims, spec)


def restore_vmap(func: Function, in_dims: Any, batch_size: int, randomness: str) -> Function:
    def inner(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        with vmap_increment_nesting(batch_size, randomness) as level:
            return unwrap_batched(func(*wrap_batched(args, in_dims, level), **kwargs), level)

    return inner


def vmap_impl(
    func: Function,
    in_dims: InDims,
    out_dims: OutDims,
    randomness: str,
    chunk_size: int | None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    return vmap(func, in_dims, out_dims, randomness, chunk_size=chunk_size)(*args, **kwargs)


# ---- grad ---------------------------------------------------------------------------------------


def _grad_increment_nesting() -> int:
    return _number(_C.push_grad())


def _grad_decrement_nesting() -> int:
    return _pop("grad")


@contextlib.contextmanager
def grad_increment_nesting() -> Iterator[int]:
    number = _grad_increment_nesting()
    level = _level(number, "grad")
    try:
        yield number
    finally:
        _C.pop(level)


def _wrap_for_grad(tensor: Tensor, level: int) -> Tensor:
    _level(level, "grad")
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return _C.track([tensor])[0]


def _unwrap_for_grad(tensor: Tensor, level: int) -> Tensor:
    own = _level(level, "grad")
    return cast("Tensor", _C.release(own, [tensor])[0])


def _wrap_tensor_for_grad(value: Any, level: int) -> Any:
    return _wrap_for_grad(value, level) if isinstance(value, Tensor) else value


def _wrap_all_tensors(tree: Any, level: int) -> Any:
    return tree_map(partial(_wrap_tensor_for_grad, level=level), tree)


def _undo_create_differentiable(tree: Any, level: int) -> Any:
    return tree_map_only(Tensor, partial(_unwrap_for_grad, level=level), tree)


def _autograd_grad(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grad_outputs: Sequence[Tensor | None] | None = None,
    retain_graph: bool = False,
    create_graph: bool = True,
) -> tuple[Tensor, ...]:
    level = _level(len(_C.active_levels()), "grad")
    cotangents = [None] * len(outputs) if grad_outputs is None else grad_outputs
    with torch.set_grad_enabled(create_graph):
        return tuple(_C.pullback(level, outputs, inputs, cotangents, retain_graph))


def grad_impl(
    func: Function, argnums: ArgNums, has_aux: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return grad(func, argnums, has_aux)(*args, **kwargs)


def grad_and_value_impl(
    func: Function, argnums: ArgNums, has_aux: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return grad_and_value(func, argnums, has_aux)(*args, **kwargs)


def _vjp_with_argnums(
    func: Function, *primals: Any, argnums: ArgNums | None = None, has_aux: bool = False
) -> Any:
    if argnums is None:
        return vjp(func, *primals, has_aux=cast("Any", has_aux))
    positions = resolve_argnums("vjp", argnums, len(primals))
    result: tuple[Any, ...] = vjp(
        lambda chosen: func(*substitute(primals, positions, chosen)),
        select(primals, positions),
        has_aux=cast("Any", has_aux),
    )
    output, vjp_fn, *aux = result

    def chosen_vjp_fn(*args: Any, **kwargs: Any) -> Any:
        return vjp_fn(*args, **kwargs)[0]

    return (output, chosen_vjp_fn, *aux)


# ---- jvp ----------------------------------------------------------------------------------------


def _jvp_with_argnums(
    func: Function,
    primals: tuple[Any, ...],
    tangents: Any,
    argnums: ArgNums | None,
    *,
    strict: bool = False,
    has_aux: bool,
) -> Any:
    if argnums is None:
        return jvp(func, primals, tangents, strict=strict, has_aux=cast("Any", has_aux))
    positions = resolve_argnums("jvp", argnums, len(primals))
    return jvp(
        lambda chosen: func(*substitute(primals, positions, chosen)),
        (select(primals, positions),),
        (tangents,),
        strict=strict,
        has_aux=cast("Any", has_aux),
    )


def _jvp_increment_nesting() -> NoReturn:
    raise RuntimeError(
        "functx.dropin: a jvp level can't be entered by hand: what belongs into it are functx's "
        "dual tensors, and torch.autograd.forward_ad makes others. Use torch.func.jvp."
    )


def jvp_increment_nesting() -> NoReturn:
    _jvp_increment_nesting()


def enter_jvp_nesting() -> NoReturn:
    _jvp_increment_nesting()


# ---- Switches -----------------------------------------------------------------------------------


def _set_vmap_fallback_enabled(enabled: bool) -> None:
    _theirs._set_vmap_fallback_enabled(enabled)
    _C.allow_loop_fallback(enabled)


def _set_vmap_fallback_warning_enabled(enabled: bool) -> None:
    _theirs._set_vmap_fallback_warning_enabled(enabled)
    _C.warn_on_loop_fallback(enabled)


def _is_vmap_fallback_enabled() -> bool:
    return _C.loop_fallback_allowed()


# ---- Modules ------------------------------------------------------------------------------------

_functional_call = functional_call


def _reparametrize_module(
    module: torch.nn.Module,
    parameters_and_buffers: dict[str, Tensor],
    tie_weights: bool = False,
    strict: bool = False,
    stack_weights: bool = False,
) -> contextlib.AbstractContextManager[None]:
    # Ours restores in the order that `stack_weights` asks for, always.
    return replaced_state(module, parameters_and_buffers, tie_weights=tie_weights, strict=strict)
