"""What every transform does around the function it is given: its name, `argnums`, its inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from ._opaque import opaque
from .pytree import TreeSpec, flatten

ArgNums: TypeAlias = int | tuple[int, ...]
F = TypeVar("F", bound=Callable[..., Any])

# Attributes that torch.compile puts on its results, besides the `_torchdynamo_` ones.
_COMPILED_ATTRIBUTES = frozenset(
    {"_is_torch_compile", "_isolate_recompiles_id", "aot_compile", "get_compiler_config"}
)


_MISSING = object()


def check_function(transform: str, func: Any) -> None:
    """Raises TypeError unless `func` can be called."""
    if not callable(func):
        raise TypeError(
            f"{transform}: expected a function to transform, got {type(func)}. Pass the function "
            f"itself, f, and not its result, f(x)."
        )


def check_count(transform: str, count: Any, of: str) -> None:
    """Raises TypeError unless `count`, a number `of` something, is an int or None."""
    if count is not None and not hasattr(count, "__index__"):
        raise TypeError(
            f"{transform}: chunk_size should be None or an int greater than 0, got {count!r}. It "
            f"is the number of {of} to compute at a time, None for all."
        )


def wraps(func: Callable[..., Any]) -> Callable[[F], F]:
    """`functools.wraps` of a transform, for a function that may be anything callable.

    A compiled function knows the original by attributes in its `__dict__`; were they copied, then
    compiling the transformed function would compile the untransformed one instead.
    """

    def decorate(wrapper: F) -> F:
        # As functools.update_wrapper does, without an exception for each name that is missing:
        # built-in functions lack some, and to make those takes as long as to enter a transform.
        for assigned in functools.WRAPPER_ASSIGNMENTS:
            value = getattr(func, assigned, _MISSING)
            if value is not _MISSING:
                setattr(wrapper, assigned, value)
        attributes = vars(wrapper)
        attributes.update(getattr(func, "__dict__", ()))
        attributes["__wrapped__"] = func
        if len(attributes) > 1:  # more than __wrapped__
            for name in list(attributes):
                if name.startswith("_torchdynamo_") or name in _COMPILED_ATTRIBUTES:
                    del attributes[name]
        return opaque(wrapper)

    return decorate


def function_name(func: Callable[..., Any]) -> str:
    """A name for error messages; partial objects, modules and the like have none of their own."""
    name = getattr(func, "__name__", None)
    if isinstance(name, str):
        return name
    if isinstance(func, functools.partial):
        return f"functools.partial({function_name(func.func)}, ...)"
    return repr(func)


def check_argnums(transform: str, argnums: ArgNums) -> None:
    """Checks what can be checked without the arguments, when the transform is applied.

    Raises:
        RuntimeError: `argnums` is neither an int nor a non-empty tuple of ints.
    """
    if isinstance(argnums, int):
        return
    if not isinstance(argnums, tuple):
        raise RuntimeError(
            f"{transform}: argnums must be int or Tuple[int, ...], got: {type(argnums)}. "
            f"Write argnums=0 for the first argument, argnums=(0, 1) for the first two."
        )
    if not argnums:
        raise RuntimeError(
            f"{transform}: argnums must be non-empty; name at least one argument to differentiate."
        )
    for argnum in argnums:
        if not isinstance(argnum, int):
            raise RuntimeError(
                f"{transform}: each argnum must be int, got: {type(argnum)} in argnums={argnums}. "
                f"It is the position of an argument."
            )


def resolve_argnums(transform: str, argnums: ArgNums, count: int) -> ArgNums:
    """Makes negative `argnums` count from the front of `count` positional arguments.

    Raises:
        RuntimeError: one is out of range, or two name the same argument.
    """
    if isinstance(argnums, int):
        return _resolve(transform, argnums, count)
    resolved = tuple([_resolve(transform, argnum, count) for argnum in argnums])
    if len(set(resolved)) != len(resolved):
        raise RuntimeError(
            f"{transform}: argnums elements must be unique, got {argnums} for {count} positional "
            f"inputs. Name each argument once."
        )
    return resolved


def _resolve(transform: str, argnum: int, count: int) -> int:
    if not -count <= argnum < count:
        raise RuntimeError(
            f"{transform}: Got argnum={argnum}, but only {count} positional inputs. "
            f"Differentiated arguments must be passed by position, not by keyword."
        )
    return argnum % count


def select(args: tuple[Any, ...], argnums: ArgNums) -> Any:
    """The argument, or the tuple of arguments, that resolved `argnums` name."""
    if isinstance(argnums, int):
        return args[argnums]
    return tuple([args[argnum] for argnum in argnums])


def substitute(args: tuple[Any, ...], argnums: ArgNums, values: Any) -> tuple[Any, ...]:
    """`args` with `values`, which look like `select(args, argnums)`, in their places."""
    if isinstance(argnums, int):
        return (*args[:argnums], values, *args[argnums + 1 :])
    changed = list(args)
    for argnum, value in zip(argnums, values, strict=True):
        changed[argnum] = value
    return tuple(changed)


def differentiable_leaves(
    transform: str, tree: Any, argnums: ArgNums | None = None
) -> tuple[list[Tensor], TreeSpec]:
    """Flattens inputs that a derivative is taken with respect to.

    Args:
        transform: Its name, for messages.
        tree: The inputs.
        argnums: Their positions; None: `tree` is the tuple of all arguments.

    Raises:
        ValueError: a leaf is not a tensor.
        RuntimeError: a leaf is a tensor of integers or booleans.
    """
    leaves, spec = flatten(tree)
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"{transform}: Thing passed to transform API must be Tensor, got {type(leaf)} "
                f"for {argument(tree, index, argnums)}. Pass torch.tensor(value), or "
                f"{undifferentiated(argnums)}."
            )
        if not (leaf.is_floating_point() or leaf.is_complex()):
            raise RuntimeError(
                f"{transform}: only Tensors of floating point dtype can require gradients, got "
                f"{leaf.dtype} for {argument(tree, index, argnums)}. Convert it first, for example "
                f"with x.float(), or {undifferentiated(argnums)}."
            )
    return leaves, spec


def argument(tree: Any, index: int, argnums: ArgNums | None = None) -> str:
    """Names leaf number `index` of differentiated inputs, for error messages.

    >>> argument(({"a": 1}, {"b": (2, 3)}), 2)
    "argument 1 at ['b'][1]"
    >>> argument({"b": (2, 3)}, 1, argnums=4)
    "argument 4 at ['b'][1]"
    """
    if isinstance(argnums, int):
        return f"argument {argnums}{place(tree, index)}"
    for position, each in enumerate(tree):
        count = len(flatten(each)[0])
        if index < count:
            number = position if argnums is None else argnums[position]
            return f"argument {number}{place(each, index)}"
        index -= count
    raise IndexError(index)


def undifferentiated(argnums: ArgNums | None) -> str:
    """How to pass what is not to be differentiated, for error messages."""
    if argnums is None:
        return "bind what is not differentiated with functools.partial"
    return "leave its argument out of argnums"


def place(tree: Any, index: int) -> str:
    """Where leaf number `index` is, for error messages; nothing for a tree that is the leaf.

    >>> place({"a": 1, "b": (2, 3)}, 2)
    " at ['b'][1]"
    """
    path, _ = tree_flatten_with_path(tree)[0][index]
    return f" at {keystr(path)}" if path else ""


def reject_complex(transform: str, leaves: list[Tensor], role: str) -> None:
    """Raises RuntimeError for a complex leaf: a Jacobian over C has no single convention."""
    for index, leaf in enumerate(leaves):
        if leaf.is_complex():
            raise RuntimeError(
                f"{transform}: Expected all {role}s to be real but received complex tensor at "
                f"flattened {role} idx: {index}. Use torch.view_as_real and torch.view_as_complex "
                f"to take the Jacobian of the real and imaginary parts, or use vjp or jvp."
            )
