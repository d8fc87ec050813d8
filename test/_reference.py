"""References that share no code with functx: loops, finite differences, plain autograd."""

import itertools

import torch
from torch.autograd import forward_ad
from torch.testing import assert_close
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# Central differences of order eight: with float64 and a step of 1e-3 they are exact to about 1e-12.
STENCIL = ((1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280))


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def assert_equal_trees(actual, expected, **tolerances):
    """assert_close for any pytree; the structures must be the same."""
    actual_leaves, actual_spec = tree_flatten(actual)
    expected_leaves, expected_spec = tree_flatten(expected)
    assert actual_spec == expected_spec, f"{actual_spec} is not {expected_spec}"
    for a, e in zip(actual_leaves, expected_leaves, strict=True):
        assert_close(a, e, **tolerances)


# ---- vmap ------------------------------------------------------------------------------------


def loop_vmap(f, in_dims=0, out_dims=0):
    """vmap by a Python loop. `in_dims` is an int, or a tuple with an int or None per argument;
    `out_dims` is an int, or a tuple with one int per output."""

    def mapped(*args):
        dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
        examples = [
            f(*(x if d is None else x.select(d, i) for x, d in zip(args, dims, strict=True)))
            for i in range(size)
        ]
        return stack_trees(examples, out_dims)

    return mapped


def stack_trees(trees, dims=0):
    """Stacks equal pytrees leaf by leaf."""
    flat = [tree_flatten(tree) for tree in trees]
    spec = flat[0][1]
    columns = list(zip(*(leaves for leaves, _ in flat), strict=True))
    if isinstance(dims, int):
        dims = (dims,) * len(columns)
    return tree_unflatten(
        [torch.stack(column, d) for column, d in zip(columns, dims, strict=True)], spec
    )


def batching_patterns(count):
    """Every way to batch `count` arguments, but for none of them: tuples of bools."""
    return [p for p in itertools.product((True, False), repeat=count) if any(p)]


# ---- finite differences ----------------------------------------------------------------------


def directional_derivative(f, primals, tangents, step=1e-3):
    """The derivative of `f` at `primals` along `tangents`; `f` may return any pytree."""
    total = None
    for k, weight in STENCIL:
        ahead = f(*(p + k * step * t for p, t in zip(primals, tangents, strict=True)))
        behind = f(*(p - k * step * t for p, t in zip(primals, tangents, strict=True)))
        ahead, spec = tree_flatten(ahead)
        behind, _ = tree_flatten(behind)
        terms = [weight * (a - b) / step for a, b in zip(ahead, behind, strict=True)]
        total = terms if total is None else [s + t for s, t in zip(total, terms, strict=True)]
    return tree_unflatten(total, spec)


def basis(x):
    """The unit tensors of the space of `x`."""
    return torch.eye(x.numel(), dtype=x.dtype).reshape(x.shape.numel(), *x.shape)


def numeric_jacobian(f, x, step=1e-3):
    """Shape: out.shape + x.shape."""
    columns = [directional_derivative(f, (x,), (unit,), step) for unit in basis(x)]
    return torch.stack(columns, -1).reshape(columns[0].shape + x.shape)


def numeric_grad(f, x, step=1e-3):
    return numeric_jacobian(f, x, step)


def numeric_hessian(f, x, step=2e-2):
    return numeric_jacobian(lambda y: numeric_jacobian(f, y, step), x, step)


# ---- plain autograd --------------------------------------------------------------------------


def tracked_copies(args):
    return [a.detach().clone().requires_grad_() for a in args]


def autograd_vjp(f, primals, cotangents):
    """Vector-Jacobian product of a function that returns a tensor or a tuple of tensors."""
    primals = tracked_copies(primals)
    outputs = f(*primals)
    if isinstance(outputs, torch.Tensor):
        outputs, cotangents = (outputs,), (cotangents,)
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    return torch.autograd.grad(
        [o for o, _ in pairs], primals, [c for _, c in pairs], materialize_grads=True
    )


def autograd_grad(f, *args):
    """The gradient with respect to every argument, as a tuple."""
    args = tracked_copies(args)
    return torch.autograd.grad(f(*args), args, materialize_grads=True)


def autograd_jacobian(f, *args):
    """The Jacobian with respect to every argument, row by row, as a tuple."""
    args = tracked_copies(args)
    output = f(*args)
    rows = [
        torch.autograd.grad(output, args, unit, retain_graph=True, materialize_grads=True)
        for unit in basis(output)
    ]
    return tuple(
        torch.stack(r).reshape(output.shape + x.shape)
        for r, x in zip(zip(*rows, strict=True), args, strict=True)
    )


def autograd_hessian(f, x):
    """The Hessian of a scalar function, row by row."""
    x = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(x), x, create_graph=True)
    rows = [torch.autograd.grad(gradient, x, u, retain_graph=True)[0] for u in basis(gradient)]
    return torch.stack(rows).reshape(x.shape + x.shape)


def forward_ad_jvp(f, primals, tangents):
    """Output and tangent by PyTorch's own forward mode; an undefined tangent becomes zeros."""
    with forward_ad.dual_level():
        duals = map(forward_ad.make_dual, primals, tangents)
        outputs, spec = tree_flatten(f(*duals))
        pairs = [forward_ad.unpack_dual(o) for o in outputs]
        primal = [p.primal for p in pairs]
        tangent = [torch.zeros_like(p) if t is None else t.clone() for p, t in pairs]
    return tree_unflatten(primal, spec), tree_unflatten(tangent, spec)


def detached(tree):
    return tree_map(lambda x: x.detach(), tree)
