"""Special functions of one number that PyTorch takes for constants, and their derivatives by other
means: exact ones of polynomials, and of Bessel functions the sums over neighbouring orders."""

import dataclasses
from collections.abc import Callable

import mpmath
import sympy
import torch

special = torch.special


@dataclasses.dataclass(frozen=True)
class Special:
    """`function` of a tensor, its derivative `exact(x, order)`, and points to compare them at."""

    function: Callable
    exact: Callable
    points: list

    def derivative(self, order):
        """At all points."""
        with mpmath.workdps(40):
            values = [complex(self.exact(mpmath.mpf(x), order)).real for x in self.points]
        return torch.tensor(values, dtype=torch.float64)


# ---- Bessel and Airy functions -----------------------------------------------------------------


def bessel(kind, order):
    """d/dx of J, Y, I and K is half of a difference or sum of the neighbours."""
    function, before, after = {
        "j": (mpmath.besselj, 1, -1),
        "y": (mpmath.bessely, 1, -1),
        "i": (mpmath.besseli, 1, 1),
        "k": (mpmath.besselk, -1, -1),
    }[kind]

    def exact(x, times):
        terms = (
            mpmath.binomial(times, k)
            * before ** (times - k)
            * after**k
            * function(order - times + 2 * k, x)
            for k in range(times + 1)
        )
        return sum(terms) / mpmath.mpf(2) ** times

    return exact


def scaled_k(order):
    k = bessel("k", order)

    def exact(x, times):
        terms = (mpmath.binomial(times, i) * k(x, i) for i in range(times + 1))
        return mpmath.exp(x) * sum(terms)

    return exact


def spherical_j0(x, times):
    return mpmath.diff(mpmath.sinc, x, times)


def airy(x, times):
    """From Ai'' = x * Ai."""
    if times < 2:
        return mpmath.airyai(x, derivative=times)
    before = airy(x, times - 3) if times > 2 else 0
    return x * airy(x, times - 2) + (times - 2) * before


ANYWHERE = [-2.5, -0.3, 0.0, 0.7, 3.1]
POSITIVE = [0.2, 0.9, 2.3, 7.0]
# PyTorch's Ai has an error of 2e-7 between -4 and -2.
AIRY = [-9.0, -6.0, -1.5, -0.3, 0.0, 0.7, 1.0, 3.1, 8.0, 12.0]

BESSEL = {
    "bessel_j0": Special(special.bessel_j0, bessel("j", 0), ANYWHERE),
    "bessel_j1": Special(special.bessel_j1, bessel("j", 1), ANYWHERE),
    "bessel_y0": Special(special.bessel_y0, bessel("y", 0), POSITIVE[:3]),
    "bessel_y1": Special(special.bessel_y1, bessel("y", 1), POSITIVE[:3]),
    "modified_bessel_i0": Special(special.modified_bessel_i0, bessel("i", 0), ANYWHERE),
    "modified_bessel_i1": Special(special.modified_bessel_i1, bessel("i", 1), ANYWHERE),
    "i1": Special(special.i1, bessel("i", 1), ANYWHERE),
    "modified_bessel_k0": Special(special.modified_bessel_k0, bessel("k", 0), POSITIVE),
    "modified_bessel_k1": Special(special.modified_bessel_k1, bessel("k", 1), POSITIVE),
    "scaled_modified_bessel_k0": Special(special.scaled_modified_bessel_k0, scaled_k(0), POSITIVE),
    "scaled_modified_bessel_k1": Special(special.scaled_modified_bessel_k1, scaled_k(1), POSITIVE),
    "spherical_bessel_j0": Special(special.spherical_bessel_j0, spherical_j0, [*ANYWHERE, 20.0]),
    "airy_ai": Special(special.airy_ai, airy, AIRY),
}

# ---- polynomials -------------------------------------------------------------------------------

X = sympy.Symbol("x")


def chebyshev_v(n, x):
    return sympy.chebyshevu(n, x) - sympy.chebyshevu(n - 1, x)


def chebyshev_w(n, x):
    return sympy.chebyshevu(n, x) + sympy.chebyshevu(n - 1, x)


def hermite_he(n, x):
    scale = sympy.sqrt(2)
    return sympy.expand(sympy.hermite(n, x / scale) / scale**n)


FAMILIES = {
    "chebyshev_polynomial_t": sympy.chebyshevt,
    "chebyshev_polynomial_u": sympy.chebyshevu,
    "chebyshev_polynomial_v": chebyshev_v,
    "chebyshev_polynomial_w": chebyshev_w,
    "shifted_chebyshev_polynomial_t": lambda n, x: sympy.chebyshevt(n, 2 * x - 1),
    "shifted_chebyshev_polynomial_u": lambda n, x: sympy.chebyshevu(n, 2 * x - 1),
    "shifted_chebyshev_polynomial_v": lambda n, x: chebyshev_v(n, 2 * x - 1),
    "shifted_chebyshev_polynomial_w": lambda n, x: chebyshev_w(n, 2 * x - 1),
    "hermite_polynomial_h": sympy.hermite,
    "hermite_polynomial_he": hermite_he,
    "laguerre_polynomial_l": sympy.laguerre,
    "legendre_polynomial_p": sympy.legendre,
}


def polynomial(name, n, points=(-1.0, -0.6, 0.0, 0.35, 1.0, 1.3)):
    """The one of a degree below zero is zero."""
    function = getattr(special, name)
    expression = FAMILIES[name](n, X) if n >= 0 else sympy.Integer(0)

    def exact(x, times):
        return sympy.diff(expression, X, times).subs(X, sympy.Rational(str(x)))

    return Special(lambda x: function(x, n), exact, list(points))


FUNCTIONS = BESSEL | {f"{name}, {n}": polynomial(name, n) for name in FAMILIES for n in (1, 4)}
