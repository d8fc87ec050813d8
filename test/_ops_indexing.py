"""Indexing by numbers, slices and tensors; gather, scatter and their relatives."""

import torch
from _ops import boolean, index, inplace, integer, op, partition, permutation, positive, real
from torch.nn import functional as F

X, ROW, SCALAR, CUBE = real(3, 4), real(4), real(), real(3, 2, 4)
ROWS, COLUMNS = index(3, 2), index(4, 2)
BAGS = torch.tensor([0, 2, 2, 6])  # the last is the end

BASIC = [
    op("getitem_int", lambda x: x[1], X),
    op("getitem_ints", lambda x: x[-1, 2], X),
    op("getitem_slice", lambda x: x[1:], X),
    op("getitem_step", lambda x: x[::2, 1::2], X),
    op("getitem_ellipsis", lambda x: x[..., -1], CUBE),
    op("getitem_none", lambda x: x[:, None, 1:3], X),
    op("getitem_mixed", lambda x: x[1, ..., None, ::2], CUBE),
    op("getitem_empty", lambda x: x[3:], X),
    op("slice_then_square", lambda x: x[:2, :2] ** 2, X),
]

BY_TENSOR = [
    op("index_rows", lambda x, i: x[i], X, ROWS),
    op("index_columns", lambda x, j: x[:, j], X, COLUMNS),
    op("index_both", lambda x, i, j: x[i, j], X, ROWS, COLUMNS),
    op("index_outer", lambda x, i, j: x[i[:, None], j], X, ROWS, COLUMNS),
    op("index_around_slice", lambda x, i, j: x[i, :, j], CUBE, ROWS, COLUMNS),
    op("index_none", lambda x, i: x[None, i], X, ROWS),
    op("index_int_and_tensor", lambda x, j: x[1, :, j], CUBE, COLUMNS),
    op("index_scalar", lambda x, i: x[i], X, index(3)),
    op("index_matrix", lambda x, i: x[i], X, index(3, 2, 2)),
    op("index_negative", lambda x, i: x[i - 3], X, ROWS),
    op("index_list", lambda x: x[[0, 2]], X),
    op("index_constant", lambda x: x[torch.tensor([2, 0]), 1:], X),
    op("index_last", lambda x, j: x[..., j], CUBE, COLUMNS),
    op("index_constant_mask", lambda x: x[torch.tensor([True, False, True])], X),
    op("index_select", lambda x, i: x.index_select(0, i), X, ROWS),
    op("index_select_last", lambda x, j: x.index_select(-1, j), CUBE, COLUMNS),
    op("index_select_scalar", lambda x, i: x.index_select(0, i), ROW, index(4, 1)),
    op("gather", lambda x, i: x.gather(1, i), X, index(4, 3, 2)),
    op("gather_dim0", lambda x, i: x.gather(0, i), X, index(3, 2, 4)),
    op("gather_scalar", lambda x, i: x.gather(0, i), SCALAR, index(1)),
    op("take", torch.take, X, index(12, 2, 2)),
    op("take_along_dim", lambda x, i: torch.take_along_dim(x, i, 1), X, index(4, 3, 2)),
    op("sort_by_permutation", lambda x, p: x.gather(-1, p), X, permutation(3, 4)),
    op("embedding", lambda w, i: F.embedding(i, w), real(5, 3), index(5, 2, 2)),
    # Neither mode differentiates by the row at the padding index; finite differences would.
    op(
        "embedding_padding",
        lambda w, i: F.embedding(i, w, padding_idx=1),
        real(5, 3),
        index(5, 4),
        forward=False,
    ),
    op("embedding_scalar", lambda w, i: F.embedding(i, w), real(5, 3), index(5)),
    op(
        "embedding_bag",
        lambda w, i: F.embedding_bag(i, w, mode="sum"),
        real(5, 3),
        index(5, 2, 3),
    ),
    *(
        op(
            f"embedding_bag_{mode}",
            lambda w, i, n, mode=mode: F.embedding_bag(
                i, w, n.cumsum(-1) - n, mode=mode, padding_idx=1
            ),
            real(5, 3),
            index(5, 6),
            partition(6, 3),
        )
        for mode in ("sum", "mean", "max")
    ),
    op(
        "embedding_bag_weights",
        lambda w, i, f: F.embedding_bag(
            i, w, BAGS, mode="sum", per_sample_weights=f, include_last_offset=True
        ),
        real(5, 3),
        index(5, 6),
        real(6),
    ),
    op(
        "embedding_bag_frequency",
        lambda w, i: F.embedding_bag(i, w, mode="mean", scale_grad_by_freq=True),
        real(5, 3),
        index(5, 2, 3),
        forward=False,  # by definition its gradient is not its derivative
    ),
    op(
        "embedding_renorm",
        lambda w, i: torch.ops.aten.embedding_renorm(w, i, 1.0, 2.0),
        real(5, 3),
        index(5, 4),
        differentiable=False,
    ),
    op(
        "embedding_max_norm",
        lambda w, i: F.embedding(i, w.clone(), max_norm=1.0),
        real(5, 3),
        index(5, 4),
        differentiable=False,
    ),
    op("searchsorted", torch.searchsorted, positive(4), SCALAR, differentiable=False),
    op("bucketize", torch.bucketize, X, positive(4), differentiable=False),
    op("isin", torch.isin, integer(3), integer(2), differentiable=False),
]

SCATTERS = [
    op("scatter", lambda x, p, s: x.scatter(1, p, s), X, permutation(3, 4), real(3, 4)),
    op("scatter_part", lambda x, i, s: x.scatter(0, i, s), X, index(3, 1, 4), real(1, 4)),
    op("scatter_number", lambda x, i: x.scatter(1, i, 2.0), X, index(4, 3, 1)),
    op("scatter_add", lambda x, i, s: x.scatter_add(1, i, s), X, index(4, 3, 2), real(3, 2)),
    op(
        "scatter_reduce_sum",
        lambda x, i, s: x.scatter_reduce(0, i, s, "sum"),
        ROW,
        index(4, 5),
        real(5),
    ),
    op(
        "scatter_reduce_amax",
        lambda x, i, s: x.scatter_reduce(0, i, s, "amax"),
        ROW,
        index(4, 5),
        real(5),
    ),
    op("index_add", lambda x, i, s: x.index_add(0, i, s, alpha=2), X, ROWS, real(2, 4)),
    op("index_add_last", lambda x, i, s: x.index_add(-1, i, s), X, COLUMNS, real(3, 2)),
    op("index_copy", lambda x, s: x.index_copy(0, torch.tensor([2, 0]), s), X, real(2, 4)),
    op("index_fill", lambda x, i: x.index_fill(1, i, 0.5), X, COLUMNS),
    op("index_put", lambda x, p, s: x.index_put((p,), s), ROW, permutation(4), ROW),
    op(
        "index_put_accumulate",
        lambda x, i, j, s: x.index_put((i, j), s, accumulate=True),
        X,
        ROWS,
        COLUMNS,
        real(2),
    ),
    op("select_scatter", lambda x, s: torch.select_scatter(x, s, 0, 1), X, ROW),
    op("slice_scatter", lambda x, s: torch.slice_scatter(x, s, 1, 1, 3), X, real(3, 2)),
    op("diagonal_scatter", torch.diagonal_scatter, real(3, 3), real(3)),
    op("masked_scatter_by_where", lambda x, m, s: torch.where(m, s, x), X, boolean(3, 4), X),
]

WRITES = [
    inplace("setitem_int", lambda x, v: (x.__setitem__(1, v), x)[1], X, ROW),
    inplace("setitem_number", lambda x: (x.__setitem__((0, 1), 5.0), x)[1], X),
    inplace(
        "setitem_slice",
        lambda x, v: (x.__setitem__((slice(1, None), slice(2)), v), x)[1],
        X,
        SCALAR,
    ),
    inplace("setitem_ellipsis", lambda x, v: (x.__setitem__((..., -1), v), x)[1], X, real(3)),
    inplace(
        "setitem_tensor", lambda x, v: (x.__setitem__(torch.tensor([2, 0]), v), x)[1], X, real(2, 4)
    ),
    inplace(
        "setitem_permutation", lambda x, p, v: (x.__setitem__(p, v), x)[1], ROW, permutation(4), ROW
    ),
    inplace(
        "setitem_columns",
        lambda x, v: (x.__setitem__((slice(None), [0, 3]), v), x)[1],
        X,
        real(3, 2),
    ),
    inplace(
        "setitem_index_and_slice",
        lambda x, v: (x.__setitem__((torch.tensor([2, 0]), slice(1, 3)), v), x)[1],
        X,
        real(2, 2),
    ),
    inplace("scatter_", lambda x, p, s: x.scatter_(1, p, s), X, permutation(3, 4), real(3, 4)),
    inplace("scatter_add_", lambda x, i, s: x.scatter_add_(1, i, s), X, index(4, 3, 2), real(3, 2)),
    inplace("scatter_number_", lambda x, i: x.scatter_(0, i, 2.0), X, index(3, 1, 4)),
    inplace("index_add_", lambda x, i, s: x.index_add_(0, i, s), X, ROWS, real(2, 4)),
    inplace("index_copy_", lambda x, s: x.index_copy_(1, torch.tensor([3, 1]), s), X, real(3, 2)),
    inplace("index_fill_", lambda x, i: x.index_fill_(0, i, 0.5), X, ROWS),
    inplace(
        "index_put_accumulate_",
        lambda x, i, s: x.index_put_((i,), s, accumulate=True),
        ROW,
        index(4, 6),
        real(6),
    ),
]

OPS = [*BASIC, *BY_TENSOR, *SCATTERS, *WRITES]
