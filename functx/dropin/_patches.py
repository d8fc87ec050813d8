"""What `install` changes, a table of attributes, and how.

A name of the public interface is replaced by a function that passes calls of PyTorch's own to the
original, since parts of PyTorch look up `torch.vmap` when they need it, and `torch.compile` knows
how to compile the original only.

A private helper is replaced for code outside of PyTorch only. torch.compile compares such helpers
with the ones it knows, and finds them by name: it has to see the originals.
"""

from __future__ import annotations

import dis
import functools
import importlib
import sys
import warnings
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import torch
from torch._functorch import deprecated

import functx
from functx.experimental import control_flow

from . import _hooked_vmap, _private

Function = Callable[..., Any]

_READING = {
    dis.opmap[name] for name in ("IMPORT_FROM", "LOAD_ATTR", "LOAD_METHOD") if name in dis.opmap
}

_APIS = ("torch.func", "torch._functorch.apis", "functorch", "torch._functorch.deprecated")
_EAGER = (
    "torch.func",
    "torch._functorch.eager_transforms",
    "functorch",
    "torch._functorch.deprecated",
)
_DEPRECATED = ("functorch", "torch._functorch.deprecated")
_EXPERIMENTAL = "functorch.experimental"
_NEW = ("torch.func", "torch._functorch.eager_transforms")

PUBLIC: dict[str, tuple[str, ...]] = {
    "vmap": (*_APIS, "torch"),
    "grad": _APIS,
    "grad_and_value": _APIS,
    "vjp": _EAGER,
    "jvp": (*_EAGER, _EXPERIMENTAL),
    "jacrev": _EAGER,
    "jacfwd": (*_EAGER, _EXPERIMENTAL),
    "hessian": (*_EAGER, _EXPERIMENTAL),
    "functionalize": (*_EAGER, _EXPERIMENTAL),
    "linearize": _NEW,
    "debug_unwrap": _NEW,
    "rearrange": ("torch.func", "torch._functorch.einops", "functorch.einops"),
    "chunk_vmap": ("torch._functorch.apis", _EXPERIMENTAL),
    "cond": ("torch", f"{_EXPERIMENTAL}.control_flow"),
    "make_functional": ("torch._functorch.make_functional", *_DEPRECATED),
    "make_functional_with_buffers": ("torch._functorch.make_functional", *_DEPRECATED),
    "combine_state_for_ensemble": ("torch._functorch.make_functional", *_DEPRECATED),
    "functional_call": (
        "torch.func",
        "torch._functorch.functional_call",
        "torch.nn.utils.stateless",
    ),
}

# What PyTorch's warning about a function of functorch names, if not that of torch.func.
SUCCESSORS = {
    "vmap": "torch.vmap",
    "make_functional": "torch.func.functional_call",
    "make_functional_with_buffers": "torch.func.functional_call",
    "combine_state_for_ensemble": "torch.func.stack_module_state",
}

_C = "torch._C._functorch"
_VMAP = ("torch._functorch.vmap", "functorch._src.vmap")
_TRANSFORMS = "torch._functorch.eager_transforms"
_INTERPRETERS = "torch._functorch.pyfunctorch"

PRIVATE: dict[str, tuple[str, ...]] = {
    "is_batchedtensor": (_C, "torch._functorch.vmap"),
    "is_gradtrackingtensor": (_C,),
    "is_functorch_wrapped_tensor": (_C, _TRANSFORMS),
    "is_dead_tensor_wrapper": (_C,),
    "get_unwrapped": (_C, _TRANSFORMS),
    "unwrap_if_dead": (_C,),
    "maybe_get_bdim": (_C,),
    "maybe_get_level": (_C,),
    "dlevel": (_C,),
    "current_level": (_C,),
    "maybe_current_level": (_C,),
    "_are_functorch_transforms_active": ("torch._C",),
    "get_dynamic_layer_stack_depth": (_C,),
    "peek_interpreter_stack": (_C,),
    "get_interpreter_stack": (_C,),
    "retrieve_current_functorch_interpreter": (_INTERPRETERS,),
    "retrieve_all_functorch_interpreters": (_INTERPRETERS,),
    "_add_batch_dim": (_C, *_VMAP),
    "_remove_batch_dim": (_C, *_VMAP),
    "_vmap_increment_nesting": (_C, "torch._functorch.vmap"),
    "_vmap_decrement_nesting": (_C, "torch._functorch.vmap"),
    "_create_batched_inputs": _VMAP,
    "_unwrap_batched": _VMAP,
    "_maybe_remove_batch_dim": ("torch._functorch.vmap",),
    "vmap_increment_nesting": ("torch._functorch.vmap",),
    "vmap_impl": ("torch._functorch.vmap",),
    "restore_vmap": ("torch._functorch.vmap",),
    "wrap_batched": ("torch._functorch.vmap",),
    "unwrap_batched": ("torch._functorch.vmap",),
    "_grad_increment_nesting": (_C, _TRANSFORMS),
    "_grad_decrement_nesting": (_C, _TRANSFORMS),
    "grad_increment_nesting": (_TRANSFORMS,),
    "_wrap_for_grad": (_C, _TRANSFORMS),
    "_unwrap_for_grad": (_C, _TRANSFORMS),
    "_wrap_tensor_for_grad": (_TRANSFORMS,),
    "_wrap_all_tensors": (_TRANSFORMS,),
    "_undo_create_differentiable": (_TRANSFORMS,),
    "_autograd_grad": (_TRANSFORMS,),
    "grad_impl": (_TRANSFORMS,),
    "grad_and_value_impl": (_TRANSFORMS,),
    "_vjp_with_argnums": (_TRANSFORMS,),
    "_jvp_with_argnums": (_TRANSFORMS,),
    "_jvp_increment_nesting": (_C, _TRANSFORMS),
    "jvp_increment_nesting": (_TRANSFORMS,),
    "enter_jvp_nesting": (_TRANSFORMS,),
    "_set_vmap_fallback_enabled": (_C,),
    "_set_vmap_fallback_warning_enabled": (_C,),
    "_is_vmap_fallback_enabled": (_C,),
    "_functional_call": ("torch.nn.utils.stateless",),
    "_reparametrize_module": ("torch.nn.utils.stateless",),
}


class Attribute(NamedTuple):
    """An attribute of a module that stands on its own, and what replaces it."""

    module: ModuleType
    name: str
    ours: Any


class Patches:
    """The replacements of one installation, and the means to take them back."""

    def __init__(self, public: list[Attribute], private: list[Attribute]) -> None:
        self.public = public
        self.views: dict[ModuleType, dict[str, _View]] = {}
        for module, name, ours in private:
            self.views.setdefault(module, {})[name] = _View(module, name, ours)
        self.originals: list[Attribute] = []
        self.classes: dict[ModuleType, type[ModuleType]] = {}

    def apply(self) -> None:
        """Replaces every attribute, remembering what was there."""
        for module, name, ours in self.public:
            self.originals.append(Attribute(module, name, getattr(module, name)))
            setattr(module, name, ours)
        for module, views in self.views.items():
            self.classes[module] = type(module)
            module.__class__ = type("ModuleOnFunctx", (type(module),), dict(views))

    def revert(self) -> None:
        """Puts back what `apply` found."""
        for module, name, original in self.originals:
            setattr(module, name, original)
        for module, plain_class in self.classes.items():
            module.__class__ = plain_class


def all_patches() -> Patches:
    """The tables above, as far as this PyTorch has what they name."""
    public: list[Attribute] = []
    for name, modules in PUBLIC.items():
        ours = _ours(name)
        # functorch's functions are not those of torch.func, and torch.compile has rules for each.
        routed = functools.cache(functools.partial(_routed, ours))
        public += [
            Attribute(module, name, ours if theirs is ours else routed(theirs))
            for module, theirs in _present(modules, name)
        ]
    private = [
        Attribute(module, name, getattr(_private, name))
        for name, modules in PRIVATE.items()
        for module, _ in _present(modules, name)
    ]
    return Patches(public, private)


def _ours(name: str) -> Function:
    """What functx has for a name of the public interface."""
    owners: tuple[Any, ...] = (functx, functx.experimental, control_flow)
    ours: Function = next(getattr(owner, name) for owner in owners if hasattr(owner, name))
    return ours


def _present(modules: tuple[str, ...], name: str) -> list[tuple[ModuleType, Any]]:
    """The modules that have an attribute of this name, each with what it is."""
    loaded = [_module(module) for module in modules]
    return [(module, getattr(module, name)) for module in loaded if hasattr(module, name)]


def _module(name: str) -> Any:
    """The module of this name, None if this PyTorch has none."""
    if name == _C:  # PyTorch's extension makes its submodules without telling the import system
        return torch._C._functorch
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def _is_pytorch(caller: FrameType) -> bool:
    """Whether code of PyTorch is calling, or of ours, which wants what PyTorch has."""
    frame: FrameType | None = caller
    while frame is not None and "__name__" not in frame.f_globals:  # an eval()
        frame = frame.f_back
    module = "" if frame is None else frame.f_globals["__name__"]
    if module == _hooked_vmap.__name__:  # asks what libraries have put there
        return False
    return module.startswith(("torch.", "functorch.dim", "functx.")) or module == "torch"


def _is_reading(caller: FrameType) -> bool:
    """Whether the caller is at an attribute or an import, not in a call of something else."""
    return caller.f_code.co_code[caller.f_lasti] in _READING


def _routed(ours: Function, theirs: Function) -> Function:
    is_compiling = torch.compiler.is_dynamo_compiling
    call = _hooked_vmap.vmap if ours is functx.vmap else ours
    name = ours.__name__
    is_deprecated = theirs is getattr(deprecated, name, None)
    notice = getattr(theirs, "__deprecated__", None)
    known_to_compiler = _known_to_compiler(name)

    @functools.wraps(ours)
    def routed(*args: Any, **kwargs: Any) -> Any:
        if is_compiling() or _is_pytorch(sys._getframe(1)):
            return theirs(*args, **kwargs)
        if is_deprecated:
            deprecated.warn_deprecated(name, SUCCESSORS.get(name))
        if notice is not None:
            warnings.warn(notice, FutureWarning, stacklevel=2)
        result = call(*args, **kwargs)
        if known_to_compiler is not None and callable(result):
            _compile_as(result, lambda *a, **k: known_to_compiler(*args, **kwargs)(*a, **k))
        return result

    # Dynamo may enter this one, and finds there the original, which it knows how to trace.
    vars(routed).pop("_torchdynamo_disable", None)
    return routed


# Transforms that return a function.
_OF_FUNCTIONS = {
    "vmap": "apis",
    "chunk_vmap": "apis",
    "grad": "apis",
    "grad_and_value": "apis",
    "jacrev": "eager_transforms",
    "jacfwd": "eager_transforms",
    "hessian": "eager_transforms",
    "functionalize": "eager_transforms",
}


def _known_to_compiler(name: str) -> Function | None:
    """PyTorch's transform of this name that returns a function, where that is what it does."""
    module = _OF_FUNCTIONS.get(name)
    if module is None:
        return None
    original: Function = getattr(importlib.import_module(f"torch._functorch.{module}"), name)
    return original


def _compile_as(transformed: Any, original: Function) -> None:
    """Makes Dynamo trace `original` wherever it finds `transformed`, made outside of its graph."""
    vars(transformed).pop("_torchdynamo_disable", None)
    # Called in code that is compiled, and given to `torch.compile` itself.
    transformed._torchdynamo_inline = original
    transformed._torchdynamo_orig_callable = original
    transformed._torchdynamo_wrapper_id = id(transformed)


class _View:
    """An attribute of a module that PyTorch sees as it is, and everybody else as `ours`.

    The module's `__dict__` keeps the original. The guards of compiled code read attributes of
    PyTorch's modules in Python whenever a function is called, and must find the original too.
    """

    def __init__(self, module: ModuleType, name: str, ours: Any) -> None:
        self.name = name
        self.ours = ours
        self.shown = ours
        self.has_guards = module is not torch._C._functorch

    def __get__(self, module: ModuleType, owner: type) -> Any:
        caller = sys._getframe(1)
        if _is_pytorch(caller) or (self.has_guards and not _is_reading(caller)):
            return vars(module)[self.name]
        return self.shown

    def __set__(self, module: ModuleType, value: Any) -> None:
        # unittest.mock puts back what it has found in __dict__.
        self.shown = self.ours if value is vars(module)[self.name] else value
