"""`in_dims` and `out_dims`: matching them with inputs and outputs, and saying what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias

from torch import Tensor

from . import _C
from ._arguments import function_name, place
from .pytree import LEAF, TreeSpec, broadcast_prefix, describe, flatten, unflatten

InDims: TypeAlias = int | tuple[Any, ...]
OutDims: TypeAlias = int | tuple[Any, ...] | list[Any] | dict[Any, Any] | None


class MappedInputs(NamedTuple):
    """The inputs of one vmap, flattened as far as they have to be."""

    batch_size: int
    leaves: Sequence[Any]
    dims: Sequence[int | None]  # none is negative
    specs: list[TreeSpec] | None  # of each argument; None: the leaves are the arguments

    def arguments(self, leaves: Sequence[Any]) -> Sequence[Any]:
        """The positional arguments, with `leaves` in the places of `self.leaves`."""
        if self.specs is None:
            return leaves
        arguments = []
        start = 0
        for spec in self.specs:
            stop = start + spec.num_leaves
            arguments.append(unflatten(leaves[start:stop], spec))
            start = stop
        return arguments


def check_in_dims(func: Callable[..., Any], in_dims: Any) -> None:
    """Raises ValueError if `in_dims` can't be right for any inputs."""
    if not isinstance(in_dims, (int, tuple)):
        raise ValueError(
            f"vmap({function_name(func)}, in_dims={in_dims}, ...): expected `in_dims` to be int or "
            f"a (potentially nested) tuple matching the structure of inputs, got: {type(in_dims)}. "
            f"Write one entry for each positional argument: in_dims=(0, None)."
        )


def check_out_dims(func: Callable[..., Any], out_dims: Any) -> None:
    """Raises ValueError if `out_dims` can't be right for any outputs."""
    if isinstance(out_dims, int):
        return
    for dim in flatten(out_dims)[0]:
        if dim is not None and not isinstance(dim, int):
            raise ValueError(
                f"vmap({function_name(func)}, ..., out_dims={out_dims}): `out_dims` must be an "
                f"int, None or a python collection of ints, one for each output, saying where the "
                f"mapped dimension goes; got {dim!r}."
            )


def match_inputs(func: Callable[..., Any], in_dims: InDims, args: tuple[Any, ...]) -> MappedInputs:
    """Finds the dim of every input, and the one size that they all have there.

    Raises:
        ValueError: there is nothing to map over, or `in_dims` doesn't fit the arguments.
        RuntimeError: a nested tensor is mapped over another dimension than its first.
    """
    # Tensors, mapped over a dim counted from the front, or anything at all with None: no pytrees.
    if not isinstance(in_dims, tuple):
        dims: Sequence[Any] = (in_dims,) * len(args)
    elif len(in_dims) == len(args):
        dims = in_dims
    else:
        return _match_trees(func, in_dims, args)
    batch_size = -1
    for arg, dim in zip(args, dims, strict=True):
        if dim is None:
            continue
        if not (isinstance(arg, Tensor) and type(dim) is int and 0 <= dim < arg.dim()):
            return _match_trees(func, in_dims, args)
        if dim > 0 and arg.is_nested:
            return _match_trees(func, in_dims, args)
        size = arg.size(dim)
        if size != batch_size:
            if batch_size >= 0:
                return _match_trees(func, in_dims, args)
            batch_size = size
    if batch_size < 0:
        return _match_trees(func, in_dims, args)
    return MappedInputs(batch_size, args, dims, None)


def _match_trees(func: Callable[..., Any], in_dims: InDims, args: tuple[Any, ...]) -> MappedInputs:
    """`match_inputs` in full generality; every complaint about inputs is made here."""
    call = f"vmap({function_name(func)}, in_dims={in_dims}, ...)(<inputs>)"
    if not args:
        raise ValueError(
            f"vmap({function_name(func)})(<inputs>): got no inputs. Pass at least one tensor by "
            f"position: keyword arguments are not mapped over, and a function without inputs can't "
            f"be."
        )
    prefixes = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
    if len(prefixes) != len(args):
        _in_dims_mismatch(call, in_dims, args)
    leaves: list[Any] = []
    dims: list[Any] = []
    specs: list[TreeSpec] = []
    for arg, prefix in zip(args, prefixes, strict=True):
        # With None the whole argument is one leaf: nobody needs to see what is in it.
        arg_leaves, spec = ([arg], LEAF) if prefix is None else flatten(arg)
        if prefix is None or isinstance(prefix, int):
            dims += [prefix] * len(arg_leaves)
        else:
            arg_dims = broadcast_prefix(prefix, spec)
            if arg_dims is None:
                _in_dims_mismatch(call, in_dims, args)
            dims += arg_dims
        leaves += arg_leaves
        specs.append(spec)

    def name(index: int) -> str:
        for number, (arg, spec) in enumerate(zip(args, specs, strict=True)):
            if index < spec.num_leaves:
                return f"argument {number}{'' if spec is LEAF else place(arg, index)}"
            index -= spec.num_leaves
        raise IndexError(index)

    return MappedInputs(_check_leaves(call, leaves, dims, name), leaves, dims, specs)


def _check_leaves(call: str, leaves: list[Any], dims: list[Any], name: Callable[[int], str]) -> int:
    """Checks each dim against its leaf, makes it count from the front; returns the batch size."""
    sizes = {}
    for index, (leaf, dim) in enumerate(zip(leaves, dims, strict=True)):
        if dim is None:
            continue
        if not isinstance(dim, int):
            raise ValueError(
                f"{call}: Got in_dim={dim} for an input but in_dim must be either an integer "
                f"dimension or None. It is the one for {name(index)}."
            )
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"{call}: Got in_dim={dim} for an input but the input is of type {type(leaf)}. "
                f"We cannot vmap over non-Tensor arguments: use None as the in_dim of "
                f"{name(index)} to pass it unchanged."
            )
        rank = leaf.dim()
        if not -rank <= dim < rank:
            expected = f"expected in_dim to satisfy -{rank} <= in_dim < {rank}"
            raise ValueError(
                f"{call}: Got in_dim={dim} for some input, but that input is a Tensor of "
                f"dimensionality {rank} so {expected if rank else 'it has nothing to map over'}. "
                f"Give {name(index)} in_dim None if it is the same for every example."
            )
        dims[index] = dim % rank
        if leaf.is_nested and dims[index] != 0:
            raise RuntimeError(
                f"{call}: Nested tensors can only be vmapped over dim=0, but got dim={dim} for "
                f"{name(index)}."
            )
        sizes[index] = leaf.size(dims[index])
    if not sizes:
        raise ValueError(
            f"{call}: Expected at least one Tensor to vmap over, but "
            + (
                "in_dims is None for every input. Name the mapped dimension of one."
                if leaves
                else "the inputs contain nothing."
            )
        )
    first: dict[int, int] = {}
    for index, size in sizes.items():
        first.setdefault(size, index)
    if len(first) > 1:
        where = [f"{size} in dimension {dims[i]} of {name(i)}" for size, i in first.items()]
        raise ValueError(
            f"{call}: Expected all tensors to have the same size in the mapped dimension, got "
            f"sizes {[*sizes.values()]} for the mapped dimension: {', '.join(where)}. "
            f"Check in_dims, and give in_dim None to what is shared by all examples."
        )
    return next(iter(first))


def _in_dims_mismatch(call: str, in_dims: InDims, args: tuple[Any, ...]) -> NoReturn:
    raise ValueError(
        f"{call}: in_dims is not compatible with the structure of `inputs`. in_dims has structure "
        f"{describe(flatten(in_dims)[1])} but inputs have structure {describe(flatten(args)[1])}. "
        f"Write one entry for each positional argument; an int or None may stand for a whole "
        f"container."
    )


def unbatch_outputs(
    func: Callable[..., Any], level: _C.Level, result: Any, out_dims: OutDims
) -> tuple[list[Any], Sequence[int | None], TreeSpec]:
    """Takes the result of `func` out of a vmap level.

    Returns:
        The leaves with the mapped dimension in place, the `out_dims` of each, their structure.

    Raises:
        ValueError: `out_dims` doesn't fit the outputs, or an output can't be mapped.
        IndexError: an entry of `out_dims` is out of range.
    """
    if isinstance(result, Tensor) and type(out_dims) is int:
        return _C.unbatch(level, (result,), (out_dims,)), (out_dims,), LEAF
    leaves, spec = flatten(result)
    dims = _match_out_dims(func, out_dims, spec)
    for leaf, dim in zip(leaves, dims, strict=True):
        if dim is not None:
            if not isinstance(leaf, Tensor):
                name = function_name(func)
                raise ValueError(
                    f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(leaf)}. "
                    f"{'Does it return its result? ' if leaf is None else ''}Set out_dims to None "
                    f"for an output that is the same for every example."
                )
        elif isinstance(leaf, Tensor) and _C.is_batched_at(level, leaf):
            name = function_name(func)
            raise ValueError(
                f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim is None. "
                f"This output differs between examples: give it an int in out_dims."
            )
    return _C.unbatch(level, leaves, dims), dims, spec


def _match_out_dims(
    func: Callable[..., Any], out_dims: OutDims, spec: TreeSpec
) -> list[int | None]:
    if isinstance(out_dims, int) or out_dims is None:
        return [out_dims] * spec.num_leaves
    # For a single tensor a tuple of one dim will do, but no other container of one.
    if spec is LEAF:
        if not (isinstance(out_dims, tuple) and len(out_dims) == 1):
            _out_dims_mismatch(func, out_dims, spec)
        return list(out_dims)
    dims = broadcast_prefix(out_dims, spec)
    if dims is None:
        _out_dims_mismatch(func, out_dims, spec)
    return dims


def _out_dims_mismatch(func: Callable[..., Any], out_dims: OutDims, spec: TreeSpec) -> NoReturn:
    raise ValueError(
        f"vmap({function_name(func)}, ..., out_dims={out_dims})(<inputs>): out_dims is not "
        f"compatible with the structure of `outputs`. out_dims has structure "
        f"{describe(flatten(out_dims)[1])} but outputs have structure {describe(spec)}. Write one "
        f"entry for each output, or one int for all of them."
    )
