"""`python -m functx.dropin script.py arguments`, or `-m module arguments`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from . import install

_USAGE = "usage: python -m functx.dropin (script.py | -m module) [arguments]"


def main() -> None:
    """Runs the program that the command line names, as Python would, on functx."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["-m"] and len(arguments) > 1:
        install()
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments and not arguments[0].startswith("-"):
        install()
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(str(Path(arguments[0]).absolute()), run_name="__main__")
    else:
        sys.exit(_USAGE)


main()
