"""Nothing is kept: a thousand calls of each transform leave memory and live tensors flat."""

import gc
import os
import warnings
import weakref

import pytest
import torch
from _reference import randn
from torch.autograd.graph import save_on_cpu
from torch.testing import assert_close

import functx

CALLS = 1000
SIZE = 4096  # float32: a call that kept one tensor would grow the process by 16 MB
ALLOWED_GROWTH = 6 * 2**20


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live_tensors():
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # isinstance on deprecated lazy objects
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def f(x):
    y = x.sin() * x
    y[:2] = x[:2].exp()
    return y.view(-1, 2).sum(1)


def total(x):
    return f(x).sum()


def fails(x):
    f(x)
    raise KeyError


def swallow(call):
    def quiet(x):
        with pytest.raises(KeyError):
            call(x)

    return quiet


def kept_pullback(x):
    _, pullback = functx.vjp(f, x)
    pullback(torch.ones(SIZE // 2))
    return functx.vmap(pullback)(torch.ones(1, SIZE // 2))


def offloaded(x):
    with save_on_cpu():
        return total(x)


def writes_and_fails(x, buffer):
    buffer.copy_(x * 2)
    raise KeyError


TRANSFORMS = {
    "vmap": lambda x: functx.vmap(f)(x.view(4, -1)),
    "vmap-vmap": lambda x: functx.vmap(functx.vmap(f))(x.view(2, 2, -1)),
    "grad": functx.grad(total),
    "grad_and_value": functx.grad_and_value(total),
    "vjp": kept_pullback,
    "jvp": lambda x: functx.jvp(f, (x,), (x,)),
    "jacrev": lambda x: functx.jacrev(lambda x: x[:2].sin())(x),
    "jacfwd": lambda x: functx.jacfwd(lambda s: x * s)(x[:2].view(2, 1)),
    "hessian": lambda x: functx.hessian(lambda y: (y.prod() * x[:1024]).sum())(x[:2]),
    "vmap-grad": lambda x: functx.vmap(functx.grad(total))(x.view(4, -1)),
    "grad-vmap": functx.grad(lambda x: functx.vmap(total)(x.view(4, -1)).sum()),
    "grad-grad": functx.grad(lambda x: functx.grad(total)(x).sum()),
    "jvp-grad": lambda x: functx.jvp(functx.grad(total), (x,), (x,)),
    "jvp-jvp": lambda x: functx.jvp(lambda x: functx.jvp(f, (x,), (x,))[1], (x,), (x,)),
    "vmap-hessian": lambda x: functx.vmap(functx.hessian(lambda y: (y.prod() * x[:1024]).sum()))(
        x[:4].view(2, 2)
    ),
    "save_on_cpu": lambda x: functx.vmap(functx.grad(offloaded))(x.view(4, -1)),
    "jvp of a saved output": lambda x: functx.jvp(
        lambda x: functx.vjp(torch.exp, x)[1](x)[0], (x,), (x,)
    ),
    "linearize of a saved output": lambda x: functx.linearize(
        lambda x: functx.grad(lambda x: x.tanh().exp().sum())(x), x
    )[1](x),
    "jvp of a dropped tape": lambda x: functx.jvp(
        lambda x: functx.vjp(torch.sigmoid, x)[0], (x,), (x,)
    ),
    "jvp-grad with aux": lambda x: functx.jvp(
        functx.grad(lambda x: (x.exp().sum(), x.sqrt()), has_aux=True), (x,), (x,), has_aux=True
    ),
    "error after a write": swallow(lambda x: functx.grad(writes_and_fails)(x, torch.zeros(SIZE))),
    "error in vmap": swallow(lambda x: functx.vmap(fails)(x.view(4, -1))),
    "error in grad": swallow(functx.grad(fails)),
    "error in jvp": swallow(lambda x: functx.jvp(fails, (x,), (x,))),
    "error in vmap-grad": swallow(lambda x: functx.vmap(functx.grad(fails))(x.view(4, -1))),
}

each = pytest.mark.parametrize("name", TRANSFORMS)


@pytest.mark.slow
@each
def test_memory_stays_flat(name):
    transform = TRANSFORMS[name]
    x = torch.linspace(-1, 1, SIZE)
    for _ in range(50):
        transform(x)
    tensors, before = live_tensors(), resident_bytes()
    for _ in range(CALLS):
        transform(x)
    assert live_tensors() <= tensors
    assert resident_bytes() - before < ALLOWED_GROWTH


@each
def test_no_reference_cycles(name):
    """What a call made is freed when its result is, without the garbage collector."""
    kept = []

    def remember(x):
        kept.append(weakref.ref(x))
        return x

    def run():
        x = torch.linspace(-1, 1, SIZE)
        kept.append(weakref.ref(x))
        TRANSFORMS[name](remember(x))

    gc.collect()
    gc.disable()
    try:
        run()
        assert all(reference() is None for reference in kept)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "call",
    [
        lambda f: functx.grad(f)(randn(2)),
        lambda f: functx.vmap(f)(randn(3, 2)),
        lambda f: functx.vmap(functx.grad(f))(randn(3, 2)),
        lambda f: functx.jvp(f, (randn(2),), (randn(2),)),
        lambda f: functx.hessian(f)(randn(2)),
    ],
    ids=["grad", "vmap", "vmap-grad", "jvp", "hessian"],
)
def test_intermediate_values_are_freed(call):
    """Wrappers and saved tensors of the function die with the call, not with its result."""
    kept = []

    def f(x):
        y = x.exp()
        z = y * y
        kept.extend([weakref.ref(x), weakref.ref(y), weakref.ref(z)])
        return z.sum()

    gc.collect()
    gc.disable()
    try:
        result = call(f)
        assert len(kept) == 3
        assert all(reference() is None for reference in kept)
    finally:
        gc.enable()
    del result


def test_a_dropped_pullback_frees_its_graph():
    kept = []

    class Big(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.marker = marker = torch.zeros(3)
            kept.append(weakref.ref(marker))
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2

    x = randn(3)
    output, pullback = functx.vjp(Big.apply, x)
    assert kept[0]() is not None
    assert_close(pullback(x)[0], 2 * x)
    del output, pullback
    gc.collect()
    assert kept[0]() is None


def test_the_result_does_not_keep_the_forward_graph_alive():
    """When nothing outside is tracked, gradients come without a graph of their own."""
    x = randn(3)
    gradient, value = functx.grad_and_value(total)(torch.randn(4))
    assert gradient.grad_fn is None
    assert value.grad_fn is None
    assert functx.vmap(functx.grad(torch.sin))(x).grad_fn is None
    output, pullback = functx.vjp(torch.sin, x)
    assert output.grad_fn is None
    assert pullback(x)[0].grad_fn is None
