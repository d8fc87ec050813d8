"""`vjp`: the value of a function and the map that pulls cotangents back through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor

from . import _C
from ._arguments import check_function, differentiable_leaves
from ._opaque import opaque
from ._outputs import check_differentiable, split_aux, tensor_leaves
from .pytree import describe, flatten, unflatten

__all__ = ["vjp"]

_API = "vjp(f, *primals)"

VjpFunction: TypeAlias = Callable[..., tuple[Any, ...]]


@overload
def vjp(
    func: Callable[..., Any], *primals: Any, has_aux: Literal[False] = False
) -> tuple[Any, VjpFunction]: ...


@overload
def vjp(
    func: Callable[..., Any], *primals: Any, has_aux: Literal[True]
) -> tuple[Any, VjpFunction, Any]: ...


@opaque
def vjp(
    func: Callable[..., Any], *primals: Any, has_aux: bool = False
) -> tuple[Any, VjpFunction] | tuple[Any, VjpFunction, Any]:
    """Calls `func` and returns its vector-Jacobian product along with its value.

    Args:
        func: Takes `primals`, returns a tensor or a pytree of tensors of floating point or complex
            dtype; with `has_aux`, a pair of that and a pytree of tensors.
        *primals: Tensors or pytrees of tensors, of floating point or complex dtype. All are
            differentiated; bind other arguments with `functools.partial` or a lambda.
        has_aux: Whether `func` returns a pair `(output, aux)`.

    Returns:
        `(output, vjp_fn)`, with `has_aux` `(output, vjp_fn, aux)`. `vjp_fn(cotangents)` takes a
        value with the structure and shapes of `output` and returns a tuple with one entry for each
        primal, with its structure, shapes and dtypes: the sum over all outputs of cotangent times
        Jacobian. For complex numbers it is the conjugate transpose of the Jacobian that is
        applied, as everywhere in PyTorch. `vjp_fn` may be called at any time, any number of times,
        and under other transforms: `vmap(vjp_fn)` computes a batch of products. It takes two
        options: with `retain_graph=False` it frees the intermediate values, and can't be called
        again; `create_graph` says whether the product is itself recorded for differentiation, by
        default if grad mode is on and something outside can see it.

    Raises:
        ValueError: a primal is not made of tensors.
        RuntimeError: a primal or an output is of integers, an output is not a tensor, or cotangents
            don't match the output.
        TypeError: a cotangent is not a tensor.

    Complexity:
        `vjp` itself: that of `func`, and memory for its intermediate values as long as `vjp_fn`
        lives. Each call of `vjp_fn`: a small multiple of the time of `func`.

    Example:
        >>> import torch
        >>> from functx import vjp
        >>> output, vjp_fn = vjp(torch.mul, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        >>> output
        tensor([3., 8.])
        >>> vjp_fn(torch.tensor([1.0, 10.0]))
        (tensor([ 3., 40.]), tensor([ 1., 20.]))
    """
    check_function("vjp", func)
    leaves, primals_spec = differentiable_leaves(_API, primals)

    def body(level: _C.Level) -> tuple[Any, ...]:
        inputs = _C.track(leaves)
        result = func(*unflatten(inputs, primals_spec))
        aux = None
        if has_aux:
            result, aux_leaves, aux_spec = split_aux(_API, result)
            aux = unflatten(_C.release(level, aux_leaves), aux_spec)
        outputs, output_spec = tensor_leaves(_API, result)
        check_differentiable(_API, outputs)
        output = unflatten(_C.release(level, outputs), output_spec)
        return level, inputs, outputs, output_spec, output, aux

    level, inputs, outputs, output_spec, output, aux = _C.in_grad(None, body)

    @opaque
    def vjp_fn(
        cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None
    ) -> tuple[Any, ...]:
        if isinstance(retain_graph, Tensor) or isinstance(create_graph, Tensor):
            raise TypeError(
                f"vjp_fn of {_API}: takes the cotangents of all outputs as one argument, got "
                f"another tensor in the place of an option. Pass them in the structure of the "
                f"output: {describe(output_spec)}."
            )
        cotangent_leaves, cotangents_spec = flatten(cotangents)
        if cotangents_spec != output_spec:
            raise RuntimeError(
                f"vjp_fn of {_API}: Expected pytree structure of cotangents to be the same as "
                f"pytree structure of outputs to the function. cotangents: "
                f"{describe(cotangents_spec)}, primal output: {describe(output_spec)}. Pass one "
                f"cotangent for each output."
            )
        _check_cotangents(outputs, cotangent_leaves)
        if create_graph is None:
            products = _C.pullback(level, outputs, inputs, cotangent_leaves, retain_graph)
        else:
            with torch.set_grad_enabled(create_graph):
                products = _C.pullback(level, outputs, inputs, cotangent_leaves, retain_graph)
        result: tuple[Any, ...] = unflatten(products, primals_spec)
        return result

    return (output, vjp_fn, aux) if has_aux else (output, vjp_fn)


def _check_cotangents(outputs: list[Tensor], cotangents: list[Any]) -> None:
    for index, (output, cotangent) in enumerate(zip(outputs, cotangents, strict=True)):
        if cotangent is None:  # stands for ones, where that can only mean one thing
            if output.dim() != 0:
                raise RuntimeError(
                    f"vjp_fn of {_API}: grad can be implicitly created only for scalar outputs, "
                    f"output {index} has shape {tuple(output.shape)}. Pass a cotangent for it."
                )
            continue
        if not isinstance(cotangent, Tensor):
            raise TypeError(
                f"vjp_fn of {_API}: gradients can be either Tensors or None, but got "
                f"{type(cotangent).__name__} for output {index}. Pass torch.tensor(value)."
            )
        if cotangent.shape != output.shape:
            raise RuntimeError(
                f"vjp_fn of {_API}: Mismatch in shape: cotangent {index} has a shape of "
                f"{tuple(cotangent.shape)} and output {index} has a shape of "
                f"{tuple(output.shape)}. Expand the cotangent; it is not broadcast."
            )
        if cotangent.is_complex() != output.is_complex():
            remedy = "take its real part" if cotangent.is_complex() else "make it complex"
            raise RuntimeError(
                f"vjp_fn of {_API}: For complex Tensors, both cotangent and output are required "
                f"to have the same dtype. Mismatch in dtype: cotangent {index} has a dtype of "
                f"{cotangent.dtype} and output {index} has a dtype of {output.dtype}. "
                f"Convert the cotangent: {remedy}."
            )
