"""Every operator of PyTorch's `op_db` under three transforms: it must not matter that a vmap stands
between two that differentiate, or around them. The reference is a loop over the examples of what is
below vmap; test_op_sweep_derivatives has that by differences."""

import re

import pytest
import torch
from _derivative_exceptions import REFUSED as NO_DERIVATIVE
from _op_db import ENTRIES, function_of, samples, seed_all
from _op_exceptions import REFUSED
from _op_sweep import is_differentiable, numbers_like, tracked_outputs

from functx import jvp, vjp, vmap

F64 = torch.float64
SAME = {"randomness": "same"}
# The backward of these asks how many factors are zero, and takes another formula for two.
COUNTS_ZEROS = {"index_reduce.prod", "scatter_reduce.prod"}
# Refused with a reason: PyTorch's own gradient has no derivative.
NO_SECOND = {"nn.functional.embedding_bag"}
NAMES = sorted(name for name, op in ENTRIES.items() if F64 in op.dtypes and op.supports_autograd)


class Case:
    """An operator as a function of its differentiable tensors, at two points."""

    def __init__(self, op, sample):
        self.op, self.sample = op, sample
        self.call = sample.bind(function_of(op))
        self.select, outputs = tracked_outputs(self.call, sample.tensors)
        self.numbers = [k for k, x in enumerate(sample.tensors) if is_differentiable(x)]
        self.points = [tuple(draw[k] for k in self.numbers) for draw in sample.draws[:2]]
        self.tangents = [
            tuple(numbers_like(x, k + b) for k, x in enumerate(point))
            for b, point in enumerate(self.points)
        ]
        self.cotangents = tuple(numbers_like(y, k + 5) for k, y in enumerate(outputs))
        tensors = [*sample.tensors, *outputs]
        self.applies = bool(outputs and self.numbers) and not any(
            x.is_complex() or x.is_sparse for x in tensors
        )

    def function(self, *inputs):
        tensors = [x.clone() for x in self.sample.tensors]
        for k, x in zip(self.numbers, inputs, strict=True):
            tensors[k] = x.clone()
        seed_all(0)
        return tuple(self.select(self.call(*tensors)))

    def pulled(self, *inputs):
        return vjp(self.function, *inputs)[1](self.cotangents)

    def pushed(self, *inputs):
        return jvp(self.function, inputs, self.tangents[0])[1]


def stacked(results):
    return [torch.stack(parts) for parts in zip(*results, strict=True)]


def compositions(case):
    """What is to be equal, by name: all examples at once, and one."""
    points, tangents = tuple(stacked(case.points)), tuple(stacked(case.tangents))
    twice = tuple(torch.stack([y, y]) for y in case.cotangents)
    for name, inner, cotangents in ("vjp", case.pulled, tangents), ("jvp", case.pushed, twice):
        mapped = vmap(inner, **SAME)
        yield (
            f"jvp(vmap({name}))",
            lambda mapped=mapped: jvp(mapped, points, tangents)[1],
            lambda x, t, _, inner=inner: jvp(inner, x, t)[1],
        )
        yield (
            f"vjp(vmap({name}))",
            lambda mapped=mapped, cotangents=cotangents: vjp(mapped, *points)[1](cotangents),
            lambda x, _, c, inner=inner: vjp(inner, *x)[1](c),
        )
    yield (
        "vmap(jvp(vjp))",
        lambda: vmap(lambda x, t: jvp(case.pulled, x, t)[1], **SAME)(points, tangents),
        lambda x, t, _: jvp(case.pulled, x, t)[1],
    )


def cotangents_of(name, case, k):
    return case.tangents[k] if name.endswith("(vjp))") else case.cotangents


def is_refused(name, message):
    reasons = [r for r in (REFUSED.get(name), NO_DERIVATIVE.get(name)) if r is not None]
    known = name in COUNTS_ZEROS and "differs between examples" in message
    known |= name in NO_SECOND and "has no forward-mode derivative" in message
    return known or any(re.search(reason.message, message) for reason in reasons)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_vmap_in_between(name):
    op = ENTRIES[name]
    for sample in samples(op, F64, 1):
        try:
            case = Case(op, sample)
        except RuntimeError as error:
            pytest.skip(f"{name}: plain autograd raises: {error}")
        if not case.applies:
            pytest.skip(f"{name}: complex or sparse, or nothing to differentiate")
        for kind, whole, one in compositions(case):
            try:
                expected = stacked(
                    [
                        one(x, t, cotangents_of(kind, case, k))
                        for k, (x, t) in enumerate(zip(case.points, case.tangents, strict=True))
                    ]
                )
            except (RuntimeError, NotImplementedError):
                continue  # without vmap too: test_op_sweep_derivatives knows why
            try:
                actual = whole()
            except (RuntimeError, NotImplementedError) as error:
                if is_refused(name, str(error)):
                    continue
                raise
            torch.testing.assert_close(
                list(actual),
                expected,
                rtol=1e-7,
                atol=1e-8,
                equal_nan=True,
                msg=lambda m, kind=kind: f"{kind}: {m}",
            )
