"""Second and third derivatives of fused attention."""

import pytest
import torch
from _attention_cases import (
    INPUTS,
    SOME,
    Autograd,
    Functx,
    each_case,
    each_small_case,
    like,
    loss_of,
    written_gradient_jvp,
    written_jvp,
)
from _reference import assert_equal_trees, autograd_grad, autograd_vjp, directional_derivative
from torch.testing import assert_close

import functx

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")


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
