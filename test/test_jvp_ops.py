"""jvp of every differentiable operator, against PyTorch's forward mode and finite differences."""

import itertools

import torch
from _op_table import every_forward_op
from _ops import STEP
from _reference import assert_equal_trees, directional_derivative, forward_ad_jvp
from torch.testing import assert_close

import functx


def tangent_patterns(op):
    """Every non-empty set of real arguments; what is written to must have a tangent."""
    positions = op.real_positions
    for count in range(1, len(positions) + 1):
        for chosen in itertools.combinations(positions, count):
            flags = [i in chosen for i in range(len(op.args))]
            if not op.writes_into_what_is_shared(flags):
                yield chosen


def tangents_for(primals):
    generator = torch.Generator().manual_seed(1)
    return [2 * torch.rand(p.shape, dtype=p.dtype, generator=generator) - 1 for p in primals]


def pytorch_jvp(f, primals, tangents):
    """None where PyTorch has no formula: finite differences are the reference everywhere."""
    try:
        return forward_ad_jvp(f, primals, tangents)
    except (NotImplementedError, RuntimeError):
        return None


@every_forward_op
def test_jvp(op):
    samples = op.samples()
    for chosen in tangent_patterns(op):
        primals = [samples[i] for i in chosen]
        tangents = tangents_for(primals)
        f = op.restricted(samples, chosen)
        outputs, derivatives = functx.jvp(f, tuple(primals), tuple(tangents))
        assert_equal_trees(outputs, f(*primals))
        assert_equal_trees(derivatives, directional_derivative(f, primals, tangents, STEP))
        native = pytorch_jvp(f, primals, tangents)
        if native is not None:
            assert_equal_trees((outputs, derivatives), native)


@every_forward_op
def test_jvp_of_zero_tangents(op):
    samples = op.samples()
    positions = op.real_positions
    primals = tuple(samples[i] for i in positions)
    f = op.restricted(samples, positions)
    outputs, derivatives = functx.jvp(f, primals, tuple(torch.zeros_like(p) for p in primals))
    assert_equal_trees(outputs, f(*primals))
    for output, derivative in zip(outputs, derivatives, strict=True):
        assert derivative.shape == output.shape
        assert_close(derivative, torch.zeros_like(output), atol=1e-12, rtol=0)


@every_forward_op
def test_jacfwd_of_the_first_real_argument(op):
    samples = op.samples()
    position = op.real_positions[0]
    x = samples[position]
    f = op.restricted(samples, [position])
    for output, jacobian in zip(f(x), functx.jacfwd(f)(x), strict=True):
        assert jacobian.shape == output.shape + x.shape
    (tangent,) = tangents_for([x])
    actual = tuple(torch.tensordot(j, tangent, dims=x.dim()) for j in functx.jacfwd(f)(x))
    assert_equal_trees(actual, directional_derivative(f, [x], [tangent], STEP))
