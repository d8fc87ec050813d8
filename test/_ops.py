"""What a row of the operator table is, and its sample arguments.

Real samples keep away from multiples of 1/2 and from each other, so that no comparison, rounding or
kink lies between the points of a finite difference.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils._pytree import tree_leaves

STEP = 1e-4  # of finite differences, whose points reach four steps: samples are farther apart


@dataclass(frozen=True)
class Arg:
    """One tensor argument: its shape for one example, and what its values are."""

    shape: tuple[int, ...]
    make: Callable[[tuple[int, ...], int], torch.Tensor]
    real: bool

    def sample(self, batch=(), seed=0):
        return self.make((*batch, *self.shape), seed)


@dataclass(frozen=True)
class Op:
    """An operator as a function of tensors only, with an example of each."""

    name: str
    fn: Callable
    args: tuple[Arg, ...]
    differentiable: bool = True
    # Whether its gradient is the derivative of the function, and not another by definition.
    forward: bool = True
    reverse: bool = True  # whether PyTorch has a gradient of it, which reverse mode takes
    writes: bool = False  # into (a clone of) its first argument

    def samples(self, batched=None, batch=(3,)):
        """One sample per argument; those in the pattern `batched` get leading batch dimensions."""
        flags = batched or (False,) * len(self.args)
        return [
            arg.sample(batch if flag else (), seed)
            for seed, (arg, flag) in enumerate(zip(self.args, flags, strict=True))
        ]

    @property
    def real_positions(self):
        return [i for i, arg in enumerate(self.args) if arg.real]

    def restricted(self, samples, positions):
        """A function of the arguments at `positions` alone that returns its real outputs."""

        def f(*values):
            args = list(samples)
            for position, value in zip(positions, values, strict=True):
                args[position] = value
            return tuple(out for out in tree_leaves(self.fn(*args)) if out.is_floating_point())

        return f

    def writes_into_what_is_shared(self, flags):
        """Whether examples (or tangents) differ, but not in the argument that is written to."""
        return self.writes and not flags[0] and any(flags)


def op(name, fn, *args, **options):
    return Op(name, fn, args, **options)


def inplace(name, fn, *args, **options):
    """`fn` changes its first argument and returns it, or returns something made from it."""
    return Op(name, lambda x, *rest: fn(x.clone(), *rest), args, writes=True, **options)


# ---- kinds of arguments --------------------------------------------------------------------------


SLOTS, HALVES, LATTICE = 72, 6, 360


def _grid(shape, seed):
    """Distinct numbers in (0, 3), far from multiples of 1/2, and different for different seeds.

    Each is a multiple of 1/2 plus a fraction on a lattice, of which every seed has its own part.
    """
    count = torch.Size(shape).numel()
    generator = torch.Generator().manual_seed(100 + seed)
    order = torch.randperm(SLOTS, generator=generator)
    offsets = torch.randint(0, HALVES, (SLOTS,), generator=generator)
    k = torch.arange(count)
    slot = order[k % SLOTS]
    half = (offsets[slot] + k // SLOTS) % HALVES
    fraction = (slot * (LATTICE // SLOTS) + seed % 5).double() / LATTICE
    return (0.5 * half + 0.06 + 0.38 * fraction).reshape(shape)


def _signed(shape, seed):
    generator = torch.Generator().manual_seed(200 + seed)
    signs = 2 * torch.randint(0, 2, shape, generator=generator) - 1
    return _grid(shape, seed) * signs


def _positive_definite(shape, seed):
    a = _signed(shape, seed)
    return a @ a.mT + torch.eye(shape[-1], dtype=a.dtype)


def _integers(low, high):
    def make(shape, seed):
        generator = torch.Generator().manual_seed(300 + seed)
        return torch.randint(low, high, shape, generator=generator)

    return make


def _permutations(shape, seed):
    generator = torch.Generator().manual_seed(400 + seed)
    return torch.rand(shape, generator=generator).argsort(-1)


def _partitions(total):
    def make(shape, seed):
        generator = torch.Generator().manual_seed(500 + seed)
        cuts = torch.randint(0, total + 1, (*shape[:-1], shape[-1] - 1), generator=generator)
        ends = torch.zeros((*shape[:-1], 1), dtype=cuts.dtype)
        return torch.cat([ends, cuts.sort(-1).values, ends + total], -1).diff()

    return make


def real(*shape):
    return Arg(shape, _signed, True)


def positive(*shape):
    return Arg(shape, _grid, True)


def unit(*shape):
    """In (-1, 1)."""
    return Arg(shape, lambda s, seed: _signed(s, seed) / 3.1, True)


def probability(*shape):
    """In (0, 1)."""
    return Arg(shape, lambda s, seed: _grid(s, seed) / 3.1, True)


def above_one(*shape):
    return Arg(shape, lambda s, seed: 1 + _grid(s, seed), True)


def positive_definite(*shape):
    return Arg(shape, _positive_definite, True)


def triangular(*shape):
    return Arg(shape, lambda s, seed: torch.linalg.cholesky(_positive_definite(s, seed)), True)


def constant(*shape):
    """Positive, and never differentiated."""
    return Arg(shape, _grid, False)


def single(*shape):
    """float32, for promotion; not precise enough to differentiate numerically."""
    return Arg(shape, lambda s, seed: _signed(s, seed).float(), False)


def integer(*shape, low=-4, high=5):
    return Arg(shape, _integers(low, high), False)


def index(size, *shape):
    return Arg(shape, _integers(0, size), False)


def permutation(*shape):
    return Arg(shape, _permutations, False)


def partition(total, parts):
    """Lengths of parts, possibly empty, that add up to a total."""
    return Arg((parts,), _partitions(total), False)


def boolean(*shape):
    make = _integers(0, 2)
    return Arg(shape, lambda s, seed: make(s, seed).bool(), False)


def complex_(*shape):
    return Arg(shape, lambda s, seed: torch.complex(_signed(s, seed), _signed(s, seed + 50)), False)
