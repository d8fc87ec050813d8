"""x[i] and x[i] = y with batched indices of dimension 0."""

import pytest
import torch
from _reference import assert_equal_trees, loop_vmap, randn

import functx

X, FIRST, SECOND = randn(3, 4, 5, 6), torch.tensor([0, -1, 2]), torch.tensor([1, 3, 0])
ROWS = torch.tensor([0, 2])

READS = {
    "one": lambda x, i, j: x[i],
    "two": lambda x, i, j: x[i, j],
    "apart": lambda x, i, j: x[i, :, j],
    "last": lambda x, i, j: x[..., i],
    "slice": lambda x, i, j: x[1:, i],
    "int and slice": lambda x, i, j: x[1, i, ::2],
    "none": lambda x, i, j: x[None, i, None, ..., j],
    "vector": lambda x, i, j: x[i, ROWS],
    "vector apart": lambda x, i, j: x[ROWS, i, 1:],
    "vector first": lambda x, i, j: x[:, i, ROWS],
    "mask": lambda x, i, j: x[torch.tensor([True, False, True, True]), i],
    "list": lambda x, i, j: x[[0, 2], :, i],
    "int32": lambda x, i, j: x[i.int()],
    "int8": lambda x, i, j: x[i.to(torch.int8)],
    "twice": lambda x, i, j: x[i][j],
    "method": lambda x, i, j: x.__getitem__(i),
    "parameter": lambda x, i, j: torch.nn.Parameter(torch.arange(8.0))[i] + x,
    "constant": lambda x, i, j: torch.arange(8)[i] + x,
}
PATTERNS = [(0, 0, 0), (None, 0, 0), (0, 0, None), (None, 0, None)]


def example(value, dim):
    return value if dim == 0 else value[0]


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_reading(name, pattern):
    f = READS[name]
    args = [example(*pair) for pair in zip((X, FIRST, SECOND), pattern, strict=True)]
    assert_equal_trees(functx.vmap(f, pattern)(*args), loop_vmap(f, pattern)(*args))


def written(index, value):
    def f(x, i, j):
        x = x.clone()
        x[index(i, j)] = value(x, i)
        return x

    return f


WRITES = {
    "one": written(lambda i, j: i, lambda x, i: x[0] * 2),
    "number": written(lambda i, j: i, lambda x, i: 3),
    "broadcast": written(lambda i, j: (i, j), lambda x, i: x[0, 0, 0]),
    "ones in front": written(lambda i, j: i, lambda x, i: x[:1] * 2),
    "other dtype": written(lambda i, j: (i, j), lambda x, i: i),
    "slice": written(lambda i, j: (i, slice(1, 3)), lambda x, i: x[1, :2]),
    "apart": written(lambda i, j: (i, slice(None), j), lambda x, i: x[0, :, 0]),
    "vector": written(lambda i, j: (ROWS, i), lambda x, i: x[:2, 0] + 1),
    "ellipsis": written(lambda i, j: (..., i), lambda x, i: x[..., 0] + 1),
}


@pytest.mark.parametrize("name", WRITES)
def test_writing(name):
    f = WRITES[name]
    assert_equal_trees(functx.vmap(f)(X, FIRST, SECOND), loop_vmap(f)(X, FIRST, SECOND))
    if name != "number":
        dims = (0, 0, None)
        assert_equal_trees(
            functx.vmap(f, dims)(X, FIRST, SECOND[0]), loop_vmap(f, dims)(X, FIRST, SECOND[0])
        )


def test_adding_in_place():
    def f(x, i):
        x = x * 2
        x[i, 1:] += x[0, :-1].clone()
        return x

    assert_equal_trees(functx.vmap(f)(X, FIRST), loop_vmap(f)(X, FIRST))
    assert_equal_trees(
        functx.vmap(functx.vmap(f, (0, None)))(X[:, None], FIRST),
        loop_vmap(loop_vmap(f, (0, None)))(X[:, None], FIRST),
    )


@pytest.mark.parametrize("name", ["one", "apart", "vector", "slice"])
def test_derivatives(name):
    for f in (READS[name], WRITES[name]):

        def loss(x, i, j, f=f):
            return f(x.sin(), i, j).square().sum()

        gradient = functx.grad(loss)
        expected = torch.stack([gradient(*args) for args in zip(X, FIRST, SECOND, strict=True)])
        assert_equal_trees(functx.vmap(gradient)(X, FIRST, SECOND), expected)
        whole = functx.grad(lambda x, loss=loss: functx.vmap(loss)(x, FIRST, SECOND).sum())(X)
        assert_equal_trees(whole, expected)

        def push(x, i, j, loss=loss):
            return functx.jvp(lambda x: loss(x, i, j), (x,), (x,))[1]

        assert_equal_trees(functx.vmap(push)(X, FIRST, SECOND), (expected * X).flatten(1).sum(1))


def test_an_outer_index_inside():
    def f(x, i):
        return functx.vmap(lambda row: row[i])(x)

    assert_equal_trees(functx.vmap(f)(X, FIRST), loop_vmap(f)(X, FIRST))


def test_writing_into_what_is_shared():
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="the same for every example"):
        functx.vmap(lambda i: shared.__setitem__(i, 1.0))(FIRST)
    assert not shared.any()


def test_out_of_range():
    with pytest.raises(IndexError, match=r"out of bounds|out of range"):
        functx.vmap(lambda x, i: x[i])(X, FIRST + 5)
    with pytest.raises(IndexError, match="too many indices"):
        functx.vmap(lambda x, i: x[0, 0, 0, i])(X, FIRST)


def test_other_indices_are_pytorch_s():
    x = torch.arange(12).view(3, 4)
    assert x[torch.tensor(1), 2] == 6
    x[torch.tensor(0)] = 7
    assert x[0].tolist() == [7] * 4
    with pytest.raises(TypeError, match="deleting"):
        del x[0]
