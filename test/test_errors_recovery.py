"""Escaped tensors, and exceptions from inside: nothing stays behind, and the next call works."""

import pytest
import torch
from _reference import randn
from torch.testing import assert_close

import functx


class Boom(Exception):
    pass


def escaped_from(transform):
    """A tensor of a transform that has returned."""
    kept = []

    def f(x):
        kept.append(x * 2)
        return x.sum()

    transform(f)
    return kept[0]


WRAPPING = {
    "vmap": lambda f: functx.vmap(f)(randn(2, 3)),
    "jvp": lambda f: functx.jvp(f, (randn(3),), (randn(3),)),
    "jacfwd": lambda f: functx.jacfwd(f)(randn(3)),
    "vmap-grad": lambda f: functx.vmap(functx.grad(f))(randn(2, 3)),
}

USES = {
    "add": lambda x: x + 1,
    "sum": lambda x: x.sum(),
    "view": lambda x: x.view(-1),
    "matmul": lambda x: torch.eye(3, dtype=x.dtype) @ x,
    "in-place": lambda x: x.mul_(2),
    "out of a plain tensor": lambda x: torch.zeros(3, dtype=x.dtype).add(x),
    "clone": lambda x: x.clone(),
    "vmap": lambda x: functx.vmap(lambda y: x + y)(randn(2, 3)),
    "jvp": lambda x: functx.jvp(lambda y: x * y, (randn(3),), (randn(3),)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", WRAPPING)
def test_using_an_escaped_tensor(name, use):
    escaped = escaped_from(WRAPPING[name])
    with pytest.raises(RuntimeError, match="escaped") as info:
        USES[use](escaped)
    assert "jvp" in str(info.value) or "vmap" in str(info.value)
    assert functx._C.level_depth() == 0


def test_an_escaped_tensor_can_still_be_printed_and_dropped():
    for transform in WRAPPING.values():
        escaped = escaped_from(transform)
        assert isinstance(repr(escaped), str)
        assert escaped.shape == (3,)
        del escaped


def test_a_tensor_of_an_inner_vmap_escapes_into_the_outer_function():
    def outer(x):
        escaped = escaped_from(lambda f: functx.vmap(f)(torch.stack([x, x])))
        return escaped + x

    with pytest.raises(RuntimeError, match="escaped"):
        functx.vmap(outer)(randn(2, 3))


def test_a_tensor_that_escapes_from_grad_is_an_ordinary_tensor():
    kept = []

    def f(x):
        kept.append(x * 2)
        return x.sum()

    x = randn(3)
    functx.grad(f)(x)
    assert_close(kept[0].detach() + 1, 2 * x + 1)


def fail(*args):
    raise Boom


def fail_in_an_operator(x, *args):
    return x @ x.new_ones(17)


def example(*shape):  # no random numbers: these also run inside a vmap
    return torch.ones(shape, dtype=torch.float64)


ENTRIES = {
    "vmap": lambda f: functx.vmap(f)(example(3, 4)),
    "grad": lambda f: functx.grad(f)(example(4)),
    "grad_and_value": lambda f: functx.grad_and_value(f)(example(4)),
    "vjp": lambda f: functx.vjp(f, example(4)),
    "jvp": lambda f: functx.jvp(f, (example(4),), (example(4),)),
    "jacrev": lambda f: functx.jacrev(f)(example(4)),
    "jacfwd": lambda f: functx.jacfwd(f)(example(4)),
    "hessian": lambda f: functx.hessian(f)(example(4)),
    "vmap-grad": lambda f: functx.vmap(functx.grad(f))(example(3, 4)),
    "vmap-vmap-vmap": lambda f: functx.vmap(functx.vmap(functx.vmap(f)))(example(3, 4, 5, 2)),
    "jvp-vmap-grad": lambda f: functx.jvp(
        functx.vmap(functx.grad(f)), (example(3, 4),), (example(3, 4),)
    ),
}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize(
    ("f", "error"), [(fail, Boom), (fail_in_an_operator, RuntimeError)], ids=["raise", "operator"]
)
def test_exceptions_pass_through(name, f, error):
    with pytest.raises(error):
        ENTRIES[name](f)
    assert functx._C.level_depth() == 0
    assert torch.is_grad_enabled()
    x = randn(3)
    assert_close(functx.vmap(functx.grad(torch.sin))(x), x.cos())
    assert_close(functx.jacfwd(torch.sin)(x), torch.diag(x.cos()))


@pytest.mark.parametrize("name", ENTRIES)
def test_an_exception_caught_inside_an_outer_transform(name):
    """The inner transform fails, the outer one goes on, with its own level on top."""

    def f(x):
        depth = functx._C.level_depth()
        with pytest.raises(Boom):
            ENTRIES[name](fail)
        assert functx._C.level_depth() == depth
        return x.sin().sum()

    x = randn(3, 2)
    assert_close(functx.vmap(functx.grad(f))(x), x.cos())
    assert_close(functx.jvp(f, (x,), (x,))[1], (x * x.cos()).sum())


def test_an_exception_in_backward():
    class FailsInBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            raise Boom

    for transform in (functx.grad, lambda f: functx.vmap(functx.grad(f))):
        with pytest.raises(Boom):
            transform(lambda x: FailsInBackward.apply(x).sum())(randn(2, 3))
        assert functx._C.level_depth() == 0
    _, pullback = functx.vjp(FailsInBackward.apply, randn(3))
    with pytest.raises(Boom):
        pullback(randn(3))
    x = randn()
    assert_close(functx.grad(torch.sin)(x), x.cos())


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exceptions_that_are_not_errors(exception):
    def f(x):
        raise exception

    with pytest.raises(exception):
        functx.vmap(functx.grad(f))(randn(2, 3))
    assert functx._C.level_depth() == 0
