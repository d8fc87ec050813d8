"""Rules that choose between ways to compute the same: every way agrees with the loop."""

import pytest
import torch
import torch.nn.functional as F
from _reference import assert_equal_trees, batching_patterns, loop_vmap
from torch.testing import assert_close

import functx

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.int32, torch.uint8]


def numbers(*shape, dtype=torch.float64):
    return torch.randint(0, 9, shape).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
# The last is more than is multiplied at once.
@pytest.mark.parametrize("shape", [(3, 0), (3, 5), (7, 1 << 18), (3, 1 << 20)], ids=str)
def test_dot(dtype, shape):
    x, y = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype)
    tolerances = {"rtol": 1e-2, "atol": 0} if dtype == torch.bfloat16 else {}
    assert_close(functx.vmap(torch.dot)(x, y), loop_vmap(torch.dot)(x, y), **tolerances)


def test_dot_refuses_what_it_refuses_without_vmap():
    with pytest.raises(RuntimeError):
        functx.vmap(torch.dot)(torch.randn(5, 1), torch.randn(5, 9))
    with pytest.raises(RuntimeError):
        functx.vmap(torch.dot)(torch.randn(5, 9), torch.randn(5, 9).double())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 2, 0)], ids=str)
def test_mv_of_matrices_in_any_layout(dtype, order):
    matrices = numbers(3, 4, 5, dtype=dtype)
    inverse = [order.index(dim) for dim in range(3)]
    laid_out = matrices.permute(order).contiguous().permute(inverse)
    vectors = numbers(3, 5, dtype=dtype)
    assert_close(functx.vmap(torch.mv)(laid_out, vectors), loop_vmap(torch.mv)(matrices, vectors))


ROWS = {
    "embedding": lambda table, i: F.embedding(i, table),
    "index_select": lambda table, i: table.index_select(0, i),
}
each_way = pytest.mark.parametrize("name", ROWS)


@each_way
@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.parametrize("count", [0, 4])
def test_rows_of_a_table_each(name, width, count):
    rows = ROWS[name]
    tables, indices = torch.randn(3, 7, width), torch.randint(7, (3, count))
    assert_close(functx.vmap(rows)(tables, indices), loop_vmap(rows)(tables, indices))
    gradient = functx.grad(lambda table, i: rows(table, i).sin().sum())
    assert_close(functx.vmap(gradient)(tables, indices), loop_vmap(gradient)(tables, indices))


@each_way
@pytest.mark.parametrize("wrong", [-1, 7])
def test_a_row_is_not_taken_from_the_table_of_another_example(name, wrong):
    indices = torch.zeros(3, 4, dtype=torch.long)
    indices[1, 2] = wrong
    with pytest.raises(IndexError, match="out of range"):
        functx.vmap(ROWS[name])(torch.randn(3, 7, 6), indices)


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (3, 2, 5, 8)], ids=str)
@pytest.mark.parametrize("masked", ["no mask", "shared mask", "own mask", "causal"])
def test_attention_of_any_rank(shape, masked):
    inputs = [torch.randn(4, *shape) for _ in range(3)]
    masks = {"shared mask": torch.randn(5, 5), "own mask": torch.randn(4, *shape[:-1], 5)}
    mask = masks.get(masked)
    extra = () if mask is None else (mask,)
    extra_dims = () if mask is None else (0 if masked == "own mask" else None,)

    def attend(query, key, value, mask=None):
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=masked == "causal")

    gradient = functx.grad(lambda *args: attend(*args).sin().sum(), argnums=(0, 1, 2))
    for pattern in batching_patterns(3):
        dims = (*(0 if own else None for own in pattern), *extra_dims)
        args = [x if own else x[0] for x, own in zip(inputs, pattern, strict=True)]
        for f in (attend, gradient):
            assert_equal_trees(
                functx.vmap(f, dims)(*args, *extra), loop_vmap(f, dims)(*args, *extra)
            )


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (3, 2, 5, 8)], ids=str)
def test_gradient_of_an_attention_mask_through_the_batch(shape):
    inputs = [torch.randn(4, *shape) for _ in range(3)]
    mask = torch.randn(5, 5)

    def total(vmap):
        attend = vmap(F.scaled_dot_product_attention, (0, 0, 0, None))
        return lambda mask: attend(*inputs, mask).sin().sum()

    leaf = mask.clone().requires_grad_()
    expected = torch.autograd.grad(total(loop_vmap)(leaf), leaf)[0]
    assert_close(functx.grad(total(functx.vmap))(mask), expected)
