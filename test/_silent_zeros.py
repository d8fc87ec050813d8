"""Looks for derivatives that are zero without a word, where differences of the values say that they
are not."""

import torch
from _derivatives import (
    differences,
    inner,
    is_differentiable,
    numbers_like,
    numbers_like_all,
)
from _differentiated import value
from _op_db import full_name, seed_all
from _op_sweep import SEED, UNINITIALIZED, quietly
from _op_sweep_derivatives import all_samples, inputs_at, spread

import functx

# Whatever is below this is noise of the differences.
NOISE = 1e-4

RANDOM = "a sample is a constant, and not a function of the parameters of its distribution"
STATISTICS = (
    "statistics that are saved for the backward pass, which has the derivative through them"
)
FACTORS = "max_norm scales rows in place, by factors that are taken for constants"

# Zero where differences are not, in PyTorch and here, by definition.
BY_DEFINITION = {
    "normal": RANDOM,
    "_batch_norm_with_update": STATISTICS,
    "_native_batch_norm_legit": STATISTICS,
    "native_batch_norm": STATISTICS,
    "native_group_norm": STATISTICS,
    "native_layer_norm": STATISTICS,
    "nn.functional.embedding": FACTORS,
    "nn.functional.embedding_bag": FACTORS,
}


def all_of(op, sample, k):
    """All results of the operator that are numbers, as a function of its tensor at `k`."""
    call = sample.bind(op.get_op())

    def function(x):
        tensors = [y.clone() for y in sample.tensors]
        tensors[k] = x.clone()
        seed_all(SEED)
        return tuple(filter(is_differentiable, call(*tensors)))

    return function


def forward(function, tangents):
    try:
        _, slopes = functx.jvp(function.plain, tuple(function.inputs), tuple(tangents))
    except Exception:
        return None
    return slopes


def backward(function, k, cotangent):
    try:
        _, pullback = functx.vjp(lambda x: function.plain(x)[k], *function.inputs)
        return pullback(cotangent)
    except Exception:
        return None


def silent_zeros_by(function):
    """The modes, and numbers of outputs, whose derivative is zero and should not be."""
    tangents = numbers_like_all(function.inputs, 0.5)
    slopes = forward(function, tangents)
    for k, (slope, smooth) in enumerate(differences(function, tangents)):
        expected = slope.where(smooth, 0)
        if expected.numel() == 0 or expected.abs().max() < NOISE:
            continue
        if slopes is not None and not slopes[k].where(smooth, 0).any():
            yield f"jvp of output {k}"
        cotangent = numbers_like(slope, 0.6).where(smooth, 0)
        if inner([cotangent], [expected])[0].abs() < NOISE:
            continue
        gradients = backward(function, k, cotangent)
        if gradients is not None and not gradients[0].any():
            yield f"vjp of output {k}"


def silent_zeros(op, limit):
    """Where `op` has one, in some samples of those that there are."""
    if op.name in UNINITIALIZED or full_name(op) in BY_DEFINITION:
        return []
    found = []
    for sample in spread(all_samples(full_name(op), torch.float64), limit):
        for k, x in enumerate(sample.tensors):
            if not is_differentiable(x):
                continue
            try:
                function = quietly(value, all_of(op, sample, k), inputs_at(sample.tensors, (k,)))
                modes = quietly(lambda: list(silent_zeros_by(function)))  # noqa: B023
            except Exception:
                continue  # the call itself raises
            shapes = [tuple(y.shape) for y in sample.tensors]
            found += [f"{mode}, of shapes {shapes}, by {k}" for mode in modes]
    return found
