"""Puts a function of ours in front of one of PyTorch's, which stays the object that it is.

It only gets other code. So those who have got hold of it before call ours as well, a module that
says `op = MyFunction.apply` for one, and the tables of `__torch_function__` that name it go on to
find it. `_C.put_before_c` does the same for functions that are written in C.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, cast

from torch._C._dynamo import eval_frame

Function = Callable[..., Any]

_SKIP = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.DEFAULT)

# The functions that have code of ours by now, and what they were.
_replaced: dict[Function, Function] = {}


def plain(function: Function) -> Function:
    """PyTorch's function, whether ours is in front of it or not."""
    if function in _replaced:
        return _replaced[function]
    theirs = cast("FunctionType", function)
    copy = FunctionType(
        theirs.__code__,
        theirs.__globals__,
        theirs.__name__,
        theirs.__defaults__,
        theirs.__closure__,
    )
    copy.__kwdefaults__ = theirs.__kwdefaults__
    copy.__qualname__ = theirs.__qualname__
    copy.__module__ = theirs.__module__
    copy.__doc__ = theirs.__doc__
    return copy


def hide(code: CodeType) -> None:
    """Has Dynamo leave its frames to Python; it may look into what they call."""
    eval_frame.set_code_exec_strategy(code, _SKIP)


def put_before(function: Function, make_ours: Callable[[Function], Function]) -> None:
    """From now on `function` calls what `make_ours` makes of PyTorch's; a second time is none.

    Nor is there anything to do for what somebody else has made of it that is no function.
    """
    if function in _replaced or not isinstance(function, FunctionType):
        return
    theirs = cast("Any", function)
    before = plain(function)
    ours = make_ours(before)
    code = _code_calling(ours, theirs.__code__)
    hide(code)
    hide(cast("FunctionType", ours).__code__)
    _replaced[function] = before
    # What inspect and Dynamo look at.
    theirs.__wrapped__ = theirs._torchdynamo_inline = before
    theirs.__code__ = code


def _code_calling(ours: Function, theirs: CodeType) -> CodeType:
    """Code can only take the place of other code that has as many variables from outside."""
    names = ", ".join(f"variable_{i}" for i in range(len(theirs.co_freevars)))
    outside = compile(
        f"def outside({names}):\n"
        f"    def call(*args, **kwargs):\n"
        f"        {'nonlocal ' * bool(names)}{names}\n"
        f"        ours = 'ours'\n"
        f"        return ours(*args, **kwargs)\n",
        __file__,
        "exec",
    )
    code = _first_code(_first_code(outside))
    constants = tuple(ours if constant == "ours" else constant for constant in code.co_consts)
    return code.replace(co_consts=constants, co_name=theirs.co_name)


def _first_code(code: CodeType) -> CodeType:
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType))
