"""Nothing is left on the stack of levels: whatever raises, wherever it does."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from _reference import randn
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import functx


class Interrupt(BaseException):
    """As KeyboardInterrupt, which a test runner would take for its own."""


def scalar(x):
    return x.sin().sum()


def on_another_thread(f, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(f, *args).result(timeout=60)


CALLS = {
    "vmap": lambda x: functx.vmap(torch.sin)(x),
    "vmap of chunks": lambda x: functx.vmap(torch.sin, chunk_size=1)(x),
    "grad": lambda x: functx.grad(scalar)(x),
    "grad_and_value": lambda x: functx.grad_and_value(scalar)(x)[0],
    "vjp": lambda x: functx.vjp(torch.sin, x)[1](x)[0],
    "jvp": lambda x: functx.jvp(torch.sin, (x,), (x,))[1],
    "linearize": lambda x: functx.linearize(torch.sin, x)[1](x),
    "jacrev": lambda x: functx.jacrev(torch.sin)(x),
    "jacfwd": lambda x: functx.jacfwd(torch.sin)(x),
    "hessian": lambda x: functx.hessian(scalar)(x),
    "vmap-grad": lambda x: functx.vmap(functx.grad(torch.sin))(x),
    "jvp-grad": lambda x: functx.jvp(functx.grad(scalar), (x,), (x,))[1],
}


class EventCounter:
    """A trace function that raises at the event of number `fatal`."""

    def __init__(self, fatal):
        self.fatal = fatal
        self.count = 0

    def __call__(self, frame, event, argument):
        self.count += 1
        if self.count == self.fatal:
            raise Interrupt
        return self


def traced(call, x, fatal=None):
    counter = EventCounter(fatal)
    outside = sys.gettrace()
    sys.settrace(counter)
    try:
        call(x)
    except Interrupt:
        pass
    finally:
        sys.settrace(outside)
    return counter.count


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_anywhere(name):
    """At every line, call and return that Python runs for a transform."""
    call, x = CALLS[name], randn(2)
    call(x)
    for fatal in range(1, traced(call, x) + 1):
        traced(call, x, fatal)
        assert functx._C.level_depth() == 0, f"{name}: event {fatal}"
        assert torch.is_grad_enabled()
    torch.rand(1)
    assert_close(functx.grad(scalar)(x), x.cos())


def test_a_buffer_is_let_go_when_an_exception_leaves():
    """A tracked value was written into an argument that is not differentiated."""

    def f(x, buffer):
        buffer.copy_(x * 2)
        raise KeyError

    for transform in (functx.grad(f), functx.jacrev(f), functx.grad_and_value(f)):
        buffer, x = torch.zeros(3), torch.ones(3)
        with pytest.raises(KeyError):
            transform(x, buffer)
        assert not buffer.requires_grad
        assert_close(buffer, 2 * x)
        buffer.add_(1)
        view = torch.zeros(2, 3)
        with pytest.raises(KeyError):
            transform(x, view[0])
        assert not view.requires_grad


def test_random_numbers_of_a_checkpoint_on_another_thread():
    """The levels around a pullback are those of where it was made."""
    x = randn(4, 3)
    seen = []

    def f(x):
        noise = torch.rand(3, dtype=x.dtype)
        seen.append(functx.debug_unwrap(noise).shape)
        return (x * noise).sin()

    def pulled_back(run):
        def rows(x):
            _, pullback = functx.vjp(lambda x: checkpoint(f, x, use_reentrant=False), x)
            return run(lambda: pullback(torch.ones_like(x))[0])

        torch.manual_seed(0)
        return functx.vmap(rows, randomness="different")(x)

    expected = pulled_back(lambda call: call())
    assert_close(pulled_back(on_another_thread), expected)
    assert set(seen) == {torch.Size([4, 3])}


def test_random_numbers_are_refused_on_another_thread_too():
    def f(x):
        return on_another_thread(functx.vjp(Drawing.apply, x)[1], x)[0]

    with pytest.raises(RuntimeError, match="randomness"):
        functx.vmap(f)(randn(4, 3))


class Drawing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.rand(3, dtype=gradient.dtype)


class Deep(torch.autograd.Function):
    """Its backward is a backward, again and again: at last on a thread of the engine's own."""

    @staticmethod
    def forward(ctx, x, depth, leaf):
        ctx.depth, ctx.leaf = depth, leaf
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.depth == 0:
            return gradient * ctx.leaf(gradient), None, None
        with torch.enable_grad():
            x = torch.ones_like(gradient).requires_grad_()
            y = Deep.apply(x, ctx.depth - 1, ctx.leaf)
        return torch.autograd.grad(y, x, gradient)[0], None, None


def test_levels_on_a_thread_of_the_engine():
    threads = set()

    def leaf(gradient):
        threads.add(threading.get_ident())
        return functx.debug_unwrap(torch.rand(3, dtype=gradient.dtype)).shape[0]

    x = randn(4, 3)
    for depth in (2, 70):
        result = functx.vmap(
            lambda x, depth=depth: functx.vjp(lambda x: Deep.apply(x, depth, leaf), x)[1](x)[0],
            randomness="different",
        )(x)
        assert_close(result, 4 * x)
    assert len(threads) == 2, "70 levels deep the engine takes another thread"


def test_another_thread_in_dual_level():
    """PyTorch's own forward mode has one level for all threads; operators without a rule use it."""
    stop = threading.Event()

    def enter_and_leave():
        while not stop.is_set():
            try:
                with forward_ad.dual_level():
                    pass
            except RuntimeError:
                pass  # ours was there first, and PyTorch has but one

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=enter_and_leave)
    thread.start()
    try:
        x = randn(5, 5)
        matrix = x @ x.mT + torch.eye(5, dtype=x.dtype)
        f = torch.linalg.matrix_exp
        expected = torch.autograd.functional.jvp(f, matrix, matrix)[1]
        for _ in range(300):
            assert_close(functx.jvp(f, (matrix,), (matrix,))[1], expected)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert functx._C.level_depth() == 0


def test_autocast_keeps_what_it_has_cast():
    """Its casts of the user's leaves are not thrown away with those of a tape that is done."""
    weight = torch.randn(3, 3).requires_grad_()
    x = torch.randn(3, 3)

    def cast_node():
        return (x @ weight).grad_fn.next_functions[1][0]

    with torch.autocast("cpu", torch.bfloat16):
        node = cast_node()
        functx.grad(lambda v: (v @ x).float().sum())(torch.randn(3, 3))
        functx.vmap(functx.grad(lambda v: (x @ v).float().sum()))(torch.randn(2, 3))
        assert cast_node() is node
