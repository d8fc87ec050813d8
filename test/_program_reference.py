"""The transforms by plain autograd and Python loops: what a random program is compared with.

It has the names and the meaning of functx, so that one text runs on both, and composes likewise. A
level differentiates by `torch.autograd.grad`, recorded where something outside may differentiate
again. A derivative along a direction is made by differentiating the pullback, which is linear in
its cotangent, or, as a second opinion, from the rows of the Jacobian.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

import torch
from torch.utils._pytree import (
    _broadcast_to_and_flatten,
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_unflatten,
)


class _State(threading.local):
    depth = 0  # derivatives that this thread is inside of
    outside = False  # whether the results are differentiated by ordinary autograd
    by_rows = False


state = _State()


@contextmanager
def settings(outside: bool, by_rows: bool):
    before = state.outside, state.by_rows
    state.outside, state.by_rows = outside, by_rows
    try:
        yield
    finally:
        state.outside, state.by_rows = before
        state.depth = 0


@contextmanager
def level():
    state.depth += 1
    try:
        with torch.enable_grad():
            yield
    finally:
        state.depth -= 1


def recorded():
    return state.depth > 0 or state.outside


def points_of(tree):
    """A pytree of copies, each a point of the graph, and what the function gets: copies of them, so
    that it may write in place."""

    def point(x):
        return x.clone() if x.requires_grad else x.detach().clone().requires_grad_()

    leaves, spec = tree_flatten(tree)
    with torch.enable_grad():
        points = [point(leaf) for leaf in leaves]
        return points, tree_unflatten([p.clone() for p in points], spec), spec


def pull(outputs, points, cotangents):
    """Sums of products of the cotangents with the derivatives of the outputs, zeros by default."""
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    if not pairs:
        return [torch.zeros_like(p) for p in points]
    with torch.enable_grad():
        gradients = torch.autograd.grad(
            [o for o, _ in pairs],
            points,
            [c for _, c in pairs],
            create_graph=recorded(),
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        # Copies: a gradient can be a cotangent itself, and the program may write into it.
        return [g.clone() for g in gradients]


def jacobian_rows(output, points):
    """The Jacobian of one output: for each point a tensor of shape output.shape + point.shape."""
    if not output.requires_grad or output.numel() == 0:
        return [output.new_zeros(output.shape + p.shape) for p in points]
    units = torch.eye(output.numel(), dtype=output.dtype).reshape(-1, *output.shape)
    rows = [pull([output], points, [unit]) for unit in units]
    columns = zip(*rows, strict=True)
    return [
        torch.stack(c).reshape(output.shape + p.shape) for c, p in zip(columns, points, strict=True)
    ]


def push(outputs, points, tangents):
    """Derivatives of the outputs along tangents of the points."""
    if state.by_rows:
        return [push_by_rows(o, points, tangents) for o in outputs]
    with torch.enable_grad():
        units = [torch.zeros_like(o).requires_grad_() for o in outputs]
        state.depth += 1
        gradients = pull(outputs, points, units)
        state.depth -= 1
        return pull(gradients, units, tangents)


def push_by_rows(output, points, tangents):
    with torch.enable_grad():
        blocks = jacobian_rows(output, points)
        terms = [
            (block * t).reshape(*output.shape, -1).sum(-1)
            for block, t in zip(blocks, tangents, strict=True)
        ]
        return sum(terms[1:], terms[0])


# ---- the transforms --------------------------------------------------------------------------


def vmap(f, in_dims=0, out_dims=0):
    def mapped(*args):
        leaves, spec = tree_flatten(args)
        prefix = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        dims = _broadcast_to_and_flatten(prefix, spec, is_leaf=lambda d: d is None)
        size = next(x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None)
        if size == 0:
            return _empty_batch(f, leaves, dims, spec, out_dims)
        results = []
        for i in range(size):
            example = [
                x if d is None else x.select(d, i) for x, d in zip(leaves, dims, strict=True)
            ]
            results.append(f(*tree_unflatten(example, spec)))
        flat = [tree_leaves(result) for result in results]
        out_spec = tree_flatten(results[0])[1]
        return tree_unflatten(
            [torch.stack(column, out_dims) for column in zip(*flat, strict=True)], out_spec
        )

    return mapped


def _empty_batch(f, leaves, dims, spec, out_dims):
    """The shapes are those of any example; there is nothing in them."""

    def example(x, d):
        shape = list(x.shape)
        del shape[d]
        return torch.linspace(0.2, 0.9, torch.Size(shape).numel()).to(x.dtype).reshape(shape)

    values = [x if d is None else example(x, d) for x, d in zip(leaves, dims, strict=True)]
    return tree_map(
        lambda x: torch.stack([x.detach()], out_dims).narrow(out_dims, 0, 0),
        f(*tree_unflatten(values, spec)),
    )


def grad(f, argnums=0, has_aux=False):
    both = grad_and_value(f, argnums, has_aux)

    def gradient(*args):
        gradients, value = both(*args)
        return (gradients, value[1]) if has_aux else gradients

    return gradient


def grad_and_value(f, argnums=0, has_aux=False):
    def gradient(*args):
        with level():
            points, copies, spec = points_of(_select(args, argnums))
            result = f(*_substitute(args, argnums, copies))
        value = result[0] if has_aux else result
        gradients = pull([value], points, [torch.ones_like(value)])
        return tree_unflatten(gradients, spec), result

    return gradient


def vjp(f, *primals, has_aux=False):
    with level():
        points, copies, spec = points_of(primals)
        result = f(*copies)
    result, aux = result if has_aux else (result, None)
    outputs = tree_leaves(result)

    def pullback(cotangents):
        return tree_unflatten(pull(outputs, points, tree_leaves(cotangents)), spec)

    return (result, pullback, aux) if has_aux else (result, pullback)


def linearize(f, *primals):
    with level():
        points, copies, _ = points_of(primals)
        result = f(*copies)
    outputs, out_spec = tree_flatten(result)

    def pushforward(*tangents):
        return tree_unflatten(push(outputs, points, tree_leaves(tangents)), out_spec)

    return result, pushforward


def jvp(f, primals, tangents, has_aux=False):
    with level():
        points, copies, _ = points_of(primals)
        result = f(*copies)
    result, aux = result if has_aux else (result, None)
    outputs, out_spec = tree_flatten(result)
    tangent = tree_unflatten(push(outputs, points, tree_leaves(tangents)), out_spec)
    return (result, tangent, aux) if has_aux else (result, tangent)


def jacrev(f, argnums=0, has_aux=False):
    def jacobian(*args):
        with level():
            points, copies, spec = points_of(_select(args, argnums))
            result = f(*_substitute(args, argnums, copies))
        result, aux = result if has_aux else (result, None)
        outputs, out_spec = tree_flatten(result)
        with torch.enable_grad():
            blocks = [tree_unflatten(jacobian_rows(o, points), spec) for o in outputs]
        jacobians = tree_unflatten(blocks, out_spec)
        return (jacobians, aux) if has_aux else jacobians

    return jacobian


jacfwd = jacrev


def hessian(f, argnums=0):
    return jacfwd(jacrev(f, argnums), argnums)


def _select(args, argnums):
    return args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in argnums)


def _substitute(args, argnums, values):
    args = list(args)
    if isinstance(argnums, int):
        args[argnums] = values
    else:
        for n, value in zip(argnums, values, strict=True):
            args[n] = value
    return args


def checkpoint(f, *args, **settings):
    """Saves nothing in memory, and is the function itself in meaning."""
    return f(*args)


def detached(tree):
    return tree_map(lambda x: x.detach(), tree)
