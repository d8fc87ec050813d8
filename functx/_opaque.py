"""What `torch.compile` makes of transforms, and they of compiled functions.

Dynamo cannot see into the extension, and would break its graph, with warnings, at every call into
it. So it is told not to enter a transform at all, nor the functions that one calls: the graph
breaks once, and the transform runs. One that is recorded as it runs, by `make_fx`, `aot_function`
or `torch._dynamo.nonstrict_trace`, is compiled like everything else.

A compiled function that is called inside a transform is compiled for plain tensors only, and for
one derivative, which is what compiled code has. Otherwise it runs as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar, cast

from torch._C._dynamo import eval_frame

from . import _C

F = TypeVar("F", bound=Callable[..., Any])

_SKIP = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP)

# The code objects that Dynamo skips by now. They live as long as the functions of our modules.
_skipped: set[int] = set()


def opaque(func: F) -> F:
    """Makes a function of ours one that Dynamo calls and does not trace."""
    marked = cast("Any", func)
    # Where Dynamo traces the caller:
    marked._torchdynamo_disable = True
    marked._torchdynamo_disable_msg = (
        "a transform of functx; torch._dynamo.nonstrict_trace(transformed) gets it into the graph"
    )
    # Where Dynamo has left the caller to Python:
    code = marked.__code__
    if id(code) not in _skipped:
        eval_frame.set_code_exec_strategy(code, _SKIP)
        _skipped.add(id(code))
    return func


# The module that decides, when a compiled function is called, whether to compile anything.
_DYNAMO = "torch._dynamo.eval_frame"


def _tell(dynamo: Any) -> None:
    plain = getattr(dynamo, "_callback_from_stance", None)
    if plain is None:  # of another version: it will try, fail with a warning, and run the function
        return

    @wraps(plain)
    def callback_from_stance(callback: Any) -> Any:
        return None if _runs_as_it_is() else plain(callback)

    dynamo._callback_from_stance = callback_from_stance


def _runs_as_it_is() -> bool:
    level = _C.innermost_level() if _C.level_depth() else None
    return level is not None and (level.kind != "grad" or _C.level_depth() > 1)


class _WhenLoaded(MetaPathFinder):
    """Tells Dynamo when somebody imports it: that takes long, and may never happen."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != _DYNAMO:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_tell(module: ModuleType) -> None:
                execute(module)
                _tell(module)

            setattr(spec.loader, "exec_module", execute_and_tell)  # noqa: B010 - mypy
        return spec


def install() -> None:
    """Tells Dynamo about our tensors, now or when it is loaded; called at first use."""
    if _DYNAMO in sys.modules:
        _tell(sys.modules[_DYNAMO])
    else:
        sys.meta_path.insert(0, _WhenLoaded())
