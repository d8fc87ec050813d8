"""Operators on lists of tensors that share memory: each reads what was written before it."""

import pytest
import torch
from _reference import loop_vmap, randn
from torch.testing import assert_close

import functx

PROGRAMS = {
    "a view": lambda a: torch._foreach_mul_([a, a[:1]], 0.5),
    "twice": lambda a: torch._foreach_add_([a, a], [a.clone(), a.clone()]),
    "scalars": lambda a: torch._foreach_mul_([a, a[1:], a], [2.0, 3.0, 5.0]),
    "a tensor": lambda a: torch._foreach_mul_([a[:2], a[1:]], torch.tensor(3.0, dtype=a.dtype)),
    "addcmul": lambda a: torch._foreach_addcmul_(
        [a, a[:1]], [a * 1, a[:1] * 1], [a * 1, a[:1] * 1]
    ),
    "apart": lambda a: torch._foreach_exp_([a[:1].clone(), a]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_lists_that_overlap(name):
    """By differences: PyTorch's own derivative does not know of the overlap."""

    def f(x):
        a = x.square()
        PROGRAMS[name](a)
        return a

    x, t = randn(3), randn(3)
    assert_close(functx.vmap(f)(torch.stack([x, t])), loop_vmap(f)(torch.stack([x, t])))
    step = 1e-6
    expected = (f(x + step * t) - f(x - step * t)) / (2 * step)
    primal, tangent = functx.jvp(f, (x,), (t,))
    assert_close(primal, f(x))
    assert_close(tangent, expected, rtol=1e-6, atol=1e-7)
    assert_close(functx.jacfwd(f)(x) @ t, expected, rtol=1e-6, atol=1e-7)
