"""What an operator refuses for one example, it refuses under vmap as well."""

import pytest
import torch
from _op_db import ENTRIES, in_a_hurry
from torch.utils._pytree import tree_flatten, tree_unflatten

import functx

SIZE = 2


def error_inputs(op):
    """The arguments of PyTorch's own tests of error messages; not those that need a device."""
    with in_a_hurry():
        samples = [error.sample_input for error in op.error_inputs("cpu")]
    for sample in samples:
        args = (sample.input, *sample.args)
        try:
            op(*args, **sample.kwargs)
        except Exception:
            yield args, sample.kwargs


def batches(args):
    """The arguments with all tensors as a batch of equal examples, and with each one alone."""
    leaves, spec = tree_flatten(args)
    tensors = [index for index, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    for chosen in [tensors, *([index] for index in tensors if len(tensors) > 1)]:
        batched = [
            torch.stack([leaf] * SIZE) if index in chosen else leaf
            for index, leaf in enumerate(leaves)
        ]
        in_dims = [0 if index in chosen else None for index in range(len(leaves))]
        if chosen:
            yield tree_unflatten(batched, spec), tree_unflatten(in_dims, spec)


@pytest.mark.parametrize("name", [name for name, op in ENTRIES.items() if op.error_inputs_func])
@pytest.mark.filterwarnings("ignore")
def test_errors_of_one_example(name):
    op = ENTRIES[name]
    for args, kwargs in error_inputs(op):
        for batched, in_dims in batches(args):
            call = functx.vmap(lambda *args, kwargs=kwargs: op(*args, **kwargs), in_dims)
            try:
                call(*batched)
            except Exception:
                continue
            shapes = [x.shape for x in tree_flatten(args)[0] if isinstance(x, torch.Tensor)]
            pytest.fail(f"{name} took {shapes} with {kwargs}, in_dims {in_dims}")
