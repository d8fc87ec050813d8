"""`grad` and `grad_and_value`: gradients of functions that return a scalar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, cast

from . import _C
from ._arguments import (
    ArgNums,
    check_argnums,
    check_function,
    differentiable_leaves,
    resolve_argnums,
    select,
    substitute,
    wraps,
)
from ._opaque import opaque
from ._outputs import check_scalar, split_aux
from .pytree import unflatten

__all__ = ["grad", "grad_and_value"]

P = ParamSpec("P")

# Errors about outputs keep the words of torch.func, in which grad goes by way of grad_and_value.
_API = {
    "grad": "grad, by grad_and_value(f)(*args)",
    "grad_and_value": "grad_and_value(f)(*args)",
}


@opaque
def grad(func: Callable[P, Any], argnums: ArgNums = 0, has_aux: bool = False) -> Callable[P, Any]:
    """Makes the function that computes the gradient of `func`.

    PyTorch's own autograd records `func` and runs backward once. Applied again, it gives higher
    derivatives. `torch.no_grad` inside `func` has its effect; outside of the call it has none.

    Args:
        func: Returns a real tensor without dimensions; with `has_aux`, a pair of that and a pytree
            of tensors.
        argnums: Which positional arguments to differentiate: an int, or a tuple of ints; negative
            ones count from the end. Each such argument is a tensor or a pytree of tensors, of
            floating point or complex dtype.
        has_aux: Whether `func` returns a pair `(output, aux)`.

    Returns:
        A function of the arguments of `func`, keyword arguments included. It returns the gradient:
        the structure, shapes and dtypes of the argument, or a tuple of these if `argnums` is a
        tuple; zeros where the output doesn't depend on it. With `has_aux` it returns
        `(gradient, aux)`. For complex arguments it is the conjugate Wirtinger derivative times
        two, as everywhere in PyTorch: the direction of steepest ascent.

    Raises:
        RuntimeError: `argnums` doesn't fit the arguments, an argument is of integers, or `func`
            doesn't return what it should.
        ValueError: an argument to differentiate is not made of tensors.

    Complexity:
        A small multiple of the time of `func`, whatever the size of the inputs, and memory for its
        intermediate values, as reverse mode does.

    Example:
        >>> import torch
        >>> from functx import grad
        >>> grad(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
        tensor([ 3., 12.])
        >>> grad(grad(torch.sin))(torch.tensor(0.5)) == -torch.sin(torch.tensor(0.5))
        tensor(True)
        >>> loss = lambda params, x: (params["w"] * x + params["b"]).sum()
        >>> grad(loss)({"w": torch.tensor(2.0), "b": torch.tensor(0.0)}, torch.tensor([3.0, 4.0]))
        {'w': tensor(7.), 'b': tensor(2.)}
    """
    check_function("grad", func)
    check_argnums("grad", argnums)

    @wraps(func)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        result, _, aux = _differentiate("grad", func, argnums, has_aux, args, kwargs)
        return (result, aux) if has_aux else result

    return cast("Callable[P, Any]", gradient)


@opaque
def grad_and_value(
    func: Callable[P, Any], argnums: ArgNums = 0, has_aux: bool = False
) -> Callable[P, tuple[Any, Any]]:
    """Makes the function that computes the gradient of `func` together with its value.

    Args:
        func: As for `grad`.
        argnums: As for `grad`.
        has_aux: As for `grad`.

    Returns:
        A function of the arguments of `func` that returns `(gradient, value)`, with `has_aux`
        `(gradient, (value, aux))`. The gradient is the one of `grad`; the value costs nothing more.

    Raises:
        RuntimeError: as for `grad`.
        ValueError: as for `grad`.

    Complexity:
        That of `grad`.

    Example:
        >>> import torch
        >>> from functx import grad_and_value
        >>> grad_and_value(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
        (tensor([ 3., 12.]), tensor(9.))
    """
    check_function("grad_and_value", func)
    check_argnums("grad_and_value", argnums)

    @wraps(func)
    def gradient_and_value(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        result, value, aux = _differentiate("grad_and_value", func, argnums, has_aux, args, kwargs)
        return result, ((value, aux) if has_aux else value)

    return cast("Callable[P, tuple[Any, Any]]", gradient_and_value)


def _differentiate(
    transform: str,
    func: Callable[..., Any],
    argnums: ArgNums,
    has_aux: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, Any, Any]:
    """Returns the gradient; the value, or None if not wanted; aux, or None if there is none."""
    argnums = resolve_argnums(transform, argnums, len(args))
    primals, spec = differentiable_leaves(transform, select(args, argnums), argnums)

    def body(level: _C.Level) -> tuple[Any, Any, Any]:
        inputs = _C.track(primals)
        output = func(*substitute(args, argnums, unflatten(inputs, spec)), **kwargs)
        aux = None
        if has_aux:
            output, aux_leaves, aux_spec = split_aux(_API[transform], output)
        check_scalar(_API[transform], output)
        # aux may share the tape, and something outside may yet differentiate it.
        gradients = _C.pullback(level, (output,), inputs, (None,), bool(has_aux))
        if has_aux:
            aux = unflatten(_C.release(level, aux_leaves), aux_spec)
        value = None
        if transform == "grad_and_value":
            value = _C.release(level, (output,))[0]
        _C.let_go(level)
        return unflatten(gradients, spec), value, aux

    return _C.in_grad((args, kwargs, argnums), body)
