"""Fused attention under jvp, against differences and plain autograd of attention written out."""

from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from _attention import ACCELERATORS, accelerator_kernels_on_cpu, attend
from _reference import (
    assert_equal_trees,
    autograd_grad,
    autograd_vjp,
    detached,
    directional_derivative,
)
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

import functx
from benchmarks.memory import peak_bytes

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")

INPUTS = (0, 1, 2)


@dataclass(frozen=True)
class Case:
    """Sizes of query and key [N, heads, length, width], and what decides about the scores."""

    name: str
    query: tuple = (2, 3, 5, 8)
    key: tuple = (2, 3, 7, 8)
    mask: tuple | None = None
    dtype: torch.dtype = torch.float64  # of the mask
    options: dict = field(default_factory=dict)

    def __str__(self):
        return self.name

    def inputs(self):
        torch.manual_seed(0)
        shapes = (self.query, self.key, self.key)
        return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)

    def make_mask(self):
        if self.mask is None:
            return None
        mask = torch.randn(self.mask, dtype=torch.float64)
        return mask > -0.5 if self.dtype == torch.bool else mask

    def fused_and_written(self):
        mask = self.make_mask()
        gqa = {"enable_gqa": True} if self.query[1] != self.key[1] else {}

        def fused(q, k, v):
            return F.scaled_dot_product_attention(q, k, v, mask, **self.options, **gqa)

        return fused, lambda q, k, v: attend(q, k, v, mask, **self.options)


CAUSAL = {"is_causal": True}
# With one thread, the score matrix of those with several hundred queries is several blocks.
CASES = [
    Case("plain"),
    Case("scale", options={"scale": 0.3}),
    Case("causal", options=CAUSAL),
    Case("causal, more queries", query=(2, 3, 9, 8), options=CAUSAL),
    Case("mask", mask=(5, 7)),
    Case("mask per item", mask=(2, 1, 5, 7)),
    Case("mask of keys", mask=(2, 1, 1, 7)),
    Case("mask per head", mask=(1, 3, 5, 7)),
    Case("bool mask", mask=(5, 7), dtype=torch.bool),
    Case("groups of heads", query=(2, 6, 5, 8), key=(2, 2, 7, 8)),
    Case("one query", query=(2, 3, 1, 8)),
    Case("blocks", query=(1, 2, 270, 4), key=(1, 2, 260, 4)),
    Case("blocks, causal", query=(1, 2, 260, 4), key=(1, 2, 260, 4), options=CAUSAL),
    Case("blocks, causal, more keys", query=(1, 2, 260, 4), key=(1, 2, 400, 4), options=CAUSAL),
    Case("blocks, causal, more queries", query=(1, 2, 400, 4), key=(1, 2, 260, 4), options=CAUSAL),
    Case("blocks, mask", query=(1, 2, 270, 4), key=(1, 2, 260, 4), mask=(2, 270, 260)),
    Case("blocks of heads", query=(3, 7, 70, 4), key=(3, 7, 130, 4), mask=(3, 1, 1, 130)),
]
SMALL = [case for case in CASES if not case.name.startswith("blocks")]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_small_case = pytest.mark.parametrize("case", SMALL, ids=str)


def like(tensors):
    return tuple(torch.randn_like(x) for x in tensors)


def loss_of(f):
    """Neither linear nor the same for all outputs."""
    return lambda *args: f(*args).sin().sum()


def written_jvp(f, primals, tangents):
    """By plain autograd: J^T u is linear in u, and its derivative by u along a tangent is J t."""
    probe = torch.zeros_like(f(*primals)).requires_grad_()
    primals = [x if x.requires_grad else x.detach().requires_grad_() for x in primals]
    pulled = torch.autograd.grad(f(*primals), primals, probe, create_graph=True)
    return torch.autograd.grad(pulled, probe, tangents, create_graph=True)[0]


# ---- first order -------------------------------------------------------------------------------


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


def as_tuple(tree):
    return tree if isinstance(tree, tuple) else (tree,)


def written_gradient_jvp(f, primals, tangents):
    return directional_derivative(lambda *x: autograd_grad(loss_of(f), *x), primals, tangents)


# ---- higher orders -----------------------------------------------------------------------------


@each_case
def test_forward_over_reverse(case):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    tangents = like(primals)
    gradient = functx.grad(loss_of(fused), argnums=INPUTS)
    actual = functx.jvp(gradient, primals, tangents)[1]
    assert_equal_trees(actual, written_gradient_jvp(written, primals, tangents))


@pytest.mark.parametrize("position", INPUTS)
@each_small_case
def test_forward_over_reverse_in_one_input(case, position):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    x, tangent = primals[position], torch.randn_like(primals[position])

    def of_one(f):
        return loss_of(lambda x: f(*primals[:position], x, *primals[position + 1 :]))

    actual = functx.jvp(functx.grad(of_one(fused)), (x,), (tangent,))[1]
    expected = directional_derivative(
        lambda x: autograd_grad(of_one(written), x)[0], (x,), (tangent,)
    )
    assert_close(actual, expected)


@each_small_case
def test_tangent_of_the_cotangent_only(case):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    output, pullback = functx.vjp(fused, *primals)
    cotangent, tangent = torch.randn_like(output), torch.randn_like(output)
    actual = functx.jvp(lambda u: functx.vjp(fused, *primals)[1](u), (cotangent,), (tangent,))[1]
    assert_equal_trees(actual, autograd_vjp(written, primals, tangent))
    assert_equal_trees(
        functx.jvp(pullback, (cotangent,), (tangent,))[1], autograd_vjp(written, primals, tangent)
    )


@each_case
def test_reverse_over_forward(case):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    args = (*primals, *like(primals))

    def total(jvp, f):
        return lambda *args: jvp(f, args[:3], args[3:]).sin().sum()

    actual = functx.grad(total(lambda *a: functx.jvp(*a)[1], fused), argnums=tuple(range(6)))(*args)
    assert_equal_trees(actual, autograd_grad(total(written_jvp, written), *args))


@each_small_case
def test_forward_over_forward(case):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    inner, outer = like(primals), like(primals)
    actual = functx.jvp(lambda *x: functx.jvp(fused, x, inner)[1], primals, outer)[1]
    expected = directional_derivative(
        lambda *x: written_jvp(written, x, inner).detach(), primals, outer
    )
    assert_close(actual, expected)


def third_orders(api):
    """Scalar functions of query, key and value, to be differentiated in reverse or forward."""

    def jvp(f, primals, tangents):
        return api.jvp(f, primals, tangents)

    def gradient_of_tangent(f):
        return lambda *x: api.grad(lambda *y: jvp(f, y, y).sin().sum())(*x)

    def tangent_of_gradient(f):
        return lambda *x: jvp(api.grad(loss_of(f)), x, x)

    def tangent_of_tangent(f):
        return lambda *x: jvp(lambda *y: jvp(f, y, y), x, x)

    return gradient_of_tangent, tangent_of_gradient, tangent_of_tangent


class Functx:
    """functx, with a jvp that returns the tangent only."""

    grad = staticmethod(functx.grad)

    @staticmethod
    def jvp(f, primals, tangents):
        return functx.jvp(f, primals, tangents)[1]


class Autograd:
    """The same by plain autograd."""

    jvp = staticmethod(written_jvp)

    @staticmethod
    def grad(f):
        def gradient(*args):
            args = [x if x.requires_grad else x.detach().requires_grad_() for x in args]
            return torch.autograd.grad(f(*args), args[0], create_graph=True)[0]

        return gradient


SOME = [case for case in SMALL if case.name in ("plain", "causal", "bool mask", "groups of heads")]


@pytest.mark.parametrize("order", range(3), ids=["grad jvp", "jvp grad", "jvp jvp"])
@pytest.mark.parametrize("case", SOME, ids=str)
def test_third_order(case, order):
    fused, written = case.fused_and_written()
    primals = case.inputs()
    ours, theirs = third_orders(Functx)[order](fused), third_orders(Autograd)[order](written)
    actual = functx.grad(loss_of(ours), argnums=INPUTS)(*primals)
    assert_equal_trees(actual, autograd_grad(loss_of(theirs), *primals))
    tangents = like(primals)
    actual = functx.jvp(ours, primals, tangents)[1]
    expected = directional_derivative(lambda *x: theirs(*x).detach(), primals, tangents)
    assert_close(actual, expected)


@pytest.mark.parametrize("case", SOME, ids=str)
def test_reverse_over_reverse_through_vmap(case):
    """The gradients that vmap's rule returns can be differentiated again."""
    fused, written = case.fused_and_written()
    primals = tuple(torch.stack([x, x.flip(-1)]) for x in case.inputs())

    def total(vmap, grad, f):
        return lambda *x: sum(g.sin().sum() for g in vmap(grad(loss_of(f)))(*x))

    def gradients(f):
        return functx.grad(f, argnums=INPUTS)

    def written_gradients(f):
        def gradient(*args):
            return torch.autograd.grad(f(*args), args, create_graph=True)

        return gradient

    def loop(f):
        return lambda *x: [
            g for args in zip(*x, strict=True) for g in f(*(a.clone() for a in args))
        ]

    actual = functx.grad(total(functx.vmap, gradients, fused), argnums=INPUTS)(*primals)
    assert_equal_trees(actual, autograd_grad(total(loop, written_gradients, written), *primals))


# ---- vmap --------------------------------------------------------------------------------------

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


def loop(f, batched, args):
    count = next(len(x) for x, b in zip(args, batched, strict=True) if b)
    results = [
        as_tuple(f(*(x[i] if b else x for x, b in zip(args, batched, strict=True))))
        for i in range(count)
    ]
    stacked = tuple(torch.stack(each) for each in zip(*results, strict=True))
    return stacked if len(stacked) > 1 else stacked[0]


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


# ---- masks -------------------------------------------------------------------------------------

MASKS = [(5, 7), (2, 1, 5, 7), (1, 3, 1, 7), (2, 3, 5, 7)]


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


# ---- kernels of accelerators -------------------------------------------------------------------

OPTIONS = [
    {},
    {"scale": 0.3},
    {"is_causal": True},
    {"bias": (2, 4, 5, 5)},
    {"bias": (1, 1, 5, 5)},
    {"key": (2, 2, 5, 8)},
    {"key": (2, 4, 7, 8), "is_causal": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ", ".join(map(str, o)) or "plain")
@pytest.mark.parametrize("name", ACCELERATORS)
def test_kernels_of_accelerators(name, options):
    """Their operators, on the CPU, by stand-ins that return what they do."""
    options = dict(options)
    key = options.pop("key", (2, 4, 5, 8))
    bias = options.pop("bias", None)
    if bias is not None and name == "flash":
        pytest.skip("flash attention takes no bias")
    bias = None if bias is None else torch.randn(bias, dtype=torch.float64)
    case = Case(name, query=(2, 4, 5, 8), key=key)
    primals = case.inputs()
    tangents = like(primals)

    def fused(q, k, v):
        return ACCELERATORS[name](q, k, v, bias, **options)

    def written(q, k, v):
        return attend(q, k, v, bias, from_end=name == "flash", **options)

    def total(jvp, f):
        return lambda *args: jvp(f, args[:3], args[3:]).sin().sum()

    with accelerator_kernels_on_cpu():
        moved = functx.jvp(fused, primals, tangents)[1]
        assert_close(moved, directional_derivative(written, primals, tangents))
        gradients = functx.grad(loss_of(fused), argnums=INPUTS)
        assert_equal_trees(gradients(*primals), autograd_grad(loss_of(written), *primals))
        actual = functx.jvp(gradients, primals, tangents)[1]
        assert_equal_trees(actual, written_gradient_jvp(written, primals, tangents))
        args = (*primals, *tangents)
        actual = functx.grad(total(Functx.jvp, fused), argnums=tuple(range(6)))(*args)
        assert_equal_trees(actual, autograd_grad(total(written_jvp, written), *args))
        args = tuple(torch.stack([x, x.flip(-1)]) for x in args)
        actual = functx.vmap(lambda *a: Functx.jvp(fused, a[:3], a[3:]))(*args)
        expected = loop(lambda *a: written_jvp(written, a[:3], a[3:]), (True,) * 6, args)
        assert_close(actual, expected.detach())
        actual = functx.grad(loss_of(functx.vmap(functx.grad(loss_of(fused)))))(*args[:3])
        expected = autograd_grad(
            lambda *a: loop(Autograd.grad(loss_of(written)), (True,) * 3, a).sin().sum(), *args[:3]
        )
        assert_close(actual, expected[0])


@pytest.mark.parametrize("shape", MASKS[1:], ids=str)
@pytest.mark.parametrize("name", ["efficient", "overrideable"])
def test_gradient_of_a_bias_that_kernels_have(name, shape):
    q, k, v = CASES[0].inputs()
    args = (q, torch.randn(shape, dtype=torch.float64))
    tangents = like(args)

    def fused(q, bias):
        return ACCELERATORS[name](q, k, v, bias)

    def written(q, bias):
        return attend(q, k, v, bias)

    def written_gradient(q, bias):
        return torch.autograd.grad(loss_of(written)(q, bias), bias, create_graph=True)[0]

    with accelerator_kernels_on_cpu():
        gradients = functx.grad(loss_of(fused), argnums=(0, 1))
        actual = functx.jvp(gradients, args, tangents)[1]
        assert_equal_trees(actual, written_gradient_jvp(written, args, tangents))
        gradient = functx.grad(loss_of(fused), argnums=1)
        third = functx.grad(loss_of(lambda *a: Functx.jvp(gradient, a, tangents)), argnums=(0, 1))
        expected = autograd_grad(
            loss_of(lambda *a: written_jvp(written_gradient, a, tangents)), *args
        )
        assert_equal_trees(third(*args), expected)


# ---- memory ------------------------------------------------------------------------------------

# With the length to look at: at 8192, the score matrix of one head is 256 MiB, query, key and value
# have half a MiB each.
COMPOSITIONS = {
    "jvp": (8192, lambda f, x: functx.jvp(f, x, x)),
    "jvp grad": (
        8192,
        lambda f, x: functx.jvp(functx.grad(loss_of(f), argnums=INPUTS), x, x),
    ),
    "grad jvp": (
        8192,
        lambda f, x: functx.grad(
            lambda *a: Functx.jvp(f, a[:3], a[3:]).sin().sum(), argnums=tuple(range(6))
        )(*x, *x),
    ),
    "jvp jvp": (4096, lambda f, x: functx.jvp(lambda *y: Functx.jvp(f, y, y), x, x)),
    "vmap jvp": (
        4096,
        lambda f, x: functx.vmap(lambda *a: functx.jvp(f, a, a))(*(y[None] for y in x)),
    ),
    "grad vmap grad": (
        4096,
        lambda f, x: functx.grad(lambda *a: functx.vmap(functx.grad(loss_of(f)))(*a).sin().sum())(
            *(y[None] for y in x)
        ),
    ),
}


def attend_causally(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def peak_of(composition, f, length):
    """In score matrices of float32."""
    inputs = tuple(torch.randn(1, 1, length, 16) for _ in range(3))
    run = COMPOSITIONS[composition][1]
    return peak_bytes(lambda: run(f, inputs)) / (4 * length**2)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_memory_is_far_below_the_score_matrix(composition):
    length = COMPOSITIONS[composition][0]
    assert peak_of(composition, attend_causally, length) < (0.1 if length == 8192 else 0.25)


@pytest.mark.parametrize("composition", ["jvp", "jvp grad", "grad jvp"])
def test_the_reading_of_memory_sees_a_score_matrix(composition):
    def written(q, k, v):
        return attend(q, k, v, is_causal=True)

    assert peak_of(composition, written, 512) > 2


# ---- modules -----------------------------------------------------------------------------------

WIDTH, HEADS = 8, 2


def attention_layer(module, **options):
    def run(params, x):
        return functional_call(module, params, (x, x, x), options)[0]

    return run


def encoder_layer(module, **options):
    return lambda params, x: functional_call(module, params, (x,), options)


MODULES = {
    "attention": (
        lambda: nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64),
        attention_layer,
        [
            {"need_weights": False},
            {"need_weights": True},
            {"need_weights": True, "average_attn_weights": False},
            {"need_weights": False, "key_padding_mask": True},
            {"need_weights": True, "key_padding_mask": True, "attn_mask": True},
            {"need_weights": False, "attn_mask": True},
        ],
    ),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(
            WIDTH, HEADS, 16, dropout=0.0, batch_first=True, dtype=torch.float64
        ),
        encoder_layer,
        [{}, {"src_key_padding_mask": True}, {"src_mask": True}],
    ),
    "encoder, norm first": (
        lambda: nn.TransformerEncoderLayer(
            WIDTH,
            HEADS,
            16,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            dtype=torch.float64,
        ),
        encoder_layer,
        [{}],
    ),
}
RUNS = [(name, options) for name, (_, _, runs) in MODULES.items() for options in runs]


def with_masks(options, length):
    padding = torch.zeros(2, length, dtype=torch.bool)
    padding[1, -2:] = True
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    return {
        name: (padding if "padding" in name else future) if name.endswith("mask") else value
        for name, value in options.items()
    }


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "options"), RUNS, ids=str)
def test_modules(name, options, training):
    """In eval mode PyTorch runs operators of their own for these, which have no derivatives."""
    torch.manual_seed(0)
    build, runner, _ = MODULES[name]
    module = build().train(training)
    params = {name: p.detach() for name, p in module.named_parameters()}
    names = list(params)
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    run = runner(module, **with_masks(options, x.shape[1]))

    def f(x, *values):
        return run(dict(zip(names, values, strict=True)), x)

    args = (x, *params.values())
    # Small, so that differences do not step over a kink of relu.
    tangents = tuple(0.01 * t for t in like(args))

    def gradients(*args):
        return functx.grad(loss_of(f), argnums=tuple(range(len(args))))(*args)

    # Plain calls of the same module: of what PyTorch chooses, in plain double precision.
    moved = functx.jvp(f, args, tangents)
    assert_close(moved[0], f(*args))
    assert_close(moved[1], directional_derivative(f, args, tangents))
    actual = functx.jvp(gradients, args, tangents)[1]
    assert_equal_trees(actual, written_gradient_jvp(f, args, tangents))
    many = torch.stack([x, x.flip(1)])
    actual = functx.vmap(lambda x: Functx.jvp(f, (x, *args[1:]), tangents))(many)
    expected = [directional_derivative(f, (y, *args[1:]), tangents) for y in many]
    assert_close(actual, torch.stack(expected))
    actual = functx.vmap(lambda x: f(x, *args[1:]))(many)
    assert_close(actual, torch.stack([f(y, *args[1:]) for y in many]))
    # Reverse over forward is the transpose of forward over reverse.
    actual = functx.grad(lambda *a: Functx.jvp(f, a, tangents).sum(), argnums=(0,))(*args)
    expected = directional_derivative(
        lambda *a: autograd_grad(lambda *b: f(*b).sum(), *a)[0], args, tangents
    )
    assert_close(actual[0], expected)
