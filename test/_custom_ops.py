"""Operators on numpy arrays, which fail on anything but the values that they are meant for."""

import numpy as np
import pytest
import torch
from _reference import randn
from torch import Tensor

from functx import register_batching_rule

looping = pytest.mark.filterwarnings("ignore:.*loop over the examples.*")


class Recorder:
    """A rule that notes what it was called with."""

    def __init__(self, rule):
        self.rule = rule
        self.calls = []

    def __call__(self, info, in_dims, *args, **kwargs):
        self.calls.append((info, in_dims, args, kwargs))
        return self.rule(info, in_dims, *args, **kwargs)


def in_numpy(f):
    """`f` for arrays as a function of tensors."""

    def call(*tensors):
        return torch.from_numpy(np.array(f(*(t.detach().numpy() for t in tensors))))

    return call


def define_product(namespace):
    """x * y with broadcasting, and a derivative written with the operator itself."""

    @torch.library.custom_op(f"{namespace}::product", mutates_args=())
    def product(x: Tensor, y: Tensor) -> Tensor:
        return in_numpy(np.multiply)(x, y)

    def setup(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    def backward(ctx, gradient):
        x, y = ctx.saved_tensors
        return product(gradient, y), product(gradient, x)

    product.register_autograd(backward, setup_context=setup)
    return product


def product_rule(info, in_dims, x, y):
    """Batch dimension last, to see that out_dims counts."""
    x, y = (
        t.unsqueeze(-1) if d is None else t.movedim(d, -1)
        for t, d in zip((x, y), in_dims, strict=True)
    )
    return x * y, -1


def with_rule(how, namespace):
    """The product with its rule, registered in one of the ways, which records its calls."""
    product = define_product(namespace)
    rule = Recorder(product_rule)
    if how == "method":
        product.register_vmap(rule)
    elif how == "torch.library":
        torch.library.register_vmap(product, rule)
    elif how == "name":
        torch.library.register_vmap(f"{namespace}::product", rule)
    else:
        register_batching_rule(product, rule)
    return product, rule


every_way = pytest.mark.parametrize("how", ["method", "torch.library", "name", "functx"])
every_batching = pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 0), (-1, 1)])


def product_inputs(in_dims):
    return [
        randn(4) if dim is None else randn(4, 3).movedim(1, 0).movedim(0, dim) for dim in in_dims
    ]
