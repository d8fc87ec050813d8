"""Values that are the same for every example, written into tensors made inside a transform.

Each kind of write, under each nest, of a value that autograd tracks; the reference is plain
autograd in a Python loop.
"""

import pytest
import torch
from _reference import randn
from torch.testing import assert_close

from functx import grad, jacfwd, jacrev, jvp, vjp, vmap

SIZE = 4


def _set_slice(out, p):
    out[1:3] = p[:2]


def _add_into(out, p):
    out += p


def _set_item(out, p):
    out[0] = p[1]
    out[2] = p[0] * p[3]


def _mask(out, p):
    out[torch.tensor([True, False, True, False])] = p[1:3]


def _index(out, p):
    out[torch.tensor([3, 0])] = p[:2].exp()


def _through_views(out, p):
    out.view(2, 2).select(0, 1).copy_(p[:2])
    out.view(2, 2)[0].add_(p[2:]).mul_(p[1])


def _diagonal(out, p):
    out.view(2, 2).diagonal().copy_(p[:2].sin())


def _twice(out, p):
    out[:2] = p[:2]
    out[1:] *= p[:3]
    out.sub_(p, alpha=2)


def _no_view(out, p):
    out.copy_(p)
    out.mul_(p)


WRITES = {
    "slice": _set_slice,
    "add": _add_into,
    "item": _set_item,
    "mask": _mask,
    "index": _index,
    "views": _through_views,
    "diagonal": _diagonal,
    "twice": _twice,
    "copy": _no_view,
    "index_put": lambda out, p: out.index_put_((torch.tensor([1, 1]),), p[:2], accumulate=True),
    "index_add": lambda out, p: out.index_add_(0, torch.tensor([2, 0]), p[1:3]),
    "index_copy": lambda out, p: out.index_copy_(0, torch.tensor([2, 0]), p[1:3]),
    "scatter": lambda out, p: out.scatter_(0, torch.tensor([3, 1]), p[:2]),
    "scatter_add": lambda out, p: out.scatter_add_(0, torch.tensor([3, 3]), p[:2]),
    "masked_scatter": lambda out, p: out.masked_scatter_(torch.arange(SIZE) > 1, p),
    "masked_fill": lambda out, p: out.masked_fill_(torch.arange(SIZE) > 1, p[0]),
    "put": lambda out, p: out.put_(torch.tensor([0, 2]), p[:2]),
    "fill": lambda out, p: out.fill_(p[2]),
    "lerp": lambda out, p: out.lerp_(p, 0.3),
    "addcmul": lambda out, p: out.addcmul_(p, p),
    "transposed": lambda out, p: out.view(2, 2).t().copy_(p.view(2, 2)),
    "narrow": lambda out, p: out.narrow(0, 1, 2).copy_(p[:2]),
    "strided": lambda out, p: out.as_strided((2,), (2,), 1).copy_(p[:2]),
}

CAPTURED = torch.linspace(0.5, 2.0, SIZE, dtype=torch.float64)

FRESH = {
    "zeros": lambda p: torch.zeros(SIZE, dtype=p.dtype),
    "ones_like": torch.ones_like,
    "new_full": lambda p: p.new_full((SIZE,), 0.5),
    "clone": lambda p: CAPTURED.clone(),
    "computed": lambda p: CAPTURED * 2,
    "tensor": lambda p: torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=p.dtype),
    "detached": lambda p: p.detach().clone(),
}


def program(fresh, write):
    def f(p, b):
        out = FRESH[fresh](p)
        WRITES[write](out, p)
        return (out * b).sin().sum() + (out * p).sum()

    return f


def plain_grad(f, p, b, create_graph=False):
    p = p.detach().requires_grad_() if not create_graph else p
    return torch.autograd.grad(f(p, b), p, create_graph=create_graph)[0]


@pytest.fixture
def inputs():
    return randn(SIZE), randn(3, SIZE)


@pytest.mark.parametrize("fresh", FRESH)
@pytest.mark.parametrize("write", WRITES)
def test_vmap_grad(fresh, write, inputs):
    p, bs = inputs
    f = program(fresh, write)
    expected = torch.stack([plain_grad(f, p, b) for b in bs])
    assert_close(vmap(grad(f), (None, 0))(p, bs), expected)
    assert_close(vmap(lambda b: grad(lambda q: f(q, b))(p))(bs), expected)
    assert_close(
        vmap(lambda b: vjp(lambda q: f(q, b), p)[1](torch.ones((), dtype=p.dtype))[0])(bs), expected
    )


@pytest.mark.parametrize("fresh", ["zeros", "clone", "tensor", "ones_like"])
@pytest.mark.parametrize("write", WRITES)
def test_with_derivatives_outside(fresh, write, inputs):
    p, bs = inputs
    f = program(fresh, write)

    def gradients(p):
        return torch.stack([plain_grad(f, p, b, create_graph=True) for b in bs])

    tracked = p.clone().requires_grad_()
    expected = torch.autograd.grad(gradients(tracked).sin().sum(), tracked)[0]
    again = p.clone().requires_grad_()
    mapped = vmap(grad(f), (None, 0))
    assert_close(torch.autograd.grad(mapped(again, bs).sin().sum(), again)[0], expected)
    assert_close(grad(lambda p: mapped(p, bs).sin().sum())(p), expected)
    tangent = torch.ones_like(p)
    assert_close(jvp(lambda p: mapped(p, bs).sin().sum(), (p,), (tangent,))[1], expected.sum())


@pytest.mark.parametrize("write", WRITES)
def test_other_nests(write, inputs):
    p, bs = inputs
    f = program("zeros", write)

    def rows(p, b):
        out = torch.zeros(SIZE, dtype=p.dtype)
        WRITES[write](out, p)
        return out * b

    def jacobian(b):
        return torch.autograd.functional.jacobian(lambda p: rows(p, b), p)

    expected = torch.stack([jacobian(b) for b in bs])
    assert_close(vmap(jacrev(rows), (None, 0))(p, bs), expected)
    assert_close(vmap(jacfwd(rows), (None, 0))(p, bs), expected)
    hessians = torch.stack([torch.autograd.functional.hessian(lambda p: f(p, b), p) for b in bs])  # noqa: B023
    assert_close(vmap(jacfwd(grad(f)), (None, 0))(p, bs), hessians)
    assert_close(vmap(jacrev(grad(f)), (None, 0))(p, bs), hessians)

    def nested(p, bs):
        return grad(lambda p: vmap(lambda b: f(p, b))(bs).sum())(p)

    expected = torch.stack([plain_grad(f, p, b) for b in bs]).sum(0)
    assert_close(vmap(nested, (None, 0))(p, bs[None])[0], expected)


def test_other_views_of_the_tensor_see_the_write(inputs):
    p, bs = inputs

    def f(p, b):
        out = torch.zeros(2, SIZE, dtype=p.dtype)
        first, column = out[0], out.t()[1]
        out[0] = p
        out.t()[:, 1] = p.exp()
        return (first * b).sum() + (out[1] * b * b).sum() + (column * b[:2]).sum()

    expected = torch.stack([plain_grad(f, p, b) for b in bs])
    assert_close(vmap(grad(f), (None, 0))(p, bs), expected)


def test_what_would_need_two_tapes_is_refused():
    """Into what was computed from captured tensors only, of a value that is tracked outside too."""
    p = randn(SIZE).requires_grad_()
    f = program("computed", "slice")
    with pytest.raises(RuntimeError, match="can't be on both tapes"):
        vmap(grad(f), (None, 0))(p, randn(3, SIZE))
