"""Fused attention under vmap and jvp."""

import pytest
import torch
import torch.nn.functional as F
from _attention import attend
from _attention_cases import (
    CASES,
    SOME,
    Autograd,
    Functx,
    like,
    loop,
    loss_of,
    written_jvp,
)
from _reference import assert_equal_trees, autograd_grad
from torch.testing import assert_close

import functx

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")

# Which of three primals and three tangents are batched.
BATCHED = [
    (True,) * 6,
    (False,) * 3 + (True,) * 3,
    (False, False, False, True, False, False),
    (False, False, False, False, False, True),
    (True, False, False, False, False, True),
    (False, True, False, True, False, False),
]


def examples(args, batched, count=3):
    return [
        torch.stack([x + i for i in range(count)]) if b else x
        for x, b in zip(args, batched, strict=True)
    ]


@pytest.mark.parametrize("batched", BATCHED, ids=lambda b: "".join("uB"[each] for each in b))
@pytest.mark.parametrize("case", [*SOME, CASES[11], CASES[12]], ids=str)
def test_vmap(case, batched):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    args = examples((*primals, *like(primals)), batched)
    dims = tuple(0 if b else None for b in batched)

    def of_tangent(f, jvp):
        return lambda *a: jvp(f, a[:3], a[3:])

    def of_gradient(f, grad, jvp):
        return lambda *a: jvp(grad(loss_of(f)), a[:3], a[3:])

    actual = functx.vmap(of_tangent(fused, Functx.jvp), dims)(*args)
    assert_close(actual, loop(of_tangent(written, written_jvp), batched, args).detach())
    actual = functx.vmap(of_gradient(fused, functx.grad, Functx.jvp), dims)(*args)
    expected = loop(of_gradient(written, Autograd.grad, written_jvp), batched, args)
    assert_close(actual, expected.detach())
    # The tape of grad is on the batched tensors, and below them.
    gradient = functx.grad(loss_of(of_tangent(fused, Functx.jvp)), argnums=tuple(range(6)))
    expected = loop(
        lambda *a: autograd_grad(loss_of(of_tangent(written, written_jvp)), *a), batched, args
    )
    assert_equal_trees(functx.vmap(gradient, dims)(*args), expected)
    batch = functx.vmap(of_tangent(fused, Functx.jvp), dims)
    expected = autograd_grad(
        lambda *a: loop(of_tangent(written, written_jvp), batched, a).sin().sum(), *args
    )
    assert_equal_trees(functx.grad(loss_of(batch), argnums=tuple(range(6)))(*args), expected)


@pytest.mark.parametrize("inner", [0, 1], ids=["tangents of one", "tangents of both"])
def test_tangents_batched_at_two_levels(inner):
    q, k, v = CASES[0].inputs()
    ts, us = (torch.randn(n, *q.shape, dtype=torch.float64) for n in (2, 3))
    ws = torch.randn(3, *v.shape, dtype=torch.float64)

    def tangent(t, w):
        value = w if inner else torch.ones_like(v)
        return functx.jvp(F.scaled_dot_product_attention, (q, k, v), (t, k, value))[1]

    actual = functx.vmap(functx.vmap(tangent, (0, None)), (None, 0))(ts, ws)
    rows = [
        torch.stack(
            [
                written_jvp(attend, (q, k, v), (t, k, w if inner else torch.ones_like(v))).detach()
                for t in ts
            ]
        )
        for w in ws
    ]
    assert_close(actual, torch.stack(rows))
    actual = functx.vmap(functx.vmap(lambda t, u: tangent(t + u, v), (0, None)), (None, 0))(ts, us)
    rows = [torch.stack([tangent(t + u, v) for t in ts]) for u in us]
    assert_close(actual, torch.stack(rows))


@pytest.mark.parametrize("case", SOME, ids=str)
def test_jacobians_agree(case):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    query = primals[0][:1, :, :2]
    if case.mask is not None:
        pytest.skip("the mask is that of all queries")
    key, value = (x[:1] for x in primals[1:])
    forward = functx.jacfwd(lambda q: fused(q, key, value))(query)
    assert_close(
        forward, torch.autograd.functional.jacobian(lambda q: written(q, key, value), query)
    )
    hessian = functx.hessian(loss_of(lambda q: fused(q, key, value)))(query)
    expected = torch.autograd.functional.hessian(loss_of(lambda q: written(q, key, value)), query)
    assert_close(hessian, expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_inside_torch_func():
    """Its transforms know no operator of ours, and their tapes see what the tangent is made of."""
    q, k, v = CASES[0].inputs()
    many, tangent = torch.stack([q, q.flip(-1)]), torch.randn_like(q)

    def total(vmap, jvp, f):
        moved = vmap(lambda q: jvp(lambda q: f(q, k, v), (q,), (tangent,)))
        return lambda many: moved(many).sin().sum()

    def loop_over(f):
        return lambda many: torch.stack([f(q) for q in many])

    expected = autograd_grad(total(loop_over, written_jvp, attend), many)[0]
    for vmap in (functx.vmap, torch.func.vmap, loop_over):
        f = total(vmap, Functx.jvp, F.scaled_dot_product_attention)
        assert_close(torch.func.grad(f)(many), expected)
