"""Functions that write in place, each with one that computes the same without."""

from collections.abc import Callable
from typing import NamedTuple


class Case(NamedTuple):
    """`forward_only` if plain autograd refuses the function, and so does reverse mode."""

    function: Callable
    reference: Callable
    forward_only: bool


class Cases(dict):
    """Cases by name; called, a decorator that adds one.

    Without a reference, plain autograd can differentiate the function itself twice.
    """

    def __call__(self, reference=None, forward_only=False):
        def add(f):
            self[f.__name__] = Case(f, reference or f, forward_only)
            return f

        return add
