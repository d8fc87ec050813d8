"""Makes functorch and torch.func run on functx, for programs that nobody edits.

From `install()` to `uninstall()`, what a program imports from `functorch`, `torch.func` or PyTorch
itself are the transforms of functx, wherever the modules were imported:

    >>> from functx import dropin
    >>> with dropin.installed():
    ...     from torch.func import vmap
    >>> vmap.__module__
    'functx.vmap'

`python -m functx.dropin script.py` (or `-m module`) runs a program like that, and
`pytest -p functx.dropin` a test suite.

PyTorch itself goes on as before: its own calls of its transforms, and code that `torch.compile`
compiles, get the functions that were there. docs/dropin.md says more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ._patches import Patches, all_patches

__all__ = ["install", "installed", "uninstall"]

_active: Patches | None = None


def install() -> None:
    """Puts functx in the place of functorch and torch.func, in this process; twice is once.

    Names that a module got by `from torch.func import vmap` before stay what they are.
    """
    global _active
    if _active is None:
        _active = all_patches()
        _active.apply()


def uninstall() -> None:
    """Puts back what `install` replaced; does nothing if nothing is installed.

    Names that a module got by `from torch.func import vmap` meanwhile stay what they are.
    """
    global _active
    if _active is not None:
        _active.revert()
        _active = None


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """`install` for the body of a `with` statement; inside of another one it does nothing."""
    if _active is not None:
        yield
        return
    install()
    try:
        yield
    finally:
        uninstall()


def pytest_load_initial_conftests(early_config: Any) -> None:
    """What `pytest -p functx.dropin` calls before it imports anything of a test suite."""
    install()
    early_config.add_cleanup(uninstall)
