"""Histograms under vmap: counts equal those of a loop for values on, and next to, every edge."""

import pytest
import torch
from _reference import assert_equal_trees, loop_vmap

import functx

EXACT = {"rtol": 0, "atol": 0}


def values_at_edges(low, high, bins, dtype):
    """Three examples: each edge, the numbers next to it, and some between."""
    edges = torch.linspace(low, high, bins + 1, dtype=dtype)
    one = torch.ones((), dtype=dtype)
    at = torch.cat(
        [edges, torch.nextafter(edges, edges + one), torch.nextafter(edges, edges - one)]
    )
    between = torch.rand(at.numel(), dtype=dtype) * (high - low) + low
    return torch.stack([at, at.flip(0), between])


def check(f, *args, in_dims=None):
    in_dims = in_dims or (0,) * len(args)
    actual, expected = functx.vmap(f, in_dims)(*args), loop_vmap(f, in_dims)(*args)
    assert_equal_trees(actual, expected, **EXACT)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


each_range = pytest.mark.parametrize("limits", [(0.0, 1.0), (-0.3, 0.7), (0.1, 12.3)])
each_count = pytest.mark.parametrize("bins", [1, 3, 10, 33, 100])


@each_range
@each_count
def test_given_range(limits, bins, dtype):
    x = values_at_edges(*limits, bins, dtype)
    x[2, 0], x[2, 1] = float("nan"), float("inf")
    check(lambda x: torch.histc(x, bins, *limits), x)
    check(lambda x: tuple(torch.histogram(x, bins, range=limits)), x)


@each_range
@each_count
def test_range_of_each_example(limits, bins, dtype):
    x = values_at_edges(*limits, bins, dtype) * torch.tensor([[1.0], [3.3], [-2.7]], dtype=dtype)
    own = torch.stack([torch.histogram(example, bins).bin_edges for example in x])
    x = torch.cat([x, own], 1)
    check(lambda x: torch.histc(x, bins), x)
    check(lambda x: tuple(torch.histogram(x, bins)), x)


@each_count
def test_given_edges(bins, dtype):
    edges = torch.rand(3, bins + 1, dtype=dtype).sort().values
    x = torch.cat([edges, edges.flip(0), torch.rand(3, 20, dtype=dtype)], 1)
    check(lambda x, e: tuple(torch.histogram(x, e)), x, edges)
    check(lambda x, e: tuple(torch.histogram(x, e)), x, edges[0], in_dims=(0, None))
    check(lambda x, e: tuple(torch.histogram(x, e)), x[0], edges, in_dims=(None, 0))


def test_weights(dtype):
    x, weights = torch.rand(3, 50, dtype=dtype), torch.randint(0, 9, (3, 50)).to(dtype)

    def weighted(x, w):
        return tuple(torch.histogram(x, 7, weight=w))

    check(weighted, x, weights)
    check(weighted, x, weights[0], in_dims=(0, None))
    check(weighted, x[0], weights, in_dims=(None, 0))


def test_several_coordinates(dtype):
    points, weights = torch.rand(3, 50, 2, dtype=dtype), torch.randint(0, 9, (3, 50)).to(dtype)

    def flat(result):
        return (result.hist, *result.bin_edges)

    check(lambda p: flat(torch.histogramdd(p, [3, 4])), points)
    check(lambda p, w: flat(torch.histogramdd(p, [3, 4], weight=w)), points, weights)
    check(lambda p: flat(torch.histogramdd(p, [3, 4], range=[0.0, 1.0, 0.2, 0.7])), points)
    edges = (torch.linspace(0, 1, 4, dtype=dtype), torch.linspace(0.2, 0.7, 5, dtype=dtype))
    check(lambda p: flat(torch.histogramdd(p, edges)), points)


@pytest.mark.parametrize("shape", [(3,), (3, 0), (3, 1), (3, 2, 4), (2, 3000)])
def test_shapes(shape, dtype):
    x = torch.rand(shape, dtype=dtype)
    check(lambda x: torch.histc(x, 4), x)
    check(lambda x: tuple(torch.histogram(x, 4)), x)
    check(lambda x: torch.histc(x, 4), torch.ones_like(x))
    check(lambda x: tuple(torch.histogram(x, 4)), torch.ones_like(x))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_range(value):
    x = torch.rand(3, 4)
    x[1, 2] = value
    for f in (lambda x: torch.histc(x, 3), lambda x: torch.histogram(x, 3)):
        with pytest.raises(RuntimeError, match="finite"):
            f(x[1])
        with pytest.raises(RuntimeError, match="finite"):
            functx.vmap(f)(x)


@pytest.mark.parametrize("fails", ["fweights", "aweights"])
def test_weights_of_covariances_are_checked(fails):
    x = torch.rand(3, 2, 4)
    weights = torch.ones(3, 4, dtype=torch.long if fails == "fweights" else torch.float)
    weights[1, 2] = -1
    with pytest.raises(RuntimeError, match=f"{fails} cannot be negative"):
        functx.vmap(lambda x, w: torch.cov(x, **{fails: w}))(x, weights)
    with pytest.raises(RuntimeError, match="sum to zero"):
        functx.vmap(lambda x, w: torch.cov(x, **{fails: w}))(x, weights.relu() * (weights < 0))
