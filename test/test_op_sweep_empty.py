"""Every operator of PyTorch's `op_db` on batches of no examples, on examples of no elements and on
such of one.

Sweeps run in child processes, of which one that ends is a failure that names the operator.
FUNCTX_SWEEP_SAMPLES=n takes up to n samples of each operator, 0 all that there are.
"""

import os
import re

import pytest
from _derivative_exceptions import reason_to_refuse
from _op_db import ENTRIES
from _op_exceptions import REFUSED, Reason
from _op_sweep_empty import KINDS, Death, sweep_in_children

# Whose shape is a question of what the examples are: there are none to answer it.
OPEN = {"argwhere", "bincount", "masked_select", "nn.functional.one_hot", "nonzero"}
NO_DERIVATIVE = Reason(
    "PyTorch has none, or none by this argument",
    "derivative for .* is not implemented|has no derivative|has no forward-mode derivative",
)
RANDOM = Reason("hessian takes no randomness=", "randomness error mode")
STRIDES = Reason(
    "without elements, any strides count as contiguous, and a view as complex asks for more",
    "last dimension with stride 1",
)
# PyTorch's formulas leave the gradient out where there are no elements, or it is zero.
UNUSED = Reason("a gradient of None, for zero", "appears to not have been used in the graph")
UNUSED_BY_AUTOGRAD = {"fill", "histogram", "histogramdd", "linalg.householder_product", "ormqr"}
MEANT_FOR_ONE_SHAPE = Reason(
    "plain autograd's formula, on a bound with a dimension more than the tensor",
    "doesn't match the broadcast shape",
)

CHILDREN = 3
NAMES = sorted(name for name, op in ENTRIES.items() if op.dtypes)


def samples(count):
    return int(os.environ.get("FUNCTX_SWEEP_SAMPLES", count)) or None


def reasons_for(kind, name):
    yield NO_DERIVATIVE
    if reason := REFUSED.get(name) or reason_to_refuse(kind, name):
        yield reason
    if kind == "vjp(vmap)" and name in UNUSED_BY_AUTOGRAD:
        yield UNUSED
    if "hessian" in kind:
        yield RANDOM
    if kind == "vmap(vjp) of nothing" and name == "view_as_real":
        yield STRIDES
    if kind == "vjp(vmap)" and name == "clamp":
        yield MEANT_FOR_ONE_SHAPE


# Labels beyond the classes that are left: PyTorch's kernel reads behind the end.
WITHOUT_CHECK = {
    ("vmap of one", "nn.functional.ctc_loss"),
    ("vmap(vjp) of one", "nn.functional.ctc_loss"),
}


def complaints(results):
    for (kind, name), outcome in results.items():
        where = f"{kind} of {name}"
        if isinstance(outcome, Death):
            if outcome.in_functx:
                yield f"{where}: {outcome.signal}"
            continue
        if name in OPEN and "one" not in kind:
            continue
        yield from (f"{where}: {error}" for error in outcome.wrong)
        for error in outcome.errors:
            if not any(re.search(reason.message, error) for reason in reasons_for(kind, name)):
                yield f"{where}: {error}"


def check(kinds, limit):
    cases = [(kind, name) for kind in kinds for name in NAMES if (kind, name) not in WITHOUT_CHECK]
    assert not list(complaints(sweep_in_children(cases, limit)))


def test_vmap():
    check(["vmap"], 1)


# A child takes longer to begin than to sweep.
@pytest.mark.slow
@pytest.mark.parametrize("turn", range(CHILDREN))
def test_one_sample(turn):
    check(KINDS[1 + turn :: CHILDREN], samples(1))
