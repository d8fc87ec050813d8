"""Operators whose result has a shape that depends on the data, where it is the same for all."""

import pytest
import torch
from _reference import assert_equal_trees, loop_vmap, randn

import functx

# Two rows of every example are picked, whatever the level that maps over them.
MASKS = torch.tensor(
    [[[True, False, True], [False, True, True]], [[True, True, False], [True, False, True]]]
)
COUNTS = torch.tensor([[[2, 0, 1], [1, 1, 1]], [[0, 0, 3], [3, 0, 0]]])
VALUES = torch.tensor([[[5, 2, 5], [7, 7, 1]], [[0, 3, 0], [4, 4, 6]]])


def set_by_mask(x, m, y):
    x = x.clone()
    x[m] = y
    return x


def set_columns_by_mask(x, m, y):
    x = x.expand(2, 3).clone()
    x[:, m] = y
    return x


BY_MASK = {
    "nonzero": lambda x, m: m.nonzero(),
    "nonzero of numbers": lambda x, m: (x * m).nonzero(),
    "nonzero of a scalar": lambda x, m: (x.sum() * 0 + 1).nonzero(),
    "nonzero_numpy": lambda x, m: m.nonzero(as_tuple=True),
    "argwhere": lambda x, m: torch.argwhere(m),
    "where": lambda x, m: torch.where(m[:, None] & m),
    "nonzero_static": lambda x, m: torch.nonzero_static(m, size=4, fill_value=-7),
    "nonzero_static of a matrix": lambda x, m: torch.nonzero_static(m[:, None] & m, size=3),
    "nonzero_static of a scalar": lambda x, m: torch.nonzero_static(m[0], size=2),
    "masked_select": lambda x, m: x.masked_select(m),
    "masked_select of a matrix": lambda x, m: x.outer(x).masked_select(m),
    "index": lambda x, m: x[m],
    "index rows": lambda x, m: x.outer(x)[m],
    "index columns": lambda x, m: x.outer(x)[:, m],
    "index with a number": lambda x, m: x.outer(x)[torch.tensor([0, 2]), m],
    "index a matrix": lambda x, m: x.outer(x)[m[:, None] & m],
    "set": lambda x, m: set_by_mask(x, m, x[:2] * 2),
    "set to a number": lambda x, m: set_by_mask(x, m, 3.0),
    "set columns": lambda x, m: set_columns_by_mask(x, m, x[:2]),
    "index_put": lambda x, m: x.index_put((m,), x[1:], accumulate=True),
}


def check(f, *args):
    assert_equal_trees(functx.vmap(f)(*args), loop_vmap(f)(*args))


def writes(name):
    """What is written to has to be batched."""
    return name.startswith("set")


@pytest.mark.parametrize("name", BY_MASK)
@pytest.mark.parametrize("batched", [(0, 0), (None, 0)])
def test_masks(name, batched):
    f, x = BY_MASK[name], randn(2, 2, 3)
    if writes(name) and batched[0] is None:
        pytest.skip("writes to what is shared")
    args = [v if d == 0 else v[0] for v, d in zip((x[0], MASKS[0]), batched, strict=True)]
    assert_equal_trees(functx.vmap(f, batched)(*args), loop_vmap(f, batched)(*args))


@pytest.mark.parametrize("name", BY_MASK)
def test_masks_under_two_vmaps(name):
    f, x = BY_MASK[name], randn(2, 2, 3)
    expected = loop_vmap(loop_vmap(f))(x, MASKS)
    assert_equal_trees(functx.vmap(functx.vmap(f))(x, MASKS), expected)
    if not writes(name):
        inner = functx.vmap(functx.vmap(f), (None, 0))(x[0], MASKS)
        assert_equal_trees(inner, loop_vmap(loop_vmap(f), (None, 0))(x[0], MASKS))


@pytest.mark.parametrize(
    "name", [n for n in BY_MASK if "nonzero" not in n and n not in ("where", "argwhere")]
)
def test_derivatives_by_masks(name):
    x = randn(2, 3)

    def loss(x, m):
        return BY_MASK[name](x, m).square().sum()

    for f in (functx.grad(loss), lambda x, m: functx.jvp(lambda x: loss(x, m), (x,), (x * 2,))):
        check(f, x, MASKS[0])
    whole = functx.grad(lambda x: functx.vmap(loss)(x, MASKS[0]).sum())(x)
    assert_equal_trees(whole, functx.vmap(functx.grad(loss))(x, MASKS[0]))


OF_INTEGERS = {
    "repeat_interleave": lambda n: torch.repeat_interleave(n),
    "repeat_interleave of int32": lambda n: torch.repeat_interleave(n.int()),
    "with output_size": lambda n: torch.repeat_interleave(n, output_size=3),
    "of a matrix": lambda n: torch.outer(n, n).repeat_interleave(n, 1),
    "of a shared matrix": lambda n: torch.arange(6).view(3, 2).repeat_interleave(n, 0),
    "bincount": lambda n: torch.bincount(n, minlength=5),
    "bincount with weights": lambda n: torch.bincount(n, n * 0.5, minlength=4),
}


@pytest.mark.parametrize("name", OF_INTEGERS)
def test_counts(name):
    check(OF_INTEGERS[name], COUNTS[0])
    f = functx.vmap(OF_INTEGERS[name])
    assert_equal_trees(functx.vmap(f)(COUNTS), loop_vmap(loop_vmap(OF_INTEGERS[name]))(COUNTS))


def test_bincount_is_strict():
    with pytest.raises(RuntimeError, match="non-negative"):
        functx.vmap(lambda n: torch.bincount(n, minlength=5))(torch.tensor([[0, 1], [1, -1]]))


UNIQUE = {
    "unique": lambda v: torch.unique(v),
    "with all": lambda v: torch.unique(v, return_inverse=True, return_counts=True),
    "dim": lambda v: torch.unique(torch.stack([v, v]), dim=0),
    "consecutive": lambda v: torch.unique_consecutive(torch.sort(v).values, return_counts=True),
}


@pytest.mark.parametrize("name", UNIQUE)
def test_unique(name):
    check(UNIQUE[name], VALUES[0])
    f = functx.vmap(UNIQUE[name])
    assert_equal_trees(functx.vmap(f)(VALUES), loop_vmap(loop_vmap(UNIQUE[name]))(VALUES))


def test_no_examples():
    f = functx.vmap(lambda x: x[x > 0].sum())
    assert f(torch.zeros(0, 3)).shape == (0,)


def test_the_value_of_index_fill_counts_once():
    """However often its places are in the index, and however many they are in each example."""
    index = torch.tensor([[0, 0, 1], [2, 2, 2], [0, 1, 2]])
    x, value = randn(3, 3, 2), randn(3)

    def fill(x, value, i):
        return (x.index_fill(0, i, value) * torch.arange(6.0).view(3, 2)).square().sum()

    def fill_(x, value, i):
        return (x.clone().index_fill_(0, i, value) * torch.arange(6.0).view(3, 2)).square().sum()

    for f in (fill, fill_):
        check(f, x, value, index)
        gradient = functx.grad(f, (0, 1))
        expected = [gradient(*args) for args in zip(x, value, index, strict=True)]
        expected = tuple(torch.stack(column) for column in zip(*expected, strict=True))
        assert_equal_trees(functx.vmap(gradient)(x, value, index), expected)

        def total(x, value, f=f):
            return functx.vmap(f)(x, value, index).sum()

        assert_equal_trees(functx.grad(total, (0, 1))(x, value), expected)
