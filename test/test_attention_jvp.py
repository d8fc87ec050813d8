"""Fused attention under jvp, against differences and plain autograd of attention written out."""

import pytest
import torch
import torch.nn.functional as F
from _attention import attend
from _attention_cases import (
    CASES,
    INPUTS,
    MASKS,
    Functx,
    as_tuple,
    each_case,
    like,
    loop,
    loss_of,
    written_gradient_jvp,
    written_jvp,
)
from _reference import (
    assert_equal_trees,
    autograd_grad,
    autograd_vjp,
    detached,
    directional_derivative,
)
from torch.testing import assert_close

import functx

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")


@each_case
def test_tangent_is_the_derivative(case):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    tangents = like(primals)
    output, tangent = functx.jvp(fused, primals, tangents)
    assert torch.equal(output, fused(*primals)), "the primal is not that of the fused kernel"
    assert_close(tangent, directional_derivative(written, primals, tangents))


@pytest.mark.parametrize("position", INPUTS)
@each_case
def test_tangent_of_one_input(case, position):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    tangent = torch.randn_like(primals[position])

    def of_one(f):
        return lambda x: f(*primals[:position], x, *primals[position + 1 :])

    actual = functx.jvp(of_one(fused), (primals[position],), (tangent,))[1]
    expected = directional_derivative(of_one(written), (primals[position],), (tangent,))
    assert_close(actual, expected)


@each_case
def test_tangent_is_adjoint_to_the_gradient(case):
    """<u, J t> = <J^T u, t>, where J^T is the fused kernel's own backward."""
    fused, _ = case.fused_and_written()
    primals = case.inputs()
    tangents = like(primals)
    moved = functx.jvp(fused, primals, tangents)[1]
    cotangent = torch.randn_like(moved)
    pulled = autograd_vjp(fused, primals, cotangent)
    expected = sum((p * t).sum() for p, t in zip(pulled, tangents, strict=True))
    assert_close((cotangent * moved).sum(), expected)


@pytest.mark.parametrize("shape", [(5, 8), (3, 5, 8), (2, 2, 3, 5, 8)], ids=str)
def test_any_rank(shape):
    primals = tuple(torch.randn(shape, dtype=torch.float64) for _ in range(3))
    tangents = like(primals)
    f = F.scaled_dot_product_attention
    actual = functx.jvp(f, primals, tangents)[1]
    assert_close(actual, directional_derivative(attend, primals, tangents))
    gradient = functx.grad(loss_of(f))
    expected = directional_derivative(
        lambda *x: autograd_grad(loss_of(attend), *x)[0], primals, tangents
    )
    assert_close(functx.jvp(gradient, primals, tangents)[1], expected)


def test_broadcast_items_and_another_width_of_values():
    shapes = (1, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4)
    primals = tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)
    tangents = like(primals)
    actual = functx.jvp(F.scaled_dot_product_attention, primals, tangents)[1]
    assert_close(actual, directional_derivative(attend, primals, tangents))


ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}


@pytest.mark.parametrize("length", [6, 300])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_precision(dtype, length):
    """Of results of the size of one; a half's are no less precise than its rounding."""
    primals = tuple(torch.randn(2, 3, length, 8).to(dtype) for _ in range(3))
    tangents = tuple(x.to(dtype) for x in like(primals))
    exact, exact_tangents = (tuple(x.double() for x in xs) for xs in (primals, tangents))
    atol = ROUNDING[dtype]

    def gradient(f):
        return functx.grad(loss_of(f), argnums=INPUTS)

    def tangent_gradient(f):
        return functx.grad(
            lambda *x: functx.jvp(f, x, tuple(t.to(x[0]) for t in tangents))[1].sin().sum(),
            argnums=INPUTS,
        )

    fused = F.scaled_dot_product_attention
    for actual, expected in (
        (functx.jvp(fused, primals, tangents)[1], written_jvp(attend, exact, exact_tangents)),
        (
            functx.jvp(gradient(fused), primals, tangents)[1],
            written_gradient_jvp(attend, exact, exact_tangents),
        ),
        (
            tangent_gradient(fused)(*primals),
            autograd_grad(lambda *x: written_jvp(attend, x, exact_tangents).sin().sum(), *exact),
        ),
    ):
        for a, e in zip(as_tuple(actual), as_tuple(detached(expected)), strict=True):
            assert a.dtype == dtype
            assert_close(a.double(), e, rtol=atol, atol=atol * e.abs().max().item())


@pytest.mark.parametrize("shape", MASKS, ids=str)
def test_tangent_and_gradient_of_the_mask(shape):
    q, k, v = CASES[0].inputs()
    mask = torch.randn(shape, dtype=torch.float64)
    args = (q, mask)
    tangents = like(args)

    def of(f):
        return lambda q, mask: f(q, k, v, mask)

    fused, written = of(F.scaled_dot_product_attention), of(attend)
    moved = functx.jvp(fused, args, tangents)[1]
    assert_close(moved, directional_derivative(written, args, tangents))
    both = functx.jvp(functx.grad(loss_of(fused), argnums=(0, 1)), args, tangents)[1]
    assert_equal_trees(both, written_gradient_jvp(written, args, tangents))
    first = functx.jvp(functx.grad(loss_of(fused)), args, tangents)[1]
    assert_close(first, both[0])

    def total(jvp, f):
        return lambda *args: jvp(f, args[:2], args[2:]).sin().sum()

    gradients = functx.grad(total(Functx.jvp, fused), argnums=(0, 1, 2, 3))(*args, *tangents)
    assert_equal_trees(gradients, autograd_grad(total(written_jvp, written), *args, *tangents))
    # Of the mask alone, which moves nothing.
    gradient = functx.grad(
        lambda m: Functx.jvp(lambda q: fused(q, m), (q,), tangents[:1]).sin().sum()
    )
    expected = autograd_grad(
        lambda m: written_jvp(lambda q: written(q, m), (q,), tangents[:1]).sin().sum(), mask
    )
    assert_close(gradient(mask), expected[0])


@pytest.mark.parametrize("shape", MASKS, ids=str)
def test_batched_masks(shape):
    q, k, v = CASES[0].inputs()
    masks, tangents = (torch.randn(3, *shape, dtype=torch.float64) for _ in range(2))

    def moved(jvp, f):
        return lambda mask, t: jvp(lambda m: f(q, k, v, m), (mask,), (t,))

    actual = functx.vmap(moved(Functx.jvp, F.scaled_dot_product_attention))(masks, tangents)
    expected = loop(moved(written_jvp, attend), (True, True), (masks, tangents))
    assert_close(actual, expected.detach())
    actual = functx.grad(
        loss_of(functx.vmap(moved(Functx.jvp, F.scaled_dot_product_attention))), argnums=(0, 1)
    )(masks, tangents)
    expected = autograd_grad(
        lambda *a: loop(moved(written_jvp, attend), (True, True), a).sin().sum(), masks, tangents
    )
    assert_equal_trees(actual, expected)


@pytest.mark.parametrize("is_bool", [True, False], ids=["bool", "float"])
def test_queries_that_see_no_key(is_bool):
    q, k, v = primals = CASES[0].inputs()
    seen = torch.rand(5, 7) > 0.3
    seen[:, 0] = True
    seen[2] = False
    mask = (
        seen if is_bool else torch.zeros(5, 7, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    )
    tangents = like(primals)

    def fused(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, mask)

    def written(q, k, v):
        return attend(q, k, v, mask)

    moved = functx.jvp(fused, primals, tangents)[1]
    assert (moved[:, :, 2] == 0).all()
    assert_close(moved, directional_derivative(written, primals, tangents))
    gradients = functx.grad(loss_of(fused), argnums=INPUTS)
    actual = functx.jvp(gradients, primals, tangents)[1]
    assert (actual[0][:, :, 2] == 0).all()
    assert_equal_trees(actual, written_gradient_jvp(written, primals, tangents))
    actual = functx.grad(lambda q: Functx.jvp(fused, (q, k, v), tangents).sin().sum())(q)
    expected = autograd_grad(lambda q: written_jvp(written, (q, k, v), tangents).sin().sum(), q)
    assert_close(actual, expected[0])
    # A tape sees the whole composition.
    third = functx.grad(
        lambda q: Functx.jvp(functx.grad(loss_of(fused)), (q, k, v), tangents).sum()
    )
    assert torch.isfinite(third(q)).all()


def test_dropout_is_refused_by_name():
    """On the CPU PyTorch composes attention with dropout, so the kernel is called itself."""
    x = torch.randn(1, 1, 4, 8)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with pytest.raises(RuntimeError, match=r"functx\.jvp: fused attention with dropout.*MATH"):
        functx.jvp(lambda q: kernel(q, x, x, 0.5)[0], (x,), (x,))
