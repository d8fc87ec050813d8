"""`torch.linspace` and `torch.logspace` between ends that autograd tracks.

The functions of Python detach what the operators return, and so nobody below can give the result a
derivative. Inside a transform, the operators are called in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils import _device

from . import _C


def install() -> None:
    """Puts ours in the place of PyTorch's; called once, on import."""
    for name in ("linspace", "logspace"):
        replacement = _attached(getattr(torch, name), getattr(torch.ops.aten, name))
        setattr(torch, name, replacement)
    # The functions that `torch.set_default_device` is for, looked up again when it is called.
    _device._device_constructors.cache_clear()


def _attached(plain: Callable[..., Tensor], operator: Callable[..., Tensor]) -> Any:
    @wraps(plain)
    def replacement(*args: Any, **kwargs: Any) -> Tensor:
        ends = (*args[:2], kwargs.get("start"), kwargs.get("end"))
        if has_torch_function(ends):
            return handle_torch_function(replacement, ends, *args, **kwargs)
        is_tracked = any(isinstance(end, Tensor) and end.requires_grad for end in ends)
        if is_tracked and _C.level_depth() and kwargs.get("out") is None:
            kwargs = {k: v for k, v in kwargs.items() if k not in ("out", "requires_grad")}
            return operator(*args, **kwargs)
        return plain(*args, **kwargs)

    return replacement
