"""`functional_call`: a module called with other parameters and buffers than its own."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._checkpoint_state import checkpoints_within

__all__ = ["functional_call"]

State = dict[str, Tensor]

_API = "functional_call(module, parameter_and_buffer_dicts, args, kwargs)"


def functional_call(
    module: nn.Module,
    parameter_and_buffer_dicts: State | Sequence[State],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Calls `module` with some of its parameters and buffers replaced, and puts them back.

    A tensor may be reached under several names, because a submodule is in two places or because
    two modules share it. Where that is, the tensor given for one of the names is used for all.

    Args:
        module: The module. It is changed while the call lasts, so that it must not be called from
            two threads at a time; its forward may use `functional_call` on it in turn.
        parameter_and_buffer_dicts: Tensors by the names that `module.named_parameters` and
            `module.named_buffers` give them, in a dict or several with different names. A name
            that the module does not have yet is an attribute while the call lasts. `None` stands
            for no tensor.
        args: The positional arguments in a tuple, or the only one.
        kwargs: The arguments by keyword.
        tie_weights: Whether the tensors that the module shares between submodules stay shared. If
            not, such a tensor is replaced only in the places that are named.
        strict: Whether the names have to be those of all parameters and buffers of the module.

    Returns:
        What the module returns. What it writes in place to a parameter or a buffer is in the
        tensor that was given, and an attribute that it binds anew (`self.count = self.count + 1`)
        is in `parameter_and_buffer_dicts`, if that is a single dict. The module is as it was, also
        after an exception.

    Raises:
        ValueError: `parameter_and_buffer_dicts` is neither a dict nor a list or tuple of dicts; two
            of them have the same name; with `tie_weights`, two tensors are given for one.
        TypeError: what is given for a name, or what has that name, is not a tensor.
        AttributeError: a submodule that a name begins with does not exist.
        RuntimeError: with `strict`, a name is missing or unexpected; the module is a ScriptModule
            or a DataParallel.

    Note:
        Of a parametrized tensor, the name `weight` is what the parametrization computes, which is
        then not used, and `parametrizations.weight.original` is what it computes that from.

    Complexity:
        That of the call, one look at every parameter and buffer with `tie_weights`, and one at each
        name.

    Example:
        >>> import torch
        >>> from functx import functional_call
        >>> model = torch.nn.Linear(2, 1)
        >>> state = {"weight": torch.ones(1, 2), "bias": torch.tensor([0.5])}
        >>> functional_call(model, state, torch.tensor([1.0, 2.0]))
        tensor([3.5000])
    """
    _check_callable(module)
    given = _merged(parameter_and_buffer_dicts)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with replaced_state(module, given, tie_weights=tie_weights, strict=strict):
        return module(*args, **(kwargs or {}))


@contextmanager
def replaced_state(
    module: nn.Module, given: State, *, tie_weights: bool = False, strict: bool = False
) -> Iterator[None]:
    """`module` with other parameters and buffers, those in `given`, for the body of a `with`."""
    values = _tied(module, given) if tie_weights else given
    if strict:
        _check_names(module, values)
    slots: dict[tuple[int, str], _Slot] = {}
    by_name = {}
    submodules = {"": module}
    for name, value in values.items():
        slot = _find(submodules, name, value)
        by_name[name] = slots.setdefault((id(slot.owner), slot.name), slot)
    try:
        for name, slot in by_name.items():
            slot.fill(values[name])
        with checkpoints_within(module, values):
            yield
    finally:
        try:
            contents = {name: by_name[name].content() for name in given}
        finally:
            # The last first: a property may be computed from what was replaced before.
            for slot in reversed(slots.values()):
                slot.restore()
        given.update({name: value for name, value in contents.items() if value is not _ABSENT})


def _check_callable(module: Any) -> None:
    jit: Any = torch.jit
    is_jitted = isinstance(module, (jit.ScriptModule, jit.ScriptFunction))
    if is_jitted or jit.is_tracing() or jit.is_scripting():
        raise RuntimeError(
            "The stateless API can't be used with Jitted modules. Pass the nn.Module that "
            "torch.jit.script or torch.jit.trace was given."
        )
    if isinstance(module, nn.DataParallel):
        raise RuntimeError(
            "The stateless API can't be used with nn.DataParallel module, whose replicas have "
            "parameters of their own. Pass the wrapped one, module.module."
        )


def _merged(dicts: Any) -> State:
    if isinstance(dicts, dict):
        return dicts
    if not isinstance(dicts, Sequence):
        raise ValueError(
            f"{_API}: Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, "
            f"but got {type(dicts)}. Pass dict(module.named_parameters()) or what looks like it."
        )
    if not all(isinstance(each, dict) for each in dicts):
        raise ValueError(
            f"{_API}: Expected all elements of parameter_and_buffer_dicts to be dictionaries, got "
            f"{[type(each) for each in dicts]}. Pass dicts of tensors by their names."
        )
    merged: State = {}
    repeated: list[str] = []
    for each in dicts:
        repeated += [name for name in each if name in merged]
        merged.update(each)
    if repeated:
        raise ValueError(
            f"{_API}: {repeated} appeared in multiple dictionaries; behavior of functional call is "
            f"ambiguous. Give each name in one of them."
        )
    return merged


def _tensors(module: nn.Module) -> State:
    """All parameters and buffers, those that are shared under each of their names."""
    tensors: State = dict(module.named_parameters(remove_duplicate=False))
    tensors.update(module.named_buffers(remove_duplicate=False))
    return tensors


def _tied(module: nn.Module, given: State) -> State:
    """`given`, with the tensors also under the other names that theirs have in the module."""
    names: dict[int, list[str]] = {}
    owned = _tensors(module)
    for name, tensor in owned.items():
        names.setdefault(id(tensor), []).append(name)
    values = dict(given)
    for name, value in given.items():
        tied = names[id(owned[name])] if name in owned else ()
        if len(tied) < 2:
            continue
        if any(given[other] is not value for other in tied if other in given):
            raise ValueError(
                f"functional_call got multiple values for keys {sorted(tied)}, which are tied. "
                f"Consider using tie_weights=False, or give one of them."
            )
        values.update(dict.fromkeys(tied, value))
    return values


def _check_names(module: nn.Module, values: State) -> None:
    expected, actual = set(_tensors(module)), set(values)
    errors = [
        f"{kind} key(s): {', '.join(map(repr, sorted(names)))}."
        for kind, names in (("Unexpected", actual - expected), ("Missing", expected - actual))
        if names
    ]
    if errors:
        lines = "\n\t".join(errors)
        raise RuntimeError(
            f"Error(s) in reparametrizing for {type(module).__name__}:\n\t{lines}\n"
            f"Give each parameter and buffer by its name in named_parameters() or named_buffers(), "
            f"or call with strict=False."
        )


# ---- where the tensors are -------------------------------------------------------------------

_ABSENT: Any = object()


class _Slot:
    """A place where a module has a tensor: one for all names by which it is reached."""

    def __init__(self, owner: nn.Module, name: str, home: MutableMapping[str, Any]) -> None:
        self.owner = owner
        self.name = name
        self.home = home
        self.original = home.get(name, _ABSENT)

    def fill(self, value: Any) -> None:
        self.home[self.name] = value

    def content(self) -> Any:
        return self.home.get(self.name, _ABSENT)

    def restore(self) -> None:
        for other in _homes(self.owner):
            if other is not self.home:
                # By the forward of the module, which has bound the name to something else.
                other.pop(self.name, None)
        if self.original is _ABSENT:
            self.home.pop(self.name, None)
        else:
            self.home[self.name] = self.original


def _homes(module: nn.Module) -> tuple[MutableMapping[str, Any], ...]:
    return module._parameters, module._buffers, module.__dict__


class _Given(nn.Module):
    """A parametrization that computes what it was given."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = (value,)  # no parameter of this module

    def forward(self) -> Any:
        return self.value[0]


class _Parametrized(_Slot):
    """What a parametrization computes, in the place of which another is while it is replaced."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        parametrizations: Any = owner.parametrizations
        super().__init__(owner, name, parametrizations._modules)

    def fill(self, value: Any) -> None:
        self.home[self.name] = _Given(value)

    def content(self) -> Any:
        parametrization = self.home[self.name]
        # To compute it would change those that keep a state.
        return parametrization() if isinstance(parametrization, _Given) else None

    def restore(self) -> None:
        self.home[self.name] = self.original


class _Property(_Slot):
    """An attribute that the class of the module computes and can be told."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__(owner, name, {})
        self.original = getattr(owner, name)

    def fill(self, value: Any) -> None:
        setattr(self.owner, self.name, value)

    def content(self) -> Any:
        return getattr(self.owner, self.name)

    def restore(self) -> None:
        setattr(self.owner, self.name, self.original)


def _find(submodules: dict[str, nn.Module], path: str, value: Any) -> _Slot:
    """The place that `path` names; `submodules` are those that were met before."""
    if value is not None and not isinstance(value, Tensor):
        raise TypeError(
            f"{_API}: {value} is not an instance of torch.Tensor. Give a tensor for {path!r}, for "
            f"example torch.tensor(value)."
        )
    prefix, _, name = path.rpartition(".")
    if name == "":
        raise KeyError(f'{_API}: tensor name can\'t be empty string "", in {path!r}')
    owner = _submodule(submodules, prefix)
    slot = _slot(owner, name)
    content = slot.content()
    if content is not _ABSENT and content is not None and not isinstance(content, Tensor):
        raise TypeError(
            f"{_API}: attribute `{name}`: {content} is not an instance of torch.Tensor. Only "
            f"tensors of {type(owner).__name__} can be replaced, not {path!r}."
        )
    return slot


def _slot(owner: nn.Module, name: str) -> _Slot:
    for home in (owner._parameters, owner._buffers):
        if name in home:
            return _Slot(owner, name, home)
    if isinstance(getattr(type(owner), name, None), property):
        is_parametrized = name in getattr(owner, "parametrizations", ())
        return (_Parametrized if is_parametrized else _Property)(owner, name)
    return _Slot(owner, name, owner.__dict__)


def _submodule(submodules: dict[str, nn.Module], path: str) -> nn.Module:
    if path in submodules:
        return submodules[path]
    prefix, _, name = path.rpartition(".")
    parent = _submodule(submodules, prefix)
    try:
        submodule = getattr(parent, name)
    except AttributeError as error:
        raise AttributeError(
            f"{_API}: {type(parent).__name__} has no attribute `{name}`. Names are those of "
            f"named_parameters() and named_buffers() of the module, got {path!r}."
        ) from error
    if not isinstance(submodule, nn.Module):
        raise TypeError(f"{_API}: submodule `{path}`: {submodule} is not an instance of nn.Module")
    submodules[path] = submodule
    return submodule
