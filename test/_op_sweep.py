"""Runs operators of `op_db` under vmap of functx or torch.func, against a Python loop and `stack`.

A case is a sample of an operator, a choice of the arguments that are batched, and a position of the
batch dimension for each. What happens to all the cases of an operator is its `Outcome`.
"""

import collections
import dataclasses
import itertools
import re
import warnings

import torch
from _op_db import DRAWS, samples, seed_all
from torch.testing import assert_close

import functx

TOLERANCES = {
    torch.float64: {"rtol": 1e-7, "atol": 1e-7},
    torch.complex128: {"rtol": 1e-7, "atol": 1e-7},
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.complex64: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
    torch.float16: {"rtol": 5e-3, "atol": 5e-3},
}
EXACT = {"rtol": 0, "atol": 0}

# Their values are whatever was in memory: only shape and dtype can be compared.
UNINITIALIZED = {
    "empty",
    "empty_like",
    "empty_permuted",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "resize_",
    "resize_as_",
}

SEED = 0
LOOP = re.compile(r"batching rule for ([\w:.]+)")


@dataclasses.dataclass
class Outcome:
    """Counts of the cases, the operators that ran in a loop, and what went wrong."""

    right: int = 0
    wrong: list = dataclasses.field(default_factory=list)
    errors: list = dataclasses.field(default_factory=list)
    skipped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    loops: set = dataclasses.field(default_factory=set)

    @property
    def tier(self):
        if self.wrong:
            return "wrong"
        if self.errors:
            return "error"
        if not self.right:
            return "skipped"
        return "loop" if self.loops else "vectorized"


class Loops(warnings.catch_warnings):
    """Collects the names of the operators that a vmap runs in a loop."""

    def __init__(self, names):
        super().__init__(record=True)
        self.names = names

    def __enter__(self):
        self.log = super().__enter__()
        warnings.simplefilter("always")
        functx._C.warn_on_loop_fallback(True)

    def __exit__(self, *error):
        for warning in self.log:
            if match := LOOP.search(str(warning.message)):
                self.names.add(match[1].rstrip("."))
        super().__exit__(*error)


def compare(actual, expected, op_name):
    assert len(actual) == len(expected), f"{len(actual)} results instead of {len(expected)}"
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape, f"shape {tuple(a.shape)} instead of {tuple(e.shape)}"
        assert a.dtype == e.dtype, f"{a.dtype} instead of {e.dtype}"
        if op_name not in UNINITIALIZED:
            tolerances = TOLERANCES.get(e.dtype, EXACT)
            assert_close(a, e, equal_nan=True, check_stride=False, **tolerances)


def choices(count):
    """Which arguments are batched: all subsets, for many arguments the small and the large."""
    if count <= 3:
        return [c for c in itertools.product((True, False), repeat=count) if any(c)]
    alone = [tuple(i == j for j in range(count)) for i in range(count)]
    but_one = [tuple(i != j for j in range(count)) for i in range(count)]
    return [(True,) * count, *alone, *but_one]


def position(tensor, shift):
    """0, -1 or a middle one for a batch dimension of `tensor`."""
    return (0, -1, (tensor.dim() + 1) // 2)[shift % 3]


def placed(sample, choice, shift):
    """The arguments with batch dimensions, and where these are."""
    args, dims = [], []
    for k, (first, flag) in enumerate(zip(sample.tensors, choice, strict=True)):
        if flag:
            dim = position(first, shift + k)
            args.append(torch.stack([draw[k] for draw in sample.draws], dim))
            dims.append(dim)
        else:
            args.append(first.clone())
            dims.append(None)
    return args, tuple(dims)


def stacked(examples):
    return [torch.stack(column) for column in zip(*examples, strict=True)]


def loop(call, sample, choice):
    """What each example gives. Every call gets copies, for the operator may write."""
    examples = []
    for draw in sample.draws:
        args = [
            (mine if flag else first).clone()
            for mine, first, flag in zip(draw, sample.tensors, choice, strict=True)
        ]
        seed_all(SEED)
        examples.append(call(*args))
    return examples


def loop_over_views(call, args, dims):
    """The same on views of the batch: raises where their strides are not what the operator needs,
    such as `view` on a column."""
    for b in range(DRAWS):
        call(*(x.clone() if d is None else x.select(d, b) for x, d in zip(args, dims, strict=True)))


def raises(function, *args):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*args)
    except Exception:
        return True
    return False


def apply_vmap(api, call, args, dims, loops):
    """Under "same" where random numbers are drawn: then a loop can draw the same ones."""
    with Loops(loops):
        if not args:
            args, dims, call = [torch.zeros(DRAWS)], (0,), lambda _, call=call: call()
        try:
            return api.vmap(call, in_dims=dims)(*[x.clone() for x in args])
        except RuntimeError as error:
            if "randomness" not in str(error):
                raise
        seed_all(SEED)
        return api.vmap(call, in_dims=dims, randomness="same")(*args)


def sweep_sample(op, function, sample, api, outcome, shifts, chosen=None):
    """All cases of one sample: `shifts` are the positions that the batch dimensions start from."""
    call = sample.bind(function)
    for choice in chosen or choices(len(sample.positions)) or [()]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                examples = loop(call, sample, choice)
        except Exception as error:
            outcome.skipped[f"the loop raises {type(error).__name__}"] += 1
            continue
        if not examples[0]:
            outcome.skipped["returns no tensor"] += 1
            return
        for shift in shifts:
            args, dims = placed(sample, choice, shift)
            where = f"sample {sample.index}, {[tuple(x.shape) for x in sample.tensors]}, {dims}"
            try:
                actual = apply_vmap(api, call, args, dims, outcome.loops)
            except Exception as error:
                if args and raises(loop_over_views, call, args, dims):
                    outcome.skipped["the loop over views raises"] += 1
                else:
                    outcome.errors.append(f"{where}: {type(error).__name__}: {error}")
                continue
            try:
                compare(actual, stacked(examples), op.name)
                outcome.right += 1
            except (AssertionError, RuntimeError) as error:
                outcome.wrong.append(f"{where}: {error}")


def sweep(op, dtype, api, limit=None, shifts=(0, 1, 2), variant=None):
    """The outcome of all cases of `op`; `variant` is None, "method" or "inplace"."""
    function = {"method": op.get_method, "inplace": op.get_inplace}.get(variant, op.get_op)()
    outcome = Outcome()
    for sample in samples(op, dtype, limit):
        chosen = None
        if variant == "inplace":  # an unbatched tensor cannot take a batch of values
            chosen = [c for c in choices(len(sample.positions)) if c[0]]
        sweep_sample(op, function, sample, api, outcome, shifts, chosen)
    return outcome


# ---- vmap(vjp) ---------------------------------------------------------------------------------


def is_differentiable(x):
    return x.is_floating_point() or x.is_complex()


def cotangents_for(outputs):
    """Fixed numbers of the outputs' shapes: the same whoever asks."""
    cotangents = []
    for k, out in enumerate(outputs):
        values = torch.arange(out.numel(), dtype=torch.float64).reshape(out.shape)
        values = (0.7 * values + k).cos()
        cotangents.append((values + 0.5j * values if out.is_complex() else values).to(out.dtype))
    return tuple(cotangents)


def gradient_by_autograd(call, *tensors):
    tensors = [x.clone() for x in tensors]
    inputs = [x.requires_grad_() for x in tensors if is_differentiable(x)]
    seed_all(SEED)
    outputs = [y for y in call(*tensors) if y.requires_grad]
    if not outputs:
        return None
    return torch.autograd.grad(
        outputs, inputs, cotangents_for(outputs), allow_unused=True, materialize_grads=True
    )


def reaches(call, tensors):
    """Which outputs autograd can differentiate."""
    tensors = [x.clone().requires_grad_(is_differentiable(x)) for x in tensors]
    seed_all(SEED)
    return [y.requires_grad for y in call(*tensors)]


def gradient_by(api, call, tracked):
    """A function of the tensors that returns the gradients at those that can have one."""

    def gradient(*tensors):
        inputs = [x for x in tensors if is_differentiable(x)]

        def of_inputs(*replaced):
            replaced = iter(replaced)
            full = [next(replaced) if is_differentiable(x) else x for x in tensors]
            outputs = call(*full)
            return tuple(y for y, flag in zip(outputs, tracked, strict=True) if flag)

        outputs, pullback = api.vjp(of_inputs, *inputs)
        return pullback(cotangents_for(outputs))

    return gradient


def sweep_sample_vjp(op, sample, api, outcome, choose):
    call = sample.bind(op.get_op())
    if not any(map(is_differentiable, sample.tensors)):
        return
    for choice in choose(len(sample.positions)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tracked = reaches(call, sample.tensors)
                gradients = loop(
                    lambda *tensors: gradient_by_autograd(call, *tensors), sample, choice
                )
        except Exception as error:
            outcome.skipped[f"the loop raises {type(error).__name__}"] += 1
            continue
        if gradients[0] is None:
            outcome.skipped["not differentiable"] += 1
            return
        args, dims = placed(sample, choice, 0)
        where = f"sample {sample.index}, {[tuple(x.shape) for x in sample.tensors]}, {dims}"
        try:
            actual = apply_vmap(api, gradient_by(api, call, tracked), args, dims, outcome.loops)
        except Exception as error:
            outcome.errors.append(f"{where}: {type(error).__name__}: {error}")
            continue
        try:
            compare(actual, stacked(gradients), op.name)
            outcome.right += 1
        except (AssertionError, RuntimeError) as error:
            outcome.wrong.append(f"{where}: {error}")


def all_and_each(count):
    alone = [tuple(i == j for j in range(count)) for i in range(count)]
    return [(True,) * count, *(alone if count > 1 else [])]


def only_all(count):
    return [(True,) * count]


def sweep_vjp(op, dtype, api, limit=None, choose=all_and_each):
    """The outcome of vmap(vjp) on all cases of `op`."""
    outcome = Outcome()
    for sample in samples(op, dtype, limit):
        sweep_sample_vjp(op, sample, api, outcome, choose)
    return outcome
