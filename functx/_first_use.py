"""What functx changes in PyTorch, all of it before the first transform and none of it on import.

docs/design.md has a table of the changes, with their reasons and what they cost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from torch import Tensor
from torch.nn import Parameter

from . import (
    _C,
    _autograd_function,
    _autograd_inside,
    _checkpoint_state,
    _control_flow,
    _indexing,
    _inspection,
    _opaque,
    _ranges,
    _saved_tensors,
    batching_rules,
)

# Each may be tried again after an interrupt.
_steps: list[Callable[[], None]] = [
    lambda: _C.watch_births(Tensor, Parameter),
    _indexing.install,
    _checkpoint_state.install,
    _control_flow.install,
    _inspection.install,
    _opaque.install,
    _ranges.install,
    _saved_tensors.install,
    batching_rules.install,
    _autograd_function.install,
    _autograd_inside.install,
]
_installing = threading.Lock()


def _prepare_thread() -> None:
    with _installing:
        while _steps:
            _steps[-1]()
            _steps.pop()
    _saved_tensors.take_over_active()


def wait_for_it() -> None:
    """Has it done when a thread is about to enter its first transform; called once, on import."""
    _C.prepare_threads_by(_prepare_thread)
