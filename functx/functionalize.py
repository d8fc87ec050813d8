"""`functionalize`: a function without in-place operators, for a look at its graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from torch.func import functionalize as _functionalize

from . import _C
from ._arguments import wraps
from ._opaque import opaque

__all__ = ["functionalize"]

P = ParamSpec("P")
R = TypeVar("R")


@opaque
def functionalize(func: Callable[P, R], *, remove: str = "mutations") -> Callable[P, R]:
    """Makes a function that computes the same by operators that write to no tensor.

    The work is done by PyTorch's own pass; what it is good for is a trace by `make_fx`. It goes
    around functx's transforms, `functionalize(vmap(f))`, and takes in what their rules do. Inside
    of `vmap` or `jvp` it has nothing to hold on to, since tensors are wrappers there, and the
    function runs as it is: the results are the same, and what a trace shows is what ran.

    Args:
        func: Any function of tensors and pytrees of tensors.
        remove: `"mutations"`, or `"mutations_and_views"` to replace views by copies as well.

    Returns:
        A function of the same arguments with the same results. In-place changes of its arguments
        are made at the end.

    Raises:
        RuntimeError: `remove` is neither of the two.

    Example:
        >>> import torch
        >>> from functx import functionalize, make_fx
        >>> traced = make_fx(functionalize(lambda x: x.sin().mul_(2)))(torch.ones(2))
        >>> any(str(node.target) == "aten.mul_.Tensor" for node in traced.graph.nodes)
        False
    """
    functional = _functionalize(func, remove=remove)

    @wraps(func)
    def functionalized(*args: Any, **kwargs: Any) -> Any:
        among_wrappers = any(level.kind != "grad" for level in _C.active_levels())
        return (func if among_wrappers else functional)(*args, **kwargs)

    return cast("Callable[P, R]", functionalized)
