"""Threads: levels belong to one, transforms run in several at once, backward may be on another."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from _reference import autograd_hessian, randn
from torch.testing import assert_close

import functx


@pytest.fixture(autouse=True)
def switch_threads_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def on_another_thread(f, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(f, *args).result(timeout=60)


def curve(x):
    return (x.sin() * x.prod()).sum()


WORKLOADS = {
    "vmap-grad": (functx.vmap(functx.grad(torch.sin)), torch.cos),
    "vmap-vmap": (lambda x: functx.vmap(functx.vmap(torch.sin))(x[None])[0], torch.sin),
    "jacfwd": (functx.jacfwd(torch.sin), lambda x: torch.diag(x.cos())),
    "hessian": (functx.hessian(curve), lambda x: autograd_hessian(curve, x)),
    "jvp": (lambda x: functx.jvp(torch.exp, (x,), (x,))[1], lambda x: x * x.exp()),
    "random": (
        lambda x: functx.vmap(lambda x: x + 0 * torch.rand(()), randomness="different")(x),
        lambda x: x,
    ),
}


@pytest.mark.parametrize("count", [2, 4])
def test_several_threads_at_once(count):
    """Every thread runs every workload, each starting with another one."""
    barrier = threading.Barrier(count)
    names = list(WORKLOADS)

    def work(start):
        generator = torch.Generator().manual_seed(start)
        barrier.wait(timeout=60)
        for step in range(60):
            transform, reference = WORKLOADS[names[(start + step) % len(names)]]
            x = torch.rand(3, dtype=torch.float64, generator=generator)
            assert_close(transform(x), reference(x))
            assert functx._C.level_depth() == 0
        return True

    with ThreadPoolExecutor(count) as pool:
        assert all(pool.map(work, range(count), timeout=120))


def test_levels_belong_to_one_thread():
    """While one thread is inside two transforms, another sees none of them."""
    inside, done = threading.Event(), threading.Event()
    depths = []

    def f(x):
        depths.append(functx._C.level_depth())
        inside.set()
        assert done.wait(timeout=60)
        return x.sin()

    x = randn(3)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(functx.vmap(functx.grad(f)), x)
        assert inside.wait(timeout=60)
        depths.append(functx._C.level_depth())
        assert_close(functx.jvp(torch.sin, (x,), (x,))[1], x * x.cos())
        assert torch.rand(2).shape == (2,)  # no vmap forbids it here
        done.set()
        assert_close(future.result(timeout=60), x.cos())
    assert depths == [2, 0]


def test_interleaved_levels_of_two_threads():
    """Levels are entered a, b and left a, b: not in the order of one stack."""
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    x = randn(3)

    def first(x):
        first_in.set()
        assert second_in.wait(timeout=60)
        return x.sin()

    def second(x):
        second_in.set()
        assert first_out.wait(timeout=60)
        return x.cos()

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(functx.vmap(first), x)
        assert first_in.wait(timeout=60)
        two = pool.submit(functx.vmap(second), x)
        assert_close(one.result(timeout=60), x.sin())
        first_out.set()
        assert_close(two.result(timeout=60), x.cos())


def test_backward_on_another_thread():
    x, weight = randn(4, 3), randn(3).requires_grad_()

    def f(x):
        return (weight * x).sin().sum()

    results = [
        functx.vmap(f)(x).sum(),
        functx.vmap(functx.grad(f))(x).square().sum(),
        functx.jvp(functx.vmap(f), (x,), (x,))[1].sum(),
        functx.hessian(f)(x[0]).square().sum(),
    ]
    for result in results:
        (here,) = torch.autograd.grad(result, weight, retain_graph=True)
        (there,) = on_another_thread(lambda r=result: torch.autograd.grad(r, weight))
        assert_close(there, here)


def test_a_pullback_on_another_thread():
    x, cotangent = randn(3), randn(3)
    _, pullback = functx.vjp(lambda x: x.sin() * x.sum(), x)
    (expected,) = pullback(cotangent)
    assert_close(on_another_thread(pullback, cotangent)[0], expected)
    batched = on_another_thread(functx.vmap(pullback), cotangent[None])
    assert_close(batched[0][0], expected)


def test_a_pullback_made_on_another_thread():
    x, cotangent = randn(3), randn(3)
    _, pullback = on_another_thread(functx.vjp, torch.sin, x)
    assert_close(pullback(cotangent)[0], cotangent * x.cos())


def test_backward_on_a_thread_while_inside_a_transform():
    """The engine runs on a thread without levels; batched gradients still follow the rules."""
    x = randn(4, 3)

    def f(x):
        _, pullback = functx.vjp(lambda x: x.sin() * x.sum(), x)
        return on_another_thread(pullback, torch.ones_like(x))[0]

    expected = torch.stack([r.cos() * r.sum() + r.sin().sum() for r in x])
    assert_close(functx.vmap(f)(x), expected)


def test_grad_mode_of_another_thread_is_its_own():
    x = randn(3)

    def f(x):
        assert on_another_thread(torch.is_grad_enabled)
        return x.sum()

    with torch.no_grad():
        functx.grad(f)(x)
    assert on_another_thread(torch.is_grad_enabled)


def test_an_exception_on_one_thread_leaves_the_other_alone():
    x = randn(3)

    def fail(x):
        raise KeyError

    def f(x):
        with pytest.raises(KeyError):
            on_another_thread(functx.vmap(functx.grad(fail)), torch.ones(2))
        return x.sin()

    assert_close(functx.grad(lambda x: functx.vmap(f)(x).sum())(x), x.cos())
