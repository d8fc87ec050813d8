"""Derivatives of any order of a smooth function of one number, from its values alone."""

import itertools

import numpy
import torch
from numpy.polynomial import chebyshev

import functx

NODES = 21
ROUTES = ("grad", "jvp")


def along(f, x, seed=0):
    """`f` on a line through `x`, as a function of where on it."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return lambda t: f(x + t * direction)


def derivatives_at_zero(f, order, radius=0.1):
    """Those of orders one to `order`, of the polynomial through values at Chebyshev's nodes."""
    nodes = numpy.cos((numpy.arange(NODES) + 0.5) * numpy.pi / NODES)
    with torch.no_grad():
        values = [f(torch.tensor(radius * x, dtype=torch.float64)).item() for x in nodes]
    series = chebyshev.chebfit(nodes, numpy.array(values), NODES - 1)
    return [
        float(chebyshev.chebval(0, chebyshev.chebder(series, k))) / radius**k
        for k in range(1, order + 1)
    ]


def slope(f):
    return lambda t: functx.jvp(f, (t,), (torch.ones_like(t),))[1]


def routes(order):
    """All ways to take a derivative of this order: words of the two modes, the innermost first."""
    return list(itertools.product(ROUTES, repeat=order))


def by_route(f, route):
    for mode in route:
        f = functx.grad(f) if mode == "grad" else slope(f)
    return f


def of_examples(f):
    """What `f` is at zero, as one of two examples."""
    return lambda t: functx.vmap(f)(torch.stack([t, t + 0.1]))[0]
