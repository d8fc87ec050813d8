"""Errors and warnings have the words by which test suites for torch.func recognise them."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from functx import grad, jacfwd, jvp, vmap

x = torch.randn(3, 4, 5)


def write_data(tensor, other):
    tensor.data = other


def escaped():
    kept = []
    vmap(lambda x: kept.append(x) or x)(x)
    return kept[0]


FUNCTIONS = {
    r"vmap: It looks like you're calling .item\(\) on a Tensor": [
        lambda: vmap(torch.Tensor.item)(x[0, 0]),
        lambda: vmap(float)(x[0, 0]),
    ],
    "It looks like you're attempting to use a Tensor in some data-dependent control flow": [
        lambda: vmap(lambda x: x if x > 0 else -x)(x[0, 0]),
        lambda: vmap(grad(lambda x: x if x > 0 else -x))(x[0, 0]),
    ],
    "mutating directly with `.data` under vmap transform is not allowed": [
        lambda: vmap(lambda y: write_data(y, x))(x),
        lambda: vmap(lambda y: write_data(x, y))(x),
    ],
    "escaped from inside a function being vmapped": [lambda: escaped() + 1, lambda: escaped()[0]],
    "called random operation while in randomness error mode": [
        lambda: vmap(torch.rand_like)(x),
        lambda: vmap(F.dropout)(x),
        lambda: jacfwd(F.dropout)(x),
    ],
    "Cannot ask for different inplace randomness on an unbatched tensor": [
        lambda: vmap(lambda y: torch.zeros(3).normal_() + y[0], randomness="different")(x),
    ],
    "got a batched tensor as input while the running_mean or running_var": [
        lambda: vmap(torch.nn.BatchNorm1d(5))(x),
    ],
    "would mutate a captured Tensor": [
        lambda: grad(lambda y: x.copy_(y).sum())(x + 1),
        lambda: jvp(lambda y: x.copy_(y), (x + 1,), (x,)),
    ],
}
OPERATORS = {
    "Shape mismatch": [
        lambda: vmap(torch.mm)(x, x[:, 0]),
        lambda: vmap(torch.mv, (0, None))(x, x[0]),
        lambda: vmap(torch.dot)(x, x),
    ],
    "Input tensor must have one or more dimensions": [
        lambda: vmap(torch.view_as_complex)(torch.randn(2)),
    ],
    "must have at least 2 dimensions": [
        lambda: vmap(torch.linalg.matrix_rank)(torch.randn(2, 3)),
        lambda: vmap(lambda a, tol: torch.linalg.matrix_rank(a, atol=tol))(x[0], x[0, :, 0]),
    ],
    "last dimension of size 2": [lambda: vmap(torch.view_as_complex, 1)(torch.randn(5, 2))],
    "at least 2 dimensions": [
        lambda: vmap(torch.tril)(torch.randn(2, 3)),
        lambda: vmap(Tensor.triu_)(torch.randn(2, 3)),
    ],
    r"vmap: aten::\w+_\(self, \*extra_args\) is not possible": [
        lambda: vmap(Tensor.add_, (None, 0))(x[0], x),
        lambda: vmap(Tensor.atan2_, (None, 0))(x[0], x),
        lambda: vmap(Tensor.copy_, (None, 0))(x[0], x),
        lambda: vmap(lambda a, b: a.index_put_((b,), a[0, 0]), (None, 0))(x[0], torch.eye(3).int()),
    ],
    "dynamic": [
        lambda: vmap(lambda x: x[x > 0])(torch.eye(3).cumsum(0)),
        lambda: vmap(torch.nonzero)(torch.eye(3).cumsum(0)),
        lambda: vmap(F.one_hot)(torch.eye(3).cumsum(0).cumsum(0).long()),
    ],
    "only supports boolean masks": [
        lambda: vmap(torch.masked_scatter)(x, x.byte(), x),
        lambda: vmap(torch.masked_fill)(x, x.byte(), x[:, 0, 0]),
    ],
    "converted to type .* without overflow": [
        lambda: vmap(torch.masked_fill)(x, x > 0, x[:, 0, 0] * 1j),
    ],
}


@pytest.mark.parametrize(
    ("words", "call"),
    [(words, call) for words, calls in {**FUNCTIONS, **OPERATORS}.items() for call in calls],
)
def test_errors(words, call):
    with pytest.raises(RuntimeError, match=words):
        call()


def test_the_warning_of_a_loop():
    library = torch.library.Library("functx_familiar", "FRAGMENT")
    library.define("plus_one(Tensor x) -> Tensor")
    library.impl("plus_one", lambda x: x + 1, "CPU")
    try:
        with pytest.warns(UserWarning, match="There is a performance drop.*plus_one"):
            vmap(torch.ops.functx_familiar.plus_one)(x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            vmap(torch.ops.functx_familiar.plus_one)(x)
    finally:
        library._destroy()
