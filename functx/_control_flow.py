"""`torch.cond` inside of our transforms.

PyTorch compiles what it is given, for tensors that the compiler knows. On ours it would fail, so
`torch.cond` is replaced by a function that first asks whether a transform is active.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch

from . import _C

torch_cond = torch.cond


@wraps(torch_cond)
def _cond(*args: Any, **kwargs: Any) -> Any:
    if torch.compiler.is_dynamo_compiling() or _C.level_depth() == 0:
        return torch_cond(*args, **kwargs)
    from .experimental.control_flow import cond

    return cond(*args, **kwargs)


def install() -> None:
    """Puts ours in the place of PyTorch's; called once, on import."""
    setattr(torch, "cond", _cond)  # noqa: B010 - mypy
