"""`torch.linspace` and `torch.logspace` between ends that autograd tracks.

The functions of Python detach what the operators return, and so nobody below can give the result a
derivative. Inside a transform, the operators are called in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function

from . import _C


def install() -> None:
    """Puts ours in front of PyTorch's; called at first use."""
    for name in ("linspace", "logspace"):
        _C.put_before_c(getattr(torch, name), _attached(getattr(torch.ops.aten, name)))


def _attached(operator: Callable[..., Tensor]) -> Callable[..., Any]:
    def ours(*args: Any, **kwargs: Any) -> Any:
        ends = (*args[:2], kwargs.get("start"), kwargs.get("end"))
        is_tracked = any(isinstance(end, Tensor) and end.requires_grad for end in ends)
        if not is_tracked or kwargs.get("out") is not None or has_torch_function(ends):
            return NotImplemented
        kwargs = {k: v for k, v in kwargs.items() if k not in ("out", "requires_grad")}
        return operator(*args, **kwargs)

    return ours
