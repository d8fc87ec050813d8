"""PyTorch's own table of operators, as functions of tensors with several draws of each sample."""

import contextlib
import dataclasses
import itertools
import random
import warnings
from collections.abc import Callable
from unittest import mock

import numpy
import torch
from _seeds import seed_torch
from torch.testing._internal import common_utils
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo import core
from torch.utils._pytree import tree_flatten, tree_unflatten

import functx

DRAWS = 3


def full_name(op):
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


ENTRIES = {full_name(op): op for op in op_db}


def scattered_by_choice(x, src, size, stride, storage_offset=None):
    where = (size, stride, storage_offset)
    is_written = torch.zeros_like(x, dtype=torch.bool)
    is_written = is_written.as_strided_scatter(torch.ones_like(src, dtype=torch.bool), *where)
    return torch.where(is_written, x.detach().as_strided_scatter(src, *where), x)


# For references, in the place of operators whose gradient is wrong in PyTorch.
WITH_RIGHT_GRADIENT = {
    # Its gradient by the old values is that of the places where these are not kept.
    "as_strided_scatter": scattered_by_choice,
}


def function_of(op):
    """The operator under a transform, and what is right outside of all."""
    function = op.get_op()
    plain = WITH_RIGHT_GRADIENT.get(op.name)
    if plain is None:
        return function

    def either(*args, **kwargs):
        is_plain = (
            functx._C.level_depth() == 0 and torch._C._functorch.maybe_current_level() is None
        )
        return (plain if is_plain else function)(*args, **kwargs)

    return either


@dataclasses.dataclass(frozen=True)
class Sample:
    """A call of an operator; `draws` are several sets of tensors that fit its other arguments."""

    index: int
    leaves: list
    spec: object
    positions: list
    draws: list
    to_smooth: Callable

    @property
    def tensors(self):
        return self.draws[0]

    @property
    def kwargs(self):
        return tree_unflatten(self.leaves, self.spec)[1]

    def bind(self, function):
        """`function` of the tensors alone, returning a tuple of tensors."""

        def call(*tensors):
            leaves = list(self.leaves)
            for position, tensor in zip(self.positions, tensors, strict=True):
                leaves[position] = tensor
            args, kwargs = tree_unflatten(leaves, self.spec)
            return tensors_of(function(*args, **kwargs))

        return call

    def bind_smooth(self, op):
        """The same of what PyTorch's tests differentiate: `op` of the symmetric part of a matrix,
        the eigenvectors but for their phases."""
        function = function_of(op)
        return self.bind(
            lambda *args, **kwargs: self.to_smooth(op.gradcheck_wrapper(function, *args, **kwargs))
        )


def tensors_of(result):
    return tuple(x for x in tree_flatten(result)[0] if isinstance(x, torch.Tensor))


def seed_all(seed):
    seed_torch(seed)
    random.seed(seed)
    numpy.random.seed(seed)


@contextlib.contextmanager
def in_a_hurry():
    """Before each sample PyTorch seeds for all devices, and looks on the stack for a `TestCase`
    that wants to know its number: both take far longer than the sample."""
    with (
        mock.patch.object(torch, "manual_seed", seed_torch),
        mock.patch.object(common_utils, "extract_test_fn", return_value=None),
        mock.patch.object(core, "extract_test_fn", return_value=None),
    ):
        yield


def flattened(op, dtype, seed, limit):
    seed_all(seed)
    with warnings.catch_warnings(), in_a_hurry():
        warnings.simplefilter("ignore")
        inputs = op.sample_inputs("cpu", dtype, requires_grad=False)
        inputs = list(itertools.islice(inputs, limit))
    return [
        (*tree_flatten(((s.input, *s.args), dict(s.kwargs))), s.output_process_fn_grad)
        for s in inputs
    ]


def positions_of_tensors(leaves):
    return [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]


def alike(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()


def samples(op, dtype, limit=None):
    """The samples of `op` that hold strided tensors only. Each draw comes from its own seed; where
    the samples themselves are random in shape or number, all draws are the first."""
    by_seed = [flattened(op, dtype, seed, limit) for seed in range(DRAWS)]
    for index, (leaves, spec, to_smooth) in enumerate(by_seed[0]):
        positions = positions_of_tensors(leaves)
        first = [leaves[i] for i in positions]
        if any(t.layout is not torch.strided or t.is_nested for t in first):
            continue
        draws = [first]
        for others in by_seed[1:]:
            draw = first
            if len(others) == len(by_seed[0]) and others[index][1] == spec:
                candidate = others[index][0]
                if positions_of_tensors(candidate) == positions:
                    tensors = [candidate[i] for i in positions]
                    if all(map(alike, tensors, first)):
                        draw = tensors
            draws.append(draw)
        yield Sample(index, leaves, spec, positions, draws, to_smooth)
