"""What an error says, in full, and that it comes at the right time and leaves nothing behind."""

import re
import textwrap

import torch
from expecttest import assert_expected_inline
from torch.testing import assert_close

import functx


def ones(*shape):
    return torch.ones(shape)


def zeros(*shape):
    return torch.zeros(shape)


def refuses(call, text, *, like_torch_func=True):
    """`call(functx, f)` raises an error before `f`, the function to transform, was called.

    `text` is the error as `shown`. `call(torch.func, f)` raises one of the same type, unless
    `like_torch_func` is False: then it accepts what we refuse, or fails by accident.
    """
    entered = []

    def f(*args, **kwargs):
        entered.append(args)
        return args[0]

    error = _raised_by(lambda: call(functx, f))
    assert not entered, f"the function was called before this came: {error}"
    _check_nothing_is_left()
    if like_torch_func:
        assert type(error) is type(_raised_by(lambda: call(torch.func, f)))
    assert_expected_inline(shown(error), text, skip=1)


def fails(call, text, *, like_torch_func=True):
    """`refuses` for an error that comes while the function runs, or after that."""
    error = _raised_by(lambda: call(functx))
    _check_nothing_is_left()
    if like_torch_func:
        assert type(error) is type(_raised_by(lambda: call(torch.func)))
    assert_expected_inline(shown(error), text, skip=1)


def shown(error):
    """The type and the message, in lines for the page; levels have other numbers each time."""
    message = re.sub(r"level \d+", "level N", f"{type(error).__name__}: {error}")
    return textwrap.fill(message, 86, break_long_words=False, break_on_hyphens=False)


def _raised_by(call):
    torch.manual_seed(0)
    try:
        result = call()
    except Exception as error:
        return error
    raise AssertionError(f"no error, but {result}")


def _check_nothing_is_left():
    assert functx._C.level_depth() == 0
    assert torch.is_grad_enabled()
    x = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    assert_close(functx.vmap(functx.grad(torch.sin))(x), x.cos())
    assert_close(functx.jvp(torch.sin, (x,), (x,))[1], x * x.cos())
    assert x.sin().mul_(x).grad_fn is None
