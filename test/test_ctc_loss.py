"""Derivatives of every order of the CTC loss, of whose gradient PyTorch has no derivative."""

import itertools

import pytest
import torch
from _reference import directional_derivative, loop_vmap, numeric_jacobian, randn
from torch.nn import functional as F
from torch.testing import assert_close

import functx

STEPS, CLASSES = 6, 4
# With a repeated label, a blank between labels, an empty target, and one as long as its input.
TARGETS = torch.tensor([[1, 1, 3], [2, 3, 0], [0, 0, 0], [1, 2, 3]])
TARGET_LENGTHS = torch.tensor([3, 2, 0, 3])
INPUT_LENGTHS = torch.tensor([6, 5, 4, 3])
JOINED = torch.cat([t[:n] for t, n in zip(TARGETS, TARGET_LENGTHS, strict=True)])


def as_lists(lengths):
    return tuple(lengths.tolist())


def as_tensors(lengths):
    return lengths


def loss(targets, how, reduction, **options):
    lengths = how(INPUT_LENGTHS), how(TARGET_LENGTHS)

    def f(scores):
        probabilities = scores.log_softmax(-1)
        return F.ctc_loss(probabilities, targets, *lengths, reduction=reduction, **options)

    return f


LOSSES = {
    f"{name}-{how.__name__}-{reduction}": loss(targets, how, reduction)
    for (name, targets), how, reduction in itertools.product(
        {"padded": TARGETS, "joined": JOINED}.items(),
        (as_lists, as_tensors),
        ("none", "mean", "sum"),
    )
}
each = pytest.mark.parametrize("f", LOSSES.values(), ids=LOSSES.keys())


def scores():
    return randn(STEPS, len(TARGETS), CLASSES)


def autograd_gradient(f):
    def gradient(x):
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(f(x).sum(), x)[0]

    return gradient


def gradient(f):
    return functx.grad(lambda x: f(x).sum())


@each
def test_jvp(f):
    x, t = scores(), scores()
    assert_close(functx.jvp(f, (x,), (t,)), (f(x), directional_derivative(f, (x,), (t,))))


@each
def test_jvp_of_a_constant_loss(f):
    """The loss is not that of the input, but computed where there are tangents."""
    x = scores()
    assert_close(functx.jvp(lambda y: y * f(x).sum(), (x,), (x,)), (x * f(x).sum(),) * 2)


@each
def test_second_derivatives(f):
    x, t = scores(), scores()
    expected = directional_derivative(autograd_gradient(f), (x,), (t,))
    assert_close(functx.jvp(gradient(f), (x,), (t,))[1], expected)
    along = functx.grad(lambda x: functx.jvp(f, (x,), (t,))[1].sum())
    assert_close(along(x), expected)
    slope = functx.jvp(lambda x: functx.jvp(f, (x,), (t,))[1], (x,), (t,))[1]
    assert_close(slope.sum(), (expected * t).sum())


def test_third_derivative():
    f = LOSSES["padded-as_lists-sum"]
    x, t = scores(), scores()

    def second(x):
        return directional_derivative(autograd_gradient(f), (x,), (t,), step=1e-2)

    by_functx = functx.jvp(lambda x: functx.jvp(gradient(f), (x,), (t,))[1], (x,), (t,))[1]
    expected = directional_derivative(second, (x,), (t,), step=1e-2)
    assert_close(by_functx, expected, rtol=1e-6, atol=1e-8)


@each
def test_under_vmap(f):
    x, t = torch.stack([scores(), scores()]), torch.stack([scores(), scores()])

    def forward(x, t):
        return functx.jvp(f, (x,), (t,))[1]

    def second(x, t):
        return functx.jvp(gradient(f), (x,), (t,))[1]

    for derivative in forward, second:
        assert_close(functx.vmap(derivative)(x, t), loop_vmap(derivative)(x, t))
    assert_close(
        functx.jvp(functx.vmap(f), (x,), (t,))[1], loop_vmap(forward)(x, t), rtol=1e-6, atol=1e-9
    )


def test_hessian():
    f = LOSSES["joined-as_tensors-mean"]
    x = scores()
    expected = numeric_jacobian(autograd_gradient(f), x)
    assert_close(functx.hessian(f)(x), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("how", [as_lists, as_tensors])
def test_a_target_that_is_too_long(how):
    """Its loss is infinite, or zero and constant if `zero_infinity` says so."""
    lengths = how(torch.tensor([2, 6, 6, 6])), how(TARGET_LENGTHS)

    def f(x):
        return F.ctc_loss(
            x.log_softmax(-1), TARGETS, *lengths, reduction="none", zero_infinity=True
        )

    x, t = scores(), scores()
    assert f(x)[0] == 0
    assert_close(functx.jvp(f, (x,), (t,))[1], directional_derivative(f, (x,), (t,)))
    expected = directional_derivative(autograd_gradient(f), (x,), (t,))
    assert not expected[:, 0].any()
    assert_close(functx.jvp(gradient(f), (x,), (t,))[1], expected)


def test_single_precision_and_many_steps():
    steps = 300
    f = lambda x: F.ctc_loss(x.log_softmax(-1), TARGETS, [steps] * 4, as_lists(TARGET_LENGTHS))
    x, t = torch.randn(2, steps, len(TARGETS), CLASSES)
    second = functx.jvp(gradient(f), (x,), (t,))[1]
    exact = functx.jvp(gradient(f), (x.double(),), (t.double(),))[1]
    assert second.isfinite().all()
    assert (second - exact).norm() < 1e-3 * exact.norm()


def test_one_sequence():
    f = lambda x: F.ctc_loss(x.log_softmax(-1), TARGETS[0], (STEPS,), (3,))
    x, t = randn(STEPS, CLASSES), randn(STEPS, CLASSES)
    assert_close(functx.jvp(f, (x,), (t,))[1], directional_derivative(f, (x,), (t,)))
    expected = directional_derivative(autograd_gradient(f), (x,), (t,))
    assert_close(functx.jvp(gradient(f), (x,), (t,))[1], expected)
