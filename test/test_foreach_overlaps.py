"""Operators on lists of tensors that share memory: each reads what was written before it."""

import pytest
import torch
from _reference import forward_ad_jvp, loop_vmap, randn
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
    "copy": lambda a: torch._foreach_copy_([a[:2], a[1:]], [a[1:] * 2, a[:2] * 3]),
    "apart": lambda a: torch._foreach_exp_([a[:1].clone(), a]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_lists_that_overlap(name):
    def f(x):
        a = x.square()
        PROGRAMS[name](a)
        return a

    x, t = randn(3), randn(3)
    assert_close(functx.vmap(f)(torch.stack([x, t])), loop_vmap(f)(torch.stack([x, t])))
    # One at a time is what PyTorch does, in its own forward mode too.
    expected = torch.autograd.functional.jacobian(f, x) @ t
    assert_close(functx.jvp(f, (x,), (t,))[1], expected)
    assert_close(functx.jvp(f, (x,), (t,))[0], f(x))
    assert_close(functx.jacfwd(f)(x) @ t, expected)
    assert_close(forward_ad_jvp(f, (x,), (t,))[1], expected)
