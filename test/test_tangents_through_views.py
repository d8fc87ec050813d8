"""Writes through views by strides, of examples that lie interleaved in memory, under jvp.

The tangent lies in memory in another way than the primal, and is written all the same.
"""

import pytest
import torch
from _reference import randn
from torch.testing import assert_close

from functx import jacfwd, jacrev, jvp, vmap

X = randn(3, 4)

VIEWS = {
    "view": lambda x: x.view(-1),
    "view of two dims": lambda x: x.view(1, *x.shape),
    "view_as": lambda x: x.view_as(x),
    "reshape": lambda x: x.reshape(x.shape),
    "as_strided": lambda x: x.as_strided(x.shape, x.stride()),
    "part of a view": lambda x: x.view(-1)[:1],
}
WRITES = {
    "mul_": lambda x, view: view.mul_(2),
    "copy_": lambda x, view: view.copy_(x.sin().view(view.shape) if view.numel() > 1 else x[0]),
    "fill_": lambda x, view: view.fill_(0.5),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("in_dim", [0, 1])
@pytest.mark.parametrize("fresh", [True, False])
def test_tangents_are_written_through_views(view, write, in_dim, fresh):
    def f(x):
        result = x * x if fresh else x.clone()
        WRITES[write](x, VIEWS[view](result))
        return result

    x = X[:2, :2]
    rows = torch.stack([torch.autograd.functional.jacobian(f, row) for row in x.unbind(in_dim)])
    assert_close(vmap(jacfwd(f), in_dim)(x), rows)
    assert_close(vmap(jacrev(f), in_dim)(x), rows)
    along = lambda x, t: jvp(f, (x,), (t,))[1]
    basis = torch.eye(2, dtype=x.dtype)
    assert_close(vmap(vmap(along, (None, 1)), (in_dim, None))(x, basis), rows.mT)


@pytest.mark.parametrize("view", VIEWS)
def test_a_tangent_is_written_through_a_view_of_a_slice(view):
    """That is not dense; what is written is the caller's, and so is its tangent."""
    wide = X.clone()

    def f(x):
        VIEWS[view](x).mul_(2)
        return x

    plain = X[:1].clone()[0, ::2]
    t = plain.cos()
    _, tangent = jvp(f, (wide[0, ::2],), (t.clone(),))
    factor = torch.tensor([2.0, 1.0 if view == "part of a view" else 2.0], dtype=X.dtype)
    assert_close(wide[0, ::2], plain * factor)
    assert_close(tangent, t * factor)
