"""A tensor of dimension 0 has dims 0 and -1 for every operator that takes dims. Under vmap such an
example is a row of the batch, which has those dims too, with another meaning."""

import pytest
import torch
from _reference import assert_equal_trees, loop_vmap, randn
from torch.nn import functional as F

import functx

WITH_KEEPDIM = {
    f.__name__: f
    for f in (
        *(
            torch.all,
            torch.amax,
            torch.amin,
            torch.any,
            torch.argmax,
            torch.argmin,
            torch.logsumexp,
        ),
        *(torch.max, torch.mean, torch.median, torch.min, torch.mode, torch.nanmean),
        *(torch.nanmedian, torch.nansum, torch.norm, torch.prod, torch.std, torch.std_mean),
        *(torch.sum, torch.var, torch.var_mean),
    )
}
WITH_KEEPDIM["aminmax"] = lambda x, dim, keepdim: torch.aminmax(x, dim=dim, keepdim=keepdim)
WITH_KEEPDIM["kthvalue"] = lambda x, dim, keepdim: torch.kthvalue(x, 1, dim, keepdim)
WITH_KEEPDIM["quantile"] = lambda x, dim, keepdim: torch.quantile(x, 0.3, dim, keepdim)
WITH_KEEPDIM["nanquantile"] = lambda x, dim, keepdim: torch.nanquantile(x, 0.3, dim, keepdim)
for order in (0, 0.5, 1, 2, 3, float("inf"), -float("inf")):
    WITH_KEEPDIM[f"vector_norm_{order}"] = lambda x, dim, keepdim, order=order: (
        torch.linalg.vector_norm(x, order, dim, keepdim)
    )
    WITH_KEEPDIM[f"norm_{order}"] = lambda x, dim, keepdim, order=order: torch.norm(
        x, order, dim, keepdim
    )
OF_DIM_LISTS = [
    *(
        "all",
        "amax",
        "amin",
        "any",
        "logsumexp",
        "mean",
        "nansum",
        "norm",
        "std",
        "std_mean",
        "sum",
    ),
    *("var", "var_mean", "vector_norm_2", "vector_norm_inf", "norm_1"),
]

INDEX = torch.tensor(0)
ALONG_DIM = {
    "argsort": torch.argsort,
    "count_nonzero": torch.count_nonzero,
    "cummax": torch.cummax,
    "cummin": torch.cummin,
    "cumprod": torch.cumprod,
    "cumsum": torch.cumsum,
    "flip": lambda x, dim: torch.flip(x, (dim,)),
    "gather": lambda x, dim: torch.gather(x, dim, INDEX),
    "index_add": lambda x, dim: torch.index_add(x, dim, INDEX, x.exp()),
    "index_copy": lambda x, dim: torch.index_copy(x, dim, INDEX, x.exp()),
    "index_fill": lambda x, dim: torch.index_fill(x, dim, INDEX, 2.0),
    "index_select": lambda x, dim: torch.index_select(x, dim, INDEX),
    "log_softmax": torch.log_softmax,
    "logcumsumexp": torch.logcumsumexp,
    "topk": lambda x, dim: torch.topk(x, 1, dim),
    "roll": lambda x, dim: torch.roll(x, 2, dim),
    "scatter": lambda x, dim: torch.scatter(x, dim, INDEX, x.exp()),
    "scatter_add": lambda x, dim: torch.scatter_add(x, dim, INDEX, x.exp()),
    "scatter_reduce": lambda x, dim: torch.scatter_reduce(x, dim, INDEX, x.exp(), "amax"),
    "scatter_value": lambda x, dim: torch.scatter(x, dim, INDEX, 3.0),
    "softmax": torch.softmax,
    "softmin": F.softmin,
    "sort": torch.sort,
    "sort_descending": lambda x, dim: torch.sort(x, dim, descending=True),
    "sort_stable": lambda x, dim: torch.sort(x, stable=True, dim=dim),
    "squeeze": torch.squeeze,
    "squeeze_dims": lambda x, dim: torch.squeeze(x, (dim,)),
    "take_along_dim": lambda x, dim: torch.take_along_dim(x, INDEX, dim),
    "transpose": lambda x, dim: torch.transpose(x, dim, dim),
    "unfold": lambda x, dim: x.unfold(dim, 1, 1),
    "unsqueeze": lambda x, dim: torch.unsqueeze(x, dim),
    "normalize": lambda x, dim: F.normalize(x, dim=dim),
    "cosine_similarity": lambda x, dim: F.cosine_similarity(x, x.exp(), dim),
    "masked_norm": lambda x, dim: torch.masked.norm(x, 2.0, dim),
    "masked_normalize": lambda x, dim: torch.masked.normalize(x, 2.0, dim),
    "masked_softmax": lambda x, dim: torch.masked.softmax(x, dim, mask=x > 0),
    "masked_sum": lambda x, dim: torch.masked.sum(x, dim, mask=x > 0),
    "masked_var": lambda x, dim: torch.masked.var(x, dim),
}


def check(f):
    """Against a loop; where PyTorch itself refuses a scalar, so must vmap."""
    x = randn(3)
    try:
        expected = loop_vmap(f)(x)
    except (RuntimeError, IndexError) as error:
        with pytest.raises(type(error)):
            functx.vmap(f)(x)
        return
    assert_equal_trees(functx.vmap(f)(x), expected, equal_nan=True)
    xs = randn(2, 3)
    assert_equal_trees(functx.vmap(functx.vmap(f))(xs), loop_vmap(loop_vmap(f))(xs), equal_nan=True)


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("name", sorted(WITH_KEEPDIM))
def test_reductions(name, dim, keepdim):
    check(lambda x: WITH_KEEPDIM[name](x, dim=dim, keepdim=keepdim))


@pytest.mark.parametrize("dims", [(), (0,), (-1,), (0, -1)])
@pytest.mark.parametrize("name", sorted(OF_DIM_LISTS))
def test_reductions_over_lists_of_dims(name, dims):
    check(lambda x: WITH_KEEPDIM[name](x, dim=dims, keepdim=False))


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("name", sorted(ALONG_DIM))
def test_along_a_dim(name, dim):
    check(lambda x: ALONG_DIM[name](x, dim))


@pytest.mark.parametrize("dim", [1, -2])
@pytest.mark.parametrize("name", sorted(WITH_KEEPDIM))
def test_other_dims_do_not_exist(name, dim):
    """A dim out of range must not reach the batch dimension."""
    with pytest.raises(IndexError, match=r"(?i)dimension out of range"):
        functx.vmap(lambda x: WITH_KEEPDIM[name](x, dim=dim, keepdim=False))(randn(3))
