"""Pytrees: nested tuples, lists, dicts (and what users register) with tensors at the leaves.

The rules are those of `torch.utils._pytree`, so structures registered there work here. Nearly every
call of a transform passes one tensor, a flat tuple of tensors or a dict of parameters, though, and
the recursion in Python costs more than a small transform: those three are done without it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import (
    TreeSpec,
    _broadcast_to_and_flatten,
    tree_flatten,
    tree_structure,
    treespec_pprint,
)

__all__ = ["LEAF", "TreeSpec", "broadcast_prefix", "describe", "flatten", "unflatten"]

LEAF: TreeSpec = tree_structure(None)
"""The structure of a single leaf, the one object that `torch.utils._pytree` uses for it."""


@functools.lru_cache(maxsize=64)
def _flat_tuple(length: int) -> TreeSpec:
    # Cached so that comparing the structures of two flat tuples is a test of identity.
    return TreeSpec(tuple, None, [LEAF] * length)


def _only_tensors(values: Iterable[Any]) -> bool:
    for value in values:  # noqa: SIM110 - all() over a generator takes twice the time
        if not isinstance(value, Tensor):
            return False
    return True


def flatten(tree: Any) -> tuple[list[Any], TreeSpec]:
    """Returns the leaves of `tree` from left to right, and its structure.

    >>> flatten({"a": 1, "b": (2, 3)})[0]
    [1, 2, 3]
    """
    if isinstance(tree, Tensor):
        return [tree], LEAF
    kind = type(tree)
    if kind is tuple and _only_tensors(tree):
        return list(tree), _flat_tuple(len(tree))
    if kind is dict and _only_tensors(tree.values()):
        return list(tree.values()), TreeSpec(dict, list(tree), [LEAF] * len(tree))
    return tree_flatten(tree)


def unflatten(leaves: Sequence[Any], spec: TreeSpec) -> Any:
    """Puts `leaves`, which may be trees themselves, into the structure `spec`.

    >>> unflatten([4, 5, 6], flatten({"a": 1, "b": (2, 3)})[1])
    {'a': 4, 'b': (5, 6)}
    """
    if spec is LEAF:
        return leaves[0]
    # One node more than leaves: a single container, with nothing nested in it.
    if spec.num_nodes == len(leaves) + 1:
        if spec.type is tuple:
            return tuple(leaves)
        if spec.type is dict:
            return dict(zip(spec.context, leaves, strict=True))
    return spec.unflatten(leaves)


def broadcast_prefix(prefix: Any, spec: TreeSpec) -> list[Any] | None:
    """Repeats each leaf of `prefix` over the part of `spec` below it.

    Returns:
        One value for each leaf of `spec`, or None if `prefix` is not a prefix of it.

    >>> broadcast_prefix((0, None), flatten((1, {"a": 2, "b": 3}))[1])
    [0, None, None]
    """
    return _broadcast_to_and_flatten(prefix, spec)


def describe(spec: TreeSpec) -> str:
    """Writes a structure the way Python writes the value, with `*` for a leaf.

    >>> describe(flatten((1, {"a": 2, "b": 3}))[1])
    "(*, {'a': *, 'b': *})"
    """
    return treespec_pprint(spec)
