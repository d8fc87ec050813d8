"""as_strided sees the memory of its own example only."""

import pytest
import torch
from _op_db import scattered_by_choice
from _reference import assert_equal_trees, autograd_grad, loop_vmap, randn

import functx

CONTIGUOUS = torch.contiguous_format

# Shapes of one example, and views of it by size, stride and offset.
VIEWS = [
    ((4,), (2, 2), (1, 2), 0),
    ((4,), (3, 2), (1, 1), 0),
    ((3, 4), (3, 2), (4, 2), 0),
    ((3, 4), (3,), (5,), None),
    ((3, 4), (2, 3), (1, 4), 1),
    ((3, 4), (12,), (1,), 0),
    ((3, 4), (2, 2), (0, 3), 2),
]


def contiguous_view(size, stride, offset):
    def f(x):
        x = x.clone(memory_format=CONTIGUOUS)
        return x.as_strided(size, stride, offset)

    return f


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("dim", [0, -1])
def test_contiguous_examples(view, dim):
    shape, *geometry = view
    f = contiguous_view(*geometry)
    x = randn(3, *shape).movedim(0, dim).contiguous()
    assert_equal_trees(functx.vmap(f, dim)(x), loop_vmap(f, dim)(x))

    def loss(x):
        return f(x).square().sum()

    expected = torch.stack([functx.grad(loss)(example) for example in x.unbind(dim)])
    assert_equal_trees(functx.vmap(functx.grad(loss), dim)(x), expected)


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_copies_take_contiguous_examples(view, dim):
    """Where the batch is interleaved, the strides of a contiguous example reach into others."""
    shape, size, stride, offset = view
    if size == (3, 2) and stride == (4, 2):
        size, stride = (3, 2), (4, 1)  # 4 and 2 are strides of another batch size, too
    x = randn(7, *shape).movedim(0, dim).contiguous()

    def copy(x):
        return torch.as_strided_copy(x, size, stride, offset)

    numbers = torch.arange(2.0)

    def scatter(x):
        return torch.as_strided_scatter(x, numbers, (2,), (1,), 1)

    def right_scatter(x):
        return scattered_by_choice(x, numbers, (2,), (1,), 1)

    for f, right in (copy, copy), (scatter, right_scatter):
        examples = [example.clone(memory_format=CONTIGUOUS) for example in x.unbind(dim)]
        expected = torch.stack([f(example) for example in examples])
        assert_equal_trees(functx.vmap(f, dim)(x), expected)

        def loss(x, f=f):
            return f(x).square().sum()

        def right_loss(x, right=right):
            return right(x).square().sum()

        expected = [autograd_grad(right_loss, example)[0] for example in examples]
        for gradient, example in zip(expected, examples, strict=True):
            assert_equal_trees(functx.grad(loss)(example), gradient)
        assert_equal_trees(functx.vmap(functx.grad(loss), dim)(x), torch.stack(expected))


@pytest.mark.parametrize(
    ("shape", "dim"), [((4, 3), 1), ((2, 4, 3), 1), ((2, 4, 3), 2), ((5, 4), 0)]
)
def test_its_own_strides(shape, dim):
    """These are a view in memory, wherever the batch lies, and for views of views too."""

    def whole(x):
        return x.as_strided(x.shape, x.stride(), x.storage_offset())

    def reversed_dims(x):
        return x.as_strided(x.shape[::-1], x.stride()[::-1])

    def back_to_the_base(x):
        return x[1:].as_strided(x.shape, x.stride(), x.storage_offset())

    def tail(x):
        return x.as_strided(x[1:].shape, x.stride(), x.storage_offset() + x.stride(0))

    base = randn(*(n + 2 for n in shape))
    for x in (randn(*shape), base[tuple(slice(1, 1 + n) for n in shape)]):
        for f in (whole, reversed_dims, back_to_the_base, tail):
            assert_equal_trees(functx.vmap(f, dim)(x), loop_vmap(f, dim)(x))
            write = functx.vmap(lambda x, f=f: f(x).mul_(2), dim)
            y = x.clone(memory_format=torch.preserve_format)
            write(y)
            z = x.clone(memory_format=torch.preserve_format)
            for example in z.unbind(dim):
                f(example).mul_(2)
            assert torch.equal(y, z)


REACHING = {
    "interleaved": (randn(4, 3), 1, (2,), (1,), 0),
    "interleaved rows": (randn(2, 3, 4), 1, (2, 4), (4, 1), 0),
    "beyond the end": (randn(3, 4), 0, (5,), (1,), 0),
    "from another": (randn(3, 4), 0, (2,), (1,), 4),
    "over the edge": (randn(3, 4), 0, (2,), (1,), 3),
}


@pytest.mark.parametrize("name", REACHING)
@pytest.mark.parametrize("inplace", [False, True])
def test_reaching_into_others(name, inplace):
    x, dim, *geometry = REACHING[name]

    def f(x):
        return (x[:].as_strided_ if inplace else x.as_strided)(*geometry)

    with pytest.raises(RuntimeError, match=r"into that of others.*x\.contiguous\(\)"):
        functx.vmap(f, dim)(x)
    with pytest.raises(RuntimeError, match=r"into that of others.*x\.contiguous\(\)"):
        functx.vmap(functx.vmap(f, dim))(torch.stack([x, x]))


def test_overlapping_examples():
    windows = torch.arange(6.0).unfold(0, 3, 1)
    doubled = functx.vmap(lambda w: w.as_strided(w.shape, w.stride(), w.storage_offset()) * 2)
    assert torch.equal(doubled(windows), windows * 2)


def test_shared_memory():
    x = randn(4)
    for scatter_offset in (0, 1):

        def f(x, y, offset=scatter_offset):
            return torch.as_strided_scatter(x, y, (2,), (2,), offset)

        for shared in (x, randn(4, 3)[:, 1], randn(6)[1:5]):
            y = randn(3, 2)
            if shared.storage_offset() and not scatter_offset:
                continue
            assert_equal_trees(
                functx.vmap(f, (None, 0))(shared, y), loop_vmap(f, (None, 0))(shared, y)
            )
        expanded = x.expand(3, 4)
        y = randn(3, 2)
        assert_equal_trees(functx.vmap(f)(expanded, y), loop_vmap(f)(expanded, y))
