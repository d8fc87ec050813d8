"""Runs jacrev of operators of `op_db` in the dtypes, layouts and libraries that sweeps in double
precision do not see, against a loop over plain autograd: a row for each element of the results.
Only the cotangents are mapped, which asks kernels to broadcast."""

import itertools

import torch
from _derivatives import dense
from _op_db import function_of, samples, seed_all
from _op_sweep import (
    SEED,
    UNINITIALIZED,
    Outcome,
    is_differentiable,
    judge,
    quietly,
    tracked_outputs,
)

LARGEST = 40  # elements of the results

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "transposed": lambda x: x.mT.contiguous().mT if x.dim() > 1 else strided(x),
    "channels_last": lambda x: (
        x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else strided(x)
    ),
}


def strided(x):
    return torch.stack([x, x], -1)[..., 0]


class Rows:
    """The Jacobian of one tensor of a sample, by a row for each element of the results."""

    def __init__(self, call, tensors, number):
        self.call = call
        self.tensors = tensors
        self.number = number
        self.select, self.outputs = quietly(tracked_outputs, call, tensors)

    def of(self, x):
        full = [y.clone() for y in self.tensors]
        full[self.number] = x.clone()
        seed_all(SEED)
        return tuple(self.select(self.call(*full)))

    def by_autograd(self):
        x = self.tensors[self.number].detach().requires_grad_()
        outputs = self.of(x)
        blocks = []
        for y in outputs:
            units = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
            rows = [
                torch.autograd.grad(
                    y, x, unit, retain_graph=True, allow_unused=True, materialize_grads=True
                )[0]
                for unit in units
                if y.requires_grad
            ] or [torch.zeros_like(x)] * y.numel()
            blocks.append(torch.stack(dense(rows)).reshape(y.shape + x.shape))
        return blocks

    def by(self, transform):
        return transform(self.of)(self.tensors[self.number])


def sweep_sample(op, sample, api, outcome):
    call = sample.bind(function_of(op))
    numbers = [k for k, x in enumerate(sample.tensors) if is_differentiable(x)]
    for number in numbers:
        try:
            rows = Rows(call, sample.tensors, number)
            size = sum(y.numel() for y in rows.outputs)
            if not 0 < size <= LARGEST:
                outcome.skipped["not small" if size else "not differentiable"] += 1
                continue
            expected = quietly(rows.by_autograd)
        except Exception as error:
            outcome.skipped[f"plain autograd raises {type(error).__name__}"] += 1
            continue
        where = f"sample {sample.index}, {[tuple(x.shape) for x in sample.tensors]} by {number}"
        judge(outcome, op, where, expected, lambda: quietly(rows.by, api.jacrev))  # noqa: B023


def sweep(op, dtype, api, layout, onednn, limit):
    """The outcome of the first samples of `op` that are small."""
    outcome = Outcome()
    if op.name in UNINITIALIZED:
        return outcome
    with torch.backends.mkldnn.flags(enabled=onednn):
        for sample in itertools.islice(samples(op, dtype), limit):
            sample.draws[0][:] = [
                LAYOUTS[layout](x) if is_differentiable(x) else x for x in sample.draws[0]
            ]
            sweep_sample(op, sample, api, outcome)
    return outcome
