"""Random nests of transforms: the Python text of each level."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from _programs import Transform

ORDERS = {"vmap": 0, "hessian": 2}  # how often a transform differentiates, if not once
TRANSFORMS = ("vmap", "grad", "vjp", "jvp", "jacrev", "jacfwd", "hessian", "linearize")
NESTS = [n for depth in range(4) for n in itertools.product(TRANSFORMS, repeat=depth)]
# By order: a sixth derivative takes hundreds of times as long as a first.
KEPT = (1, 1, 1, 0.7, 0.1, 0.02, 0.01)


@dataclass
class Argument:
    """An argument of the program; the levels that map it give `shape` their dimension."""

    name: str
    shape: list[int]
    kind: str = "float"  # or "tree", "index"


def order(nest: tuple[str, ...]) -> int:
    return sum(ORDERS.get(name, 1) for name in nest)


def random_nest(rng: random.Random) -> tuple[str, ...]:
    """Outermost first."""
    depth = rng.choice((1, 1, 2, 2, 2, 2, 3, 3))
    choices = (*TRANSFORMS, "vmap", "vmap", "grad")  # what most programs use
    while True:
        nest = tuple(rng.choice(choices) for _ in range(depth))
        if rng.random() < KEPT[order(nest)]:
            return nest


def random_transform(
    rng: random.Random, name: str, arguments: list[Argument], small: bool
) -> Transform:
    """A level around a function of `arguments`. With `small` it does what costs least."""
    if name == "vmap":
        return Transform(name, _vmap(rng, arguments, small))
    differentiable = [k for k, a in enumerate(arguments) if a.kind != "index"]
    chosen = [k for k in differentiable if rng.random() < 0.6] or [rng.choice(differentiable)]
    if small:
        chosen = chosen[:1]
    names = ", ".join(a.name for a in arguments)
    if name in ("jvp", "linearize", "vjp"):
        primals = [arguments[k].name for k in chosen]
        return Transform(name, _at_a_point(rng, name, names, primals))
    return Transform(name, _of_a_function(rng, name, names, _argnums(rng, chosen), small))


def _vmap(rng: random.Random, arguments: list[Argument], small: bool) -> str:
    sizes = (2, 2, 2, 2, 2, 2, 3, 3, 1, 0 if rng.random() < 0.3 else 2)
    size = 2 if small else rng.choice(sizes)
    mapped = [k for k in range(len(arguments)) if rng.random() < 0.65]
    mapped = mapped or [rng.randrange(len(arguments))]
    dims: list[int | None] = []
    for k, argument in enumerate(arguments):
        if k not in mapped:
            dims.append(None)
            continue
        count = len(argument.shape) + 1
        dim = 0 if rng.random() < 0.7 else rng.randrange(-count, count)
        argument.shape.insert(dim % count, size)
        dims.append(dim)
    in_dims = "" if set(dims) == {0} else f", ({', '.join(map(str, dims))},)"
    out_dims = ", out_dims=-1" if rng.random() < 0.15 else ""
    return f"OUTER = T.vmap(INNER{in_dims}{out_dims})"


def _argnums(rng: random.Random, chosen: list[int]) -> str:
    if chosen == [0] and rng.random() < 0.5:
        return ""
    one = len(chosen) == 1 and rng.random() < 0.8
    return f", argnums={chosen[0] if one else tuple(chosen)}"


def _of_a_function(rng: random.Random, name: str, names: str, argnums: str, small: bool) -> str:
    call = f"INNER({names})"
    scalar = f"OUTER = T.{name}(lambda {names}: total({call}){argnums})"
    if name == "grad" and rng.random() < 0.15:
        return f"OUTER = T.grad(lambda {names}: (total(r := {call}), r){argnums}, has_aux=True)"
    if name == "grad" and rng.random() < 0.1:
        return f"OUTER = T.grad_and_value(lambda {names}: total({call}){argnums})"
    if name == "grad" or small or rng.random() < (0.8 if name == "hessian" else 0.3):
        return scalar
    if name != "hessian" and rng.random() < 0.15:
        return f"OUTER = T.{name}(lambda {names}: (r := {call}, r){argnums}, has_aux=True)"
    return f"OUTER = T.{name}(INNER{argnums})"


def _at_a_point(rng: random.Random, name: str, names: str, primals: list[str]) -> str:
    def direction():
        return rng.choice(("cosines", "ramps"))

    points, call = ", ".join(primals), f"INNER({names})"
    function = f"lambda {points}: {call}"
    tangents = ", ".join(f"{direction()}({primal})" for primal in primals)
    if name == "jvp":
        lines = [f"return T.jvp({function}, ({points},), ({tangents},))"]
    elif name == "linearize":
        # First, since the function may write into its arguments.
        lines = [
            f"directions = ({tangents},)",
            f"out, push = T.linearize({function}, {points})",
            "return out, push(*directions)",
        ]
    elif rng.random() < 0.1:
        lines = [
            f"out, pull, aux = T.vjp(lambda {points}: (r := {call}, r), {points}, has_aux=True)",
            f"return out, aux, pull({direction()}(out))",
        ]
    else:
        lines = [
            f"out, pull = T.vjp({function}, {points})",
            f"return out, pull({direction()}(out))",
        ]
    return "\n".join([f"def OUTER({names}):", *(f"    {line}" for line in lines)])
