"""`rearrange`: transposing, splitting and joining dimensions by a pattern that names them."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["rearrange"]

Group = tuple[str, ...]  # the axes that make up one dimension; none for a dimension of size 1

_ELLIPSIS = "..."


class _Plan(NamedTuple):
    """A pattern for tensors of one rank: where each dimension comes from and goes to."""

    split: tuple[Group, ...]  # the dimensions of the tensor
    order: tuple[int, ...]  # of the axes in `split`, for the result
    joined: tuple[Group, ...]  # the dimensions of the result


def rearrange(
    tensor: Tensor | list[Tensor] | tuple[Tensor, ...], pattern: str, **axes_lengths: int
) -> Tensor:
    """Rearranges the dimensions of a tensor the way a pattern says.

    Args:
        tensor: A tensor, or several of one shape, which are stacked along a new first dimension.
        pattern: The dimensions before and after, as in `"b h w c -> b (c h) w"`. Every name
            stands on both sides once. Parentheses stand for a dimension made of several, the last
            one running fastest; `1`, or `()`, for one of size 1 to drop or to insert; `...` for
            any number of dimensions.
        **axes_lengths: Sizes of axes that a dimension is split into; one of them may be left out.

    Returns:
        The tensor with its dimensions rearranged: a view where one is possible.

    Raises:
        ValueError: the pattern is malformed, or doesn't fit the tensor.

    Example:
        >>> import torch
        >>> from functx.einops import rearrange
        >>> images = torch.zeros(32, 30, 40, 3)
        >>> rearrange(images, "b h w c -> b c h w").shape
        torch.Size([32, 3, 30, 40])
        >>> rearrange(images, "b (h h2) (w w2) c -> (b h2 w2) h w c", h2=2, w2=2).shape
        torch.Size([128, 15, 20, 3])
    """
    if not isinstance(tensor, Tensor):
        tensor = torch.stack(tuple(tensor))
    plan = _parse(pattern, tensor.dim())
    sizes = _axis_sizes(pattern, plan.split, tensor.shape, axes_lengths)
    axes = [axis for group in plan.split for axis in group]
    tensor = tensor.reshape([sizes[axis] for axis in axes]).permute(plan.order)
    return tensor.reshape([math.prod([sizes[axis] for axis in group]) for group in plan.joined])


@functools.lru_cache(maxsize=256)
def _parse(pattern: str, rank: int) -> _Plan:
    sides = pattern.split("->")
    if len(sides) != 2:
        raise _error(pattern, 'it should be like "a b -> b a", with one "->"')
    left, right = (re.findall(r"\.\.\.|[()]|[^\s().]+|.", side) for side in sides)
    if re.search(r"\([^)]*\.\.\.", sides[0]):
        raise _error(pattern, "the left side can't have an ellipsis in parentheses")
    named = len(_groups(pattern, left, ()))
    hidden = tuple([f"{_ELLIPSIS}{index}" for index in range(rank - named)])
    if rank < named or (hidden and _ELLIPSIS not in left):
        raise _error(pattern, f"the tensor has {rank} dimensions, the left side {named}")
    split, joined = _groups(pattern, left, hidden), _groups(pattern, right, hidden)
    axes = [axis for group in split for axis in group]
    targets = [axis for group in joined for axis in group]
    if _ellipses(pattern, left) != _ellipses(pattern, right) or set(axes) != set(targets):
        raise _error(pattern, "every name, and an ellipsis, must be on both sides")
    if len(axes) != len(set(axes)) or len(targets) != len(axes):
        raise _error(pattern, "every name must be on each side once")
    return _Plan(split, tuple([axes.index(axis) for axis in targets]), joined)


def _ellipses(pattern: str, tokens: list[str]) -> int:
    count = tokens.count(_ELLIPSIS)
    if count > 1:
        raise _error(pattern, "only one ellipsis can be on a side")
    return count


def _groups(pattern: str, tokens: list[str], hidden: Group) -> tuple[Group, ...]:
    """The dimensions of one side, with the ellipsis standing for the `hidden` axes."""
    groups: list[Group] = []
    opened: list[str] | None = None
    for token in tokens:
        if token.isspace():
            continue
        if token == "(" and opened is None:
            opened = []
        elif token == ")" and opened is not None:
            groups.append(tuple(opened))
            opened = None
        elif token == _ELLIPSIS or token == "1" or _is_name(token):
            axes = hidden if token == _ELLIPSIS else () if token == "1" else (token,)
            if opened is not None:
                opened += axes
            elif token == _ELLIPSIS:
                groups += [(axis,) for axis in axes]
            else:
                groups.append(axes)
        else:
            raise _error(pattern, f"{token!r} is no name of an axis, or closes or opens nothing")
    if opened is not None:
        raise _error(pattern, "a parenthesis is not closed")
    return tuple(groups)


def _is_name(token: str) -> bool:
    return token.isidentifier() and not token.startswith("_") and not token.endswith("_")


def _axis_sizes(
    pattern: str, split: tuple[Group, ...], shape: Sequence[int], given: dict[str, int]
) -> dict[str, int]:
    """The size of every axis on the left, those that are not given from the shape."""
    sizes = dict(given)
    for group, size in zip(split, shape, strict=True):
        unknown = [axis for axis in group if axis not in sizes]
        known = math.prod([sizes[axis] for axis in group if axis in sizes])
        if len(unknown) == 1 and known and size % known == 0:
            sizes[unknown[0]] = size // known
        elif unknown or size != known:
            raise _error(
                pattern,
                f"a dimension of size {size} can't be ({' '.join(group)}) with {given}: give the "
                f"sizes of all axes but one, and let them divide it",
            )
    if strangers := given.keys() - {axis for group in split for axis in group}:
        raise _error(pattern, f"it has no axis {', '.join(sorted(strangers))}")
    return sizes


def _error(pattern: str, reason: str) -> ValueError:
    return ValueError(f"rearrange: the pattern {pattern!r} is not valid here: {reason}.")
