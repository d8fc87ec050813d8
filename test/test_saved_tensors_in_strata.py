"""Saved-tensor hooks and checkpoints whose tape sits on wrappers, with tapes and tangents below.

A hook works on data. What autograd keeps apart from the data of a plain tensor, the value of a
wrapper must not lose either: else a second derivative is silently wrong.
"""

import functools

import pytest
import torch
from _closed_forms import CASES, square_of_sine
from _reference import autograd_grad, forward_ad_jvp, randn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing import assert_close
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    set_checkpoint_early_stop,
)

import functx


def with_hooks(pack, unpack=lambda packed: packed):
    def f(x):
        with saved_tensors_hooks(pack, unpack):
            return square_of_sine(x)

    return f


def saved_on_cpu(x):
    with save_on_cpu():
        return square_of_sine(x)


def without_early_stop(x):
    with set_checkpoint_early_stop(False):
        return checkpoint(square_of_sine, x, use_reentrant=False)


def nested_checkpoints(x):
    inner = functools.partial(checkpoint, torch.sin, use_reentrant=False)
    return checkpoint(lambda x: inner(x).square(), x, use_reentrant=False)


def keep_sine(context, operator, *args, **kwargs):
    is_sine = operator == torch.ops.aten.sin.default
    return CheckpointPolicy.MUST_SAVE if is_sine else CheckpointPolicy.PREFER_RECOMPUTE


def selective_checkpoint(x):
    contexts = functools.partial(create_selective_checkpoint_contexts, keep_sine)
    return checkpoint(square_of_sine, x, use_reentrant=False, context_fn=contexts)


VARIANTS = {
    "checkpoint": lambda x: checkpoint(square_of_sine, x, use_reentrant=False),
    "checkpoint-without-early-stop": without_early_stop,
    "nested-checkpoints": nested_checkpoints,
    "detach": with_hooks(lambda x: x.detach()),
    "detach-when-unpacked": with_hooks(lambda x: x, lambda x: x.detach()),
    "clone": with_hooks(lambda x: x.clone()),
    "other-dtype": with_hooks(lambda x: x.to(torch.complex128), lambda x: x.real),
    "boxed": with_hooks(lambda x: {"data": x.detach()}, lambda packed: packed["data"]),
    "save_on_cpu": saved_on_cpu,
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_every_composition(name, variant):
    x = randn(4, 3)
    assert_close(CASES[name].transform(VARIANTS[variant])(x), CASES[name].expected(x))


@pytest.mark.parametrize("name", [n for n in CASES if n.count("grad") < 2])
def test_selective_checkpoint(name):
    """It allows one backward pass, says PyTorch: so no gradients of gradients."""
    x = randn(4, 3)
    assert_close(CASES[name].transform(selective_checkpoint)(x), CASES[name].expected(x))


@pytest.mark.parametrize("name", CASES)
def test_hooks_outside_of_the_transforms(name):
    x = randn(4, 3)
    with saved_tensors_hooks(lambda x: x.detach(), lambda x: x):
        actual = CASES[name].transform(square_of_sine)(x)
    assert_close(actual, CASES[name].expected(x))


def logarithm(x):
    return x.log_()


def logarithm_by_a_view(x):
    x.view(-1).copy_(x.log().view(-1))
    return x


WRITES = [logarithm, logarithm_by_a_view]


def overwritten(write, pack):
    """exp saves its result, and log what it gets; the hooks have a copy of both."""

    def f(x):
        with saved_tensors_hooks(pack, lambda packed: packed):
            return write(x.sin().square().exp())

    return f


LINEARIZED = {
    "jacfwd-of-linearize": lambda f: functx.jacfwd(lambda x: pushed(f, x)),
    "jacrev-of-linearize": lambda f: functx.jacrev(lambda x: pushed(f, x)),
}


def pushed(f, x):
    return functx.linearize(f, x)[1](torch.ones_like(x)).sum()


def linearized_or_not(name, f, x):
    if name in LINEARIZED:
        return LINEARIZED[name](f)(x), 2 * (2 * x).cos()
    return CASES[name].transform(f)(x), CASES[name].expected(x)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", [*CASES, *LINEARIZED])
def test_overwritten_after_the_hook_copied_it(name, write):
    f, x = overwritten(write, lambda x: x.clone()), randn(4, 3)
    assert_close(*linearized_or_not(name, f, x))


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", [*CASES, *LINEARIZED])
def test_overwritten_after_the_hook_detached_it(name, write):
    """The copy has no tangent: that of the tensor is another now."""
    f, x = overwritten(write, lambda x: x.detach().clone()), randn(4, 3)
    try:
        actual, expected = linearized_or_not(name, f, x)
    except RuntimeError as error:
        assert "overwritten in place" in str(error)  # noqa: PT017 - it may be right as well
    else:
        assert_close(actual, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_backward_through_per_sample_gradients(variant):
    """The tape below is that of a plain .backward()."""
    x, weight = randn(4, 3), randn(3)

    def gradients(f, x, weight):
        return functx.vmap(functx.grad(lambda x: f(weight * x).sum()))(x)

    leaves = [t.clone().requires_grad_() for t in (x, weight)]
    gradients(VARIANTS[variant], *leaves).square().sum().backward()
    closed_form = lambda x, weight: (weight * (2 * weight * x).sin()).square().sum()
    assert_close(tuple(leaf.grad for leaf in leaves), autograd_grad(closed_form, x, weight))


@pytest.mark.parametrize("variant", VARIANTS)
def test_backward_through_linearize_of_what_vmap_captures(variant):
    """A copy of a plain tensor that a hook makes inside of vmap is a plain tensor to the tape."""
    x, point = randn(4, 3), randn(3).requires_grad_()

    def slope(x):
        f = lambda point: VARIANTS[variant](point) * x
        return functx.linearize(f, point)[1](torch.ones_like(point))

    result = functx.vmap(slope)(x)
    assert_close(result, (2 * point).sin() * x)
    assert_close(
        torch.autograd.grad(result.sum(), point)[0],
        (2 * (2 * point).cos() * x).sum(0),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_mode_of_pytorch_below(variant):
    x, tangent = randn(4, 3), randn(4, 3)
    gradients = functx.vmap(functx.grad(lambda x: VARIANTS[variant](x).sum()))
    _, actual = forward_ad_jvp(gradients, (x,), (tangent,))
    assert_close(actual, 2 * tangent * (2 * x).cos())


def test_the_data_is_not_kept_beside_what_the_hook_made_of_it():
    """What is kept is the place in the graph below, which saves its own tensors by the hooks."""
    storages = []

    def f(x):
        y = x.exp()
        storages.append(StorageWeakRef(functx.debug_unwrap(y).untyped_storage()))
        return y.sin().sum()

    x = randn(4, 3).requires_grad_()
    with saved_tensors_hooks(lambda x: x.to(torch.complex128), lambda x: x.real):
        gradients = functx.vmap(functx.grad(f))(x)
        assert storages[0].expired()
        assert_close(
            torch.autograd.grad(gradients.sum(), x)[0],
            autograd_grad(lambda x: (x.exp().cos() * x.exp()).sum(), x)[0],
        )


def test_hooks_of_the_compiler_are_left_alone():
    """It looks into them; so they must come out as they were put in."""
    pack = torch.fx.symbolic_trace(lambda x: x * 2)
    unpack = torch.fx.symbolic_trace(lambda x: x / 2)
    with saved_tensors_hooks(pack, unpack):
        assert torch._C._autograd._top_saved_tensors_default_hooks(True) == (pack, unpack)
