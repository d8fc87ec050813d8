"""The table of common operators that vmap, jvp and their compositions are tested with."""

import _ops_indexing
import _ops_linalg
import _ops_nn
import _ops_pointwise
import _ops_reductions
import _ops_shapes
import pytest

OPS = [
    *_ops_pointwise.OPS,
    *_ops_reductions.OPS,
    *_ops_shapes.OPS,
    *_ops_indexing.OPS,
    *_ops_linalg.OPS,
    *_ops_nn.OPS,
]
assert len({op.name for op in OPS}) == len(OPS), "names are test ids: each must be there once"

DIFFERENTIABLE = [op for op in OPS if op.differentiable and op.real_positions]


def _each(ops):
    return pytest.mark.parametrize("op", ops, ids=lambda op: op.name)


every_op = _each(OPS)
every_reverse_op = _each([op for op in DIFFERENTIABLE if op.reverse])
every_forward_op = _each([op for op in DIFFERENTIABLE if op.forward])
