"""Reductions, scans, sorting, softmax and norms of vectors."""

import torch
from _ops import boolean, inplace, integer, op, partition, positive, real
from torch.nn import functional as F

X, VECTOR, SCALAR, CUBE = real(2, 3), real(4), real(), real(2, 3, 4)
BOOL = boolean(2, 3)

# PyTorch 2.11 has no gradient of it.
AMINMAX_HAS_A_GRADIENT = (
    "NotImplemented" not in torch.aminmax(torch.ones(1, requires_grad=True)).min.grad_fn.name()
)


def _over_dims(name, fn, arg=X, **options):
    """All elements; one dim, counted from either end; keepdim; several dims."""
    return [
        op(f"{name}_all", lambda x: fn(x), arg, **options),
        op(f"{name}_dim0", lambda x: fn(x, dim=0), arg, **options),
        op(f"{name}_last_keepdim", lambda x: fn(x, dim=-1, keepdim=True), arg, **options),
    ]


def _several_dims(name, fn, **options):
    return op(f"{name}_dims", lambda x: fn(x, dim=(0, -1)), CUBE, **options)


SUMS = [
    *_over_dims("sum", torch.sum),
    *_over_dims("mean", torch.mean),
    *_over_dims("prod", torch.prod),
    *_over_dims("nansum", torch.nansum),
    *_over_dims("std", torch.std),
    *_over_dims("any", torch.any, BOOL, differentiable=False),
    *_over_dims("all", torch.all, BOOL, differentiable=False),
    *_over_dims("sum_bool", torch.sum, BOOL, differentiable=False),
    *_over_dims("argmax", torch.argmax, differentiable=False),
    *_over_dims("argmin", torch.argmin, differentiable=False),
    *[
        _several_dims(n, getattr(torch, n))
        for n in ["sum", "mean", "amax", "amin", "logsumexp", "var"]
    ],
    op("sum_dtype", lambda x: x.sum(0, dtype=torch.float64), integer(2, 3), differentiable=False),
    op("sum_of_scalar", torch.sum, SCALAR),
    op("mean_of_scalar", torch.mean, SCALAR),
    op("sum_dim_of_scalar", lambda x: x.sum(0), SCALAR),
    op("var_correction", lambda x: torch.var(x, dim=1, correction=0), X),
    op("std_mean", lambda x: torch.std_mean(x, dim=-1), X),
    op("var_mean", lambda x: torch.var_mean(x, dim=(0, 1), keepdim=True), X),
    op("logsumexp", lambda x: torch.logsumexp(x, 1, keepdim=True), X),
    op("count_nonzero", lambda x: torch.count_nonzero(x, 0), integer(2, 3), differentiable=False),
    op("trace", torch.trace, real(3, 3)),
    op("nanmean", lambda x: torch.nanmean(x, 0), X),
]

EXTREMA = [
    op("max_all", torch.max, X),
    op("min_all", torch.min, X),
    op("max_dim", lambda x: torch.max(x, 0), X),
    op("min_dim_keepdim", lambda x: torch.min(x, -1, keepdim=True), X),
    op("amax", lambda x: x.amax(1), X),
    op("amin_keepdim", lambda x: x.amin(0, keepdim=True), X),
    op("aminmax", lambda x: tuple(torch.aminmax(x, dim=1)), X, reverse=AMINMAX_HAS_A_GRADIENT),
    op("median_all", torch.median, X),
    op("median_dim", lambda x: tuple(torch.median(x, 1)), X),
    op("kthvalue", lambda x: tuple(torch.kthvalue(x, 2, dim=-1)), X),
    op("sort", lambda x: tuple(torch.sort(x, -1)), X),
    op("sort_descending", lambda x: tuple(torch.sort(x, 0, descending=True)), X),
    op("sort_stable", lambda x: tuple(torch.sort(x, dim=-1, stable=True)), X),
    op("sort_of_scalar", lambda x: tuple(torch.sort(x)), SCALAR),
    op("msort", torch.msort, X),
    op("argsort", lambda x: torch.argsort(x, 1), X, differentiable=False),
    op("topk", lambda x: tuple(torch.topk(x, 2, dim=-1)), X),
    op("topk_smallest", lambda x: tuple(torch.topk(x, 1, dim=0, largest=False)), X),
    op("quantile", lambda x: torch.quantile(x, 0.3, dim=-1), X),
]

SCANS = [
    op("cumsum", lambda x: x.cumsum(-1), X),
    op("cumsum_integer", lambda x: x.cumsum(0), integer(2, 3), differentiable=False),
    op("cumsum_of_scalar", lambda x: x.cumsum(0), SCALAR),
    op("cumprod", lambda x: x.cumprod(0), X),
    op("cummax", lambda x: tuple(torch.cummax(x, -1)), X),
    op("cummin", lambda x: tuple(torch.cummin(x, 0)), X),
    op("logcumsumexp", lambda x: torch.logcumsumexp(x, 1), X),
    op("diff", lambda x: torch.diff(x, dim=-1), X),
    op("trapezoid", lambda x: torch.trapezoid(x, dx=0.5, dim=0), X),
    inplace("cumsum_", lambda x: x.cumsum_(1), X),
]

NORMS = [
    op("norm_2", lambda x: torch.linalg.vector_norm(x), X),
    op("norm_1_dim", lambda x: torch.linalg.vector_norm(x, 1, dim=0), X),
    op("norm_3_keepdim", lambda x: torch.linalg.vector_norm(x, 3, dim=-1, keepdim=True), X),
    op("norm_inf", lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1), X),
    op("norm_method", lambda x: x.norm(), X),
    op("norm_method_dim", lambda x: x.norm(p=2, dim=-1), X),
    *[
        op(f"aten_norm_{name}", lambda x, f=f: f(torch.ops.aten.norm, x), X)
        for name, f in {
            "all": lambda norm, x: norm.Scalar(x, 3),
            "all_dtype": lambda norm, x: norm.ScalarOpt_dtype(x, 3, dtype=torch.float64),
            "dim": lambda norm, x: norm.ScalarOpt_dim(x, None, [-1]),
            "dim_dtype": lambda norm, x: norm.ScalarOpt_dim_dtype(
                x, 1, [0], True, dtype=torch.float64
            ),
        }.items()
    ],
    op("norm_frobenius", lambda x: torch.linalg.norm(x), X),
    op("norm_nuclear", lambda x: torch.linalg.matrix_norm(x, "nuc"), X),
    op("dist", torch.dist, X, X),
    op("normalize", lambda x: F.normalize(x, dim=-1), X),
    op("cosine_similarity", lambda x, y: F.cosine_similarity(x, y, dim=-1), X, X),
    op("pairwise_distance", F.pairwise_distance, X, X),
    op("cdist", torch.cdist, X, real(4, 3)),
    *(
        op(
            f"pdist_{p}",
            lambda x, p=p: F.pdist(x, p),
            real(4, 3),
        )
        for p in (0.0, 1.0, 1.5, 2.0, 3.0, float("inf"))
    ),
    op("renorm", lambda x: torch.renorm(x, 2, 0, 1.3), X),
]

SEGMENTS = [
    op(
        f"segment_{reduction}",
        lambda x, n, reduction=reduction, initial=initial: torch.segment_reduce(
            x, reduction, lengths=n, initial=initial
        ),
        real(6, 2),
        partition(6, 3),
    )
    for reduction, initial in (("sum", 0), ("mean", 0), ("max", -9), ("min", 9), ("prod", 1))
]

SOFTMAXES = [
    op("softmax", lambda x: torch.softmax(x, -1), X),
    op("softmax_dim0", lambda x: torch.softmax(x, 0), X),
    op("softmax_of_vector", lambda x: torch.softmax(x, 0), VECTOR),
    op("softmax_of_scalar", lambda x: torch.softmax(x, 0), SCALAR),
    op("log_softmax", lambda x: torch.log_softmax(x, 1), X),
    op("log_softmax_cube", lambda x: torch.log_softmax(x, -2), CUBE),
    op("softmin", lambda x: F.softmin(x, 0), X),
    op("entropy", lambda p: torch.special.entr(p).sum(-1), positive(2, 3)),
]

STATISTICS = [
    op("cov", torch.cov, X),
    op(
        "cov_weights",
        lambda x, n, w: torch.cov(x, fweights=n, aweights=w),
        real(2, 5),
        integer(5, low=1, high=4),
        positive(5),
    ),
    op("cov_aweights_of_vector", lambda x, w: torch.cov(x, aweights=w), VECTOR, positive(4)),
    op("corrcoef", torch.corrcoef, real(3, 5)),
    op("histc", lambda x: torch.histc(x, 4), X, differentiable=False),
    op("histc_range", lambda x: torch.histc(x, 3, -1, 2), X, differentiable=False),
    op(
        "histogram",
        lambda x, w: tuple(torch.histogram(x, 4, range=(-1.0, 2.0), weight=w, density=True)),
        X,
        positive(2, 3),
        differentiable=False,
    ),
    op(
        "histogram_edges",
        lambda x, e: tuple(torch.histogram(x, e.cumsum(0) - 3)),
        X,
        positive(5),
        differentiable=False,
    ),
]

OPS = [*SUMS, *EXTREMA, *SCANS, *NORMS, *SEGMENTS, *SOFTMAXES, *STATISTICS]
