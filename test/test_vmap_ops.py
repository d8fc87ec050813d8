"""vmap of every operator of the table, each argument batched or not, against loop and stack."""

import itertools

import pytest
import torch
from _op_table import every_op
from _reference import assert_equal_trees, batching_patterns, loop_vmap

import functx

# A rule may reassociate sums, and that is all; integers and booleans are equal to the bit.
BATCH = 3


def check(transformed, reference, args):
    assert_equal_trees(transformed(*args), reference(*args))


@every_op
@pytest.mark.parametrize("dim", [0, -1])
def test_one_vmap(op, dim):
    for pattern in batching_patterns(len(op.args)):
        args = [
            x.movedim(0, dim) if flag else x
            for x, flag in zip(op.samples(pattern), pattern, strict=True)
        ]
        in_dims = tuple(dim if flag else None for flag in pattern)
        if op.writes_into_what_is_shared(pattern):
            with pytest.raises(RuntimeError, match="vmap"):
                functx.vmap(op.fn, in_dims)(*args)
        else:
            check(functx.vmap(op.fn, in_dims), loop_vmap(op.fn, in_dims), args)


def nested_patterns(count):
    """For each argument whether the outer and whether the inner vmap maps over it."""
    patterns = batching_patterns(count)
    if count > 3:  # 31 * 31 pairs for five arguments: every outer one with the whole or the same
        return [(p, q) for p in patterns for q in {patterns[0], p}]
    return itertools.product(patterns, repeat=2)


@every_op
def test_two_nested_vmaps(op):
    """The outer batch is dim 0 and the inner one the last."""
    for outer, inner in nested_patterns(len(op.args)):
        writable = not (
            op.writes_into_what_is_shared(outer) or op.writes_into_what_is_shared(inner)
        )
        if not writable:
            continue
        args = []
        for seed, (arg, o, i) in enumerate(zip(op.args, outer, inner, strict=True)):
            x = arg.sample((2,) * o + (BATCH,) * i, seed)
            args.append(x.movedim(int(o), -1) if i else x)
        outer_dims = tuple(0 if flag else None for flag in outer)
        inner_dims = tuple(-1 if flag else None for flag in inner)
        check(
            functx.vmap(functx.vmap(op.fn, inner_dims), outer_dims),
            loop_vmap(loop_vmap(op.fn, inner_dims), outer_dims),
            args,
        )


@every_op
def test_a_batch_of_one(op):
    flags = (True,) * len(op.args)
    check(functx.vmap(op.fn), loop_vmap(op.fn), op.samples(flags, batch=(1,)))


@every_op
def test_expanded_arguments(op):
    """A batch of stride 0, as every constant gets when it is expanded."""
    if op.writes:
        args = [x.expand(BATCH, *x.shape).clone() for x in op.samples()]
    else:
        args = [x.expand(BATCH, *x.shape) for x in op.samples()]
    before = [x.clone() for x in args]
    check(functx.vmap(op.fn), loop_vmap(op.fn), args)
    for x, old in zip(args, before, strict=True):
        assert torch.equal(x, old)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn])
def test_where_of_dtypes_that_do_not_promote(dtype):
    mask = torch.tensor([[True, False], [False, True], [True, True]])
    left, right = (torch.full((3, 2), value).to(dtype) for value in (1, 2))
    for in_dims in [(0, 0, 0), (0, None, None), (None, 0, 0), (0, 0, None)]:
        args = [
            x if dim == 0 else x[0] for x, dim in zip((mask, left, right), in_dims, strict=True)
        ]
        actual = functx.vmap(torch.where, in_dims)(*args)
        assert actual.dtype == dtype
        expected = loop_vmap(torch.where, in_dims)(*args)
        assert torch.equal(actual.to(torch.float64), expected.to(torch.float64))


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("columns", [0, 1, 2, 4])
@pytest.mark.parametrize("increasing", [False, True])
def test_vander_of_few_columns(size, columns, increasing):
    x = torch.arange(2.0 * size).reshape(2, size)
    check(
        functx.vmap(lambda x: torch.vander(x, columns, increasing)),
        loop_vmap(lambda x: torch.vander(x, columns, increasing)),
        (x,),
    )
    with pytest.raises(RuntimeError, match="non-negative"):
        functx.vmap(lambda x: torch.vander(x, -1))(x)
