"""Types of the C++ extension: levels, wrappers, and the reverse-mode engine call."""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, final

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

@final
class Level:
    """An active (or finished) transform. Ids increase and are never reused."""

    @property
    def id(self) -> int: ...
    @property
    def kind(self) -> str: ...  # "vmap", "jvp" or "grad"
    @property
    def alive(self) -> bool: ...
    @property
    def batch_size(self) -> int: ...  # vmap levels; 0 otherwise
    @property
    def randomness(self) -> str: ...  # vmap levels: "error", "different" or "same"

def push_vmap(batch_size: int, randomness: str) -> Level:
    """Enters a vmap level on this thread."""

def push_jvp() -> Level:
    """Enters a forward-mode level on this thread."""

def push_grad() -> Level:
    """Enters a reverse-mode level: remembers the grad mode outside, then turns it on."""

def pop(level: Level) -> None:
    """Leaves `level` and all above it (an exception may have left some); restores the grad mode."""

# These enter a level, call `body` with it and `args`, and leave it, whatever happens: an interrupt
# has no chance between two steps.
def in_vmap(batch_size: int, randomness: str, body: Callable[[Level], R]) -> R: ...
def in_jvp(body: Callable[[Level], R]) -> R: ...
def in_grad(
    arguments: tuple[tuple[Any, ...], dict[str, Any], int | tuple[int, ...]] | None,
    body: Callable[[Level], R],
) -> R:
    """`arguments` are those of the function, and the positions of those that it is called with
    aliases of. Without them, none counts as the function's own."""

def level_depth() -> int:
    """Number of levels active on this thread."""

def active_levels() -> list[Level]:
    """The active levels of this thread, outermost first."""

def innermost_level() -> Level | None:
    """The innermost active level of this thread."""

def batch(level: Level, leaves: Sequence[Any], dims: Sequence[int | None]) -> list[Any]:
    """Wraps every leaf whose dim is an int: a tensor of `level`, batched along that dim."""

def unbatch(level: Level, leaves: Sequence[Any], out_dims: Sequence[int | None]) -> list[Tensor]:
    """Values of tensors at `level` with the batch dimension moved to `out_dims` (may be negative).

    A leaf that does not depend on `level` is expanded along a new dimension; with out_dim None
    it is returned as it is, and a batched leaf raises ValueError."""

def is_batched_at(level: Level, x: Tensor) -> bool:
    """Whether `x` is a batched tensor of `level`."""

def make_duals(
    level: Level, primals: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> list[Tensor]:
    """Dual tensors of `level`; a None tangent is a symbolic zero."""

def unpack_duals(
    level: Level, leaves: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Primals and tangents at `level`; None where the tangent is zero."""

def track(inputs: Sequence[Tensor]) -> list[Tensor]:
    """Aliases of `inputs`, lifted to the innermost wrapper level, with a tape of their own."""

def release(level: Level, outputs: Sequence[Any]) -> list[Any]:
    """What a reverse-mode level hands out.

    Tensors are detached from its tape unless something tracked outside the level can see them.
    Leaves that are not tensors pass through."""

def let_go(level: Level) -> None:
    """Takes arguments that the function wrote tracked values to off its tape, at the end."""

def pullback(
    level: Level,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
    retain_graph: bool,
) -> list[Tensor]:
    """Vector-Jacobian product by one engine call, zeros where an input is not reached.

    `outputs` are the raw outputs of the traced function, not the released ones. A None cotangent
    is ones (of a scalar output). May be called after `pop(level)`; it decides then whether the
    backward pass itself has to be recorded."""

def engine_seeds(
    outputs: Sequence[Tensor], gradients: Sequence[Tensor | None], inputs: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` for PyTorch's own call of the engine to start from.

    Raises RuntimeError if an output, or what leads from it to one of `inputs`, is tracked by a tape
    outside of the transform only."""

def without_tape(x: Tensor) -> Tensor:
    """A wrapper of the same value that autograd doesn't track; unlike x.detach() it keeps the
    tangent. A tensor that is no wrapper is returned as it is."""

@final
class Ties:
    """What connects the value of a wrapper to tapes and tangents."""

def ties_below(x: Tensor) -> Ties | None:
    """The ties of the value of `x`, at all depths; None for plain tensors."""

def tie(x: Tensor, ties: Ties | None) -> Tensor:
    """What a hook made of a saved tensor, `x`, with `ties` again and no other wrappers."""

def is_wrapper(x: Tensor) -> bool:
    """Whether `x` is a batched or dual tensor of any level."""

def level_of(x: Tensor) -> Level | None:
    """The level of a wrapper."""

def value_of_constant(x: Tensor) -> Tensor | None:
    """The plain tensor that `x` is nothing but: with no batch, no tangent, no tape. Else None."""

def unwrap(x: Tensor) -> tuple[Tensor, Tensor | None, bool]:
    """For debugging and printing: (value, None, is_batched) or (primal, tangent, False)."""

@final
class RuleHandle:
    """A rule that has been added."""

    def remove(self) -> None:
        """Takes the rule back; what else is done for the operator stays."""

def add_batching_rule(name: str, overload: str, rule: Callable[..., Sequence[Any]]) -> RuleHandle:
    """Batches an operator by `rule`, before all others.

    It is called as `rule(level, returns, in_dims, args, kwargs)` on the values at `level` and
    gives as many results as the operator `returns`, its tensors from `wrap_result`."""

def add_jvp_rule(
    name: str, overload: str, rule: Callable[..., Sequence[tuple[Any, Any]]]
) -> RuleHandle:
    """Differentiates an operator by `rule` under jvp, before all others.

    It is called as `rule(returns, primals, tangents, kwargs)` and gives as many pairs of a result
    and its tangent as the operator `returns`. None is a tangent of zero."""

def ask_for_library_rules(
    find: Callable[[str], Callable[..., Sequence[Any]] | None],
) -> None:
    """`find` is asked for the rule of an operator for which PyTorch has one.

    It is called as those of `add_batching_rule` are."""

def wrap_result(level: Level, value: Tensor, dim: int | None) -> Tensor:
    """A tensor of `level` with the batch dimension of its value at `dim`, if it has one."""

def call_outside(level: Level, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls `function`: what runs in it belongs to the levels outside of `level`."""

@final
class Derivatives:
    """Those that the active transforms take."""

    count: int

def current_derivatives() -> Derivatives: ...
def call_assuming_derivatives(
    derivatives: Derivatives, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Calls `function`, for which these are active as well."""

def call_carrying_levels(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls `function`: autograd's own threads see the levels of this one in the meantime."""

def transforms_of(arguments: tuple[Any, ...]) -> int:
    """Which transforms the tensors among arguments, and in lists and dicts there, are under.

    0 if none is a wrapper; otherwise 1, plus 2 if one differs between the examples of a batch, plus
    4 if one is differentiated elsewhere than by the tape of the innermost level: it has a tangent,
    or is a value which autograd records."""

def yields_to_torch_func(leaves: tuple[Any, ...]) -> bool:
    """Whether a transform of torch.func is active that was entered inside the innermost level
    among these, which has to be a wrapper's."""

def innermost_level_of(leaves: tuple[Any, ...]) -> Level | None:
    """The innermost level among leaves, those which are no tensors included; None if no wrapper."""

def lift(level: Level, leaves: Sequence[Any]) -> list[Any]:
    """Tensors of `level`; one of an outer level becomes the same for all examples, or constant."""

def wrap_batched(level: Level, leaves: Sequence[Any], batched: Sequence[bool]) -> list[Any]:
    """Tensors of `level` for leaves that have the batch dimension in front, or none."""

def split_batched(level: Level, leaves: Sequence[Any]) -> tuple[list[Any], list[bool]]:
    """The inverse of `wrap_batched`."""

def write_tangent(level: Level, dual: Tensor, tangent: Tensor | None) -> None:
    """Gives a tensor of a forward-mode level, written to in place, its new tangent."""

def operator_coverage() -> dict[str, str]:
    """How vmap treats each operator of the dispatcher: "rule", "decomposition" or "fallback"."""

def warn_on_loop_fallback(enabled: bool) -> bool:
    """Turns the warning of the per-example loop on or off; returns the old setting.

    It comes once for each operator, and again after this call."""

def is_batched_number(x: object) -> bool:
    """Whether `x` is an integer of dimension 0 that differs between the examples of some vmap."""

def install_data_setter() -> None:
    """Makes `x.data = y` say what is wrong if only one of them is inside a transform."""

def install_instance_checks(type: Any) -> None:
    """Makes `isinstance(x, torch.FloatTensor)` and its like ask the value of a wrapper.

    They share what answers; `type` is any of them.
    """

def probe(shape: Sequence[int], dtype: torch.dtype, device: torch.device, compares: bool) -> Tensor:
    """A cotangent at which a backward is recorded, or one at which it is run again to compare."""

@final
class RandomState:
    """That of the CPU's generator, and of those of the devices of `tensors`."""

    def __init__(self, tensors: Sequence[Tensor | None]) -> None: ...
    def swap(self) -> None:
        """Goes back to when this was made; a second time, to where the first left."""

def has_numbers(tensors: Sequence[Tensor | None]) -> bool:
    """Whether the tensors can be compared: not while a program is traced."""

def without_saved_tensor_hooks(call: Callable[[], R]) -> R:
    """Calls it, and what it saves goes to no hook."""

def is_transpose(
    gradients: Sequence[Tensor | None],
    tangents: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
    output_tangents: Sequence[Tensor | None],
) -> bool:
    """Whether <gradients, tangents> is <cotangents, output_tangents>, to rounding; None is zero."""

def prepare_threads_by(prepare: Callable[[], None]) -> None:
    """`prepare` is called on every thread before it enters its first transform."""

def prepare_thread() -> None:
    """Does it now, if that has not been done."""

def put_before_c(function: Callable[..., Any], ours: Callable[..., Any]) -> None:
    """Has `function`, which is written in C, call `ours` first, and be the same object still.

    A method of tensors does so on wrappers, another function while a transform is active. What
    `ours` returns is the result, unless it is NotImplemented."""

def dispatch_keys() -> tuple[int, int]:
    """Those of wrappers, and of operators that have none among their arguments."""

def watch_births(*classes: type[Tensor]) -> None:
    """Notes each tensor of these classes that is made while `grad` or the like is active.

    What was there before is captured, and values being differentiated must not be written to it.
    """

def install_item_access(
    getitem: Callable[[Tensor, Any], Tensor], setitem: Callable[[Tensor, Any, Any], None]
) -> None:
    """`x[...]` of every tensor calls these if a number in the index `is_batched_number`."""

def allow_loop_fallback(allowed: bool) -> bool:
    """Lets operators without a rule run in a loop, or makes them raise; returns the old setting."""

def take_looped_operators() -> list[str]:
    """The operators that ran once per example since the last call, with a warning or without."""

def loop_fallback_allowed() -> bool:
    """Whether operators without a rule may run in a loop."""
