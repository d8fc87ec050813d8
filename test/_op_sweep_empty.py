"""Runs operators of `op_db` on batches of no examples and on examples of no elements or of single
ones, in child processes: what ends a process is a result like others.

A result over no examples has the shape and dtype that one example has, plain, with a dimension of
size 0 more. Examples of no elements are samples in which a size has become 0; under vmap they are
held against a loop, and derivatives against their shapes. In others a size has become 1: there,
strides say little of how a tensor lies in memory.
"""

import collections
import dataclasses
import functools
import itertools
import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from _op_db import ENTRIES, function_of, samples, seed_all
from _op_sweep import (
    DRAWS,
    SEED,
    Outcome,
    choices,
    is_differentiable,
    numbers_like,
    position,
    pullback_by,
    pullback_by_autograd,
    sweep_sample,
    sweep_vjp_sample,
    tracked_outputs,
    vjp_choices,
    with_cotangents,
)

import functx

LARGEST = 12  # elements of an input or output of which a Jacobian or a Hessian is taken


class Announcing:
    """functx, which says when it is at work: otherwise, plain PyTorch is."""

    def __init__(self, announce):
        self.announce = announce

    def __getattr__(self, name):
        transform = getattr(functx, name)
        if name in ("vjp", "jvp"):
            return self.announcing(transform)
        return lambda *args, **kwargs: self.announcing(transform(*args, **kwargs))

    def announcing(self, function):
        def call(*args):
            self.announce(True)
            try:
                return function(*args)
            finally:
                self.announce(False)

        return call


# ---- one case ------------------------------------------------------------------------------------


class Skip(Exception):
    """There is nothing to compare with; says why."""


def plain(function, *args):
    """Of plain PyTorch, which may raise: then functx may, too."""
    try:
        seed_all(SEED)
        return function(*args)
    except Exception as error:
        raise Skip(f"plain PyTorch raises {type(error).__name__}") from error


def check_meta(actual, expected):
    """`expected` has the shapes and dtypes."""
    assert len(actual) == len(expected), f"{len(actual)} results instead of {len(expected)}"
    for a, (shape, dtype) in zip(actual, expected, strict=True):
        assert a.shape == torch.Size(shape), f"shape {tuple(a.shape)} instead of {tuple(shape)}"
        assert a.dtype == dtype, f"{a.dtype} instead of {dtype}"


def over_none(tensors, at=0, size=0):
    return [((*y.shape[:at], size, *y.shape[at:]), y.dtype) for y in tensors]


def emptied_batch(tensors, choice, shift=0, size=0):
    """Batches of `size` where `choice` says so, and their dims."""
    args, dims = [], []
    for k, (x, flag) in enumerate(zip(tensors, choice, strict=True)):
        dim = position(x, shift + k) if flag else None
        dims.append(dim)
        args.append(
            torch.stack([x] * max(size, 1), dim).narrow(dim, 0, size) if flag else x.clone()
        )
    return args, tuple(dims)


def smallest_first(tensors):
    return min(
        (k for k, x in enumerate(tensors) if is_differentiable(x)),
        key=lambda k: tensors[k].numel(),
        default=None,
    )


# ---- batches of no examples: each kind yields what to call and the shapes ----------------------


def by_vmap(call, sample, api):
    outputs = plain(call, *(x.clone() for x in sample.tensors))
    if not outputs:
        raise Skip("returns no tensor")
    for choice in choices(len(sample.tensors)):
        if any(choice):
            args, dims = emptied_batch(sample.tensors, choice)
            mapped = api.vmap(call, in_dims=dims, randomness="different")
            yield dims, lambda: mapped(*args), over_none(outputs)  # noqa: B023


def by_nested_vmap(call, sample, api):
    outputs = plain(call, *(x.clone() for x in sample.tensors))
    if not outputs:
        raise Skip("returns no tensor")
    everything = (True,) * len(sample.tensors)
    for outer, inner in (0, 2), (2, 0), (0, 0):
        args = [torch.stack([x.clone()] * 2).narrow(0, 0, inner) for x in sample.tensors]
        args = [torch.stack([x] * 2).narrow(0, 0, outer) for x in args]
        inside = functx.vmap(call, randomness="different")
        mapped = api.vmap(inside, randomness="different")
        expected = [((outer, inner, *y.shape), y.dtype) for y in outputs]
        if everything:
            yield (outer, inner), lambda: mapped(*args), expected  # noqa: B023


def differentiable_call(call, sample):
    tensors = sample.tensors
    if not any(map(is_differentiable, tensors)):
        raise Skip("takes no numbers")
    select, outputs = plain(tracked_outputs, call, tensors)
    if not outputs:
        raise Skip("not differentiable")
    return select, outputs


def by_vmap_of_vjp(call, sample, api):
    select, outputs = differentiable_call(call, sample)
    count = len(sample.tensors)
    extended = with_cotangents(sample, outputs)
    gradients = plain(pullback_by_autograd(call, select, count), *extended.tensors)
    for tensors, cotangents in vjp_choices(count):
        choice = (*(tensors or (False,) * count), *(cotangents,) * len(outputs))
        args, dims = emptied_batch(extended.tensors, choice)
        gradient = pullback_by(functx, call, select, count)
        mapped = api.vmap(gradient, in_dims=dims, randomness="different")
        yield dims, lambda: mapped(*args), over_none(gradients)  # noqa: B023


def by_vmap_of_jvp(call, sample, api):
    _, outputs = differentiable_call(call, sample)
    outputs = plain(call, *(x.clone() for x in sample.tensors))
    numbers = [k for k, x in enumerate(sample.tensors) if is_differentiable(x)]

    def derivative(*args):
        tensors, tangents = args[: len(sample.tensors)], args[len(sample.tensors) :]

        def of_numbers(*xs):
            full = list(tensors)
            for k, x in zip(numbers, xs, strict=True):
                full[k] = x
            return call(*full)

        _, slopes = functx.jvp(of_numbers, tuple(tensors[k] for k in numbers), tangents)
        return slopes

    extended = [*sample.tensors, *(numbers_like(sample.tensors[k], k) for k in numbers)]
    for flags in (True, True), (False, True), (True, False):
        choice = (*(flags[0],) * len(sample.tensors), *(flags[1],) * len(numbers))
        args, dims = emptied_batch(extended, choice)
        mapped = api.vmap(derivative, in_dims=dims, randomness="different")
        yield dims, lambda: mapped(*args), over_none(outputs)  # noqa: B023


def by_vjp_of_vmap(call, sample, api):
    """The gradient of what all examples share is zero, and plain autograd finds the way to it."""
    select, outputs = differentiable_call(call, sample)
    count = len(sample.tensors)
    plain(pullback_by_autograd(call, select, count), *sample.tensors, *outputs)
    numbers = [k for k, x in enumerate(sample.tensors) if is_differentiable(x)]
    for choice in choices(len(sample.tensors)):
        args, dims = emptied_batch(sample.tensors, choice)
        active = [k for k in numbers if plain(is_tracked_alone, call, sample.tensors, k)]
        if not any(choice) or not active:
            continue

        def compute(args=args, dims=dims, active=active):
            tensors = [x.requires_grad_(k in active) for k, x in enumerate(args)]
            mapped = api.vmap(call, in_dims=dims, randomness="different")
            outputs = [y for y in select(mapped(*tensors)) if y.requires_grad]
            gradients = torch.autograd.grad(
                outputs, [tensors[k] for k in active], [torch.ones_like(y) for y in outputs]
            )
            for gradient in gradients:
                dense = gradient.to_dense() if gradient.is_sparse else gradient
                assert not dense.any(), "a gradient of no examples that is not zero"
            return gradients

        yield dims, compute, [(args[k].shape, args[k].dtype) for k in active]


def is_tracked_alone(call, tensors, number):
    inputs = [x.clone() for x in tensors]
    inputs[number].requires_grad_()
    inputs[number] = inputs[number] * 1
    return any(y.requires_grad for y in call(*inputs))


def by_jvp_of_vmap(call, sample, api):
    differentiable_call(call, sample)
    outputs = plain(call, *(x.clone() for x in sample.tensors))
    numbers = [k for k, x in enumerate(sample.tensors) if is_differentiable(x)]
    for choice in choices(len(sample.tensors)):
        if not any(choice):
            continue
        args, dims = emptied_batch(sample.tensors, choice)

        def compute(args=args, dims=dims):
            def of_numbers(*xs):
                full = list(args)
                for k, x in zip(numbers, xs, strict=True):
                    full[k] = x
                return functx.vmap(call, in_dims=dims, randomness="different")(*full)

            inputs = tuple(args[k] for k in numbers)
            return api.jvp(of_numbers, inputs, tuple(map(torch.ones_like, inputs)))[1]

        yield dims, compute, over_none(outputs)


def of_one_input(call, sample, with_select=True):
    """The function of the smallest tensor, that tensor, and what it returns."""
    select, outputs = differentiable_call(call, sample)
    k = smallest_first(sample.tensors)
    x = sample.tensors[k]
    outputs = [y for y in outputs if not y.is_complex()]
    if x.is_complex() or len(outputs) != len(
        select(plain(call, *map(torch.clone, sample.tensors)))
    ):
        raise Skip("complex")
    if x.numel() > LARGEST or sum(y.numel() for y in outputs) > LARGEST:
        raise Skip("large")

    def function(x, *others):
        full = [*others[:k], x, *others[k:]]
        return tuple(select(call(*full)))

    others = [y for j, y in enumerate(sample.tensors) if j != k]
    return function, x, others, outputs


def jacobian_shapes(transform, x, outputs):
    twice = x.shape if transform == "hessian" else ()
    of = (lambda y: y.dtype) if transform == "jacfwd" else (lambda y: x.dtype)
    return [((*y.shape, *x.shape, *twice), of(y)) for y in outputs]


def by_vmap_of_jacobian(transform, call, sample, api):
    function, x, others, outputs = of_one_input(call, sample)
    by = {"hessian": {}, "jacrev": {}, "jacfwd": {"randomness": "same"}}[transform]
    if transform == "hessian":
        plain_hessian_exists(function, x, others)
    derivative = getattr(functx, transform)(function, **by)
    expected = [((0, *s), d) for s, d in jacobian_shapes(transform, x, outputs)]
    everything = (True,) * (1 + len(others))
    alone = (True, *(False,) * len(others))
    for choice in dict.fromkeys([everything, alone]):
        args, dims = emptied_batch([x, *others], choice)
        mapped = api.vmap(derivative, in_dims=dims, randomness="same")
        yield dims, lambda: mapped(*args), expected  # noqa: B023


def plain_hessian_exists(function, x, others):
    x = x.clone().requires_grad_()

    def twice():
        outputs = function(x * 1, *others)
        total = sum(y.sum() for y in outputs)
        (gradient,) = torch.autograd.grad(total, x, create_graph=True)
        if gradient.requires_grad:
            torch.autograd.grad(gradient.sum(), x, allow_unused=True)

    plain(twice)


EMPTY_BATCH = {
    "vmap": by_vmap,
    "vmap(vmap)": by_nested_vmap,
    "vmap(vjp)": by_vmap_of_vjp,
    "vmap(jvp)": by_vmap_of_jvp,
    "vjp(vmap)": by_vjp_of_vmap,
    "jvp(vmap)": by_jvp_of_vmap,
    **{
        f"vmap({transform})": functools.partial(by_vmap_of_jacobian, transform)
        for transform in ("jacrev", "jacfwd", "hessian")
    },
}


# ---- examples of no elements ---------------------------------------------------------------------


def emptied_samples(op, dtype, limit):
    """Samples of no elements, and samples in which all dimensions of one size have become empty."""
    for sample in itertools.islice(samples(op, dtype), limit):
        if any(x.numel() == 0 for x in sample.tensors):
            yield sample
        else:
            yield from resized(sample, 0)


def resized(sample, new):
    """Samples in which all dimensions of one size have a new one."""
    sizes = {size for x in sample.tensors for size in x.shape if size > new}
    for size in sorted(sizes)[:3]:
        draws = [[cut(size, new, x) for x in draw] for draw in sample.draws]
        yield dataclasses.replace(sample, draws=draws)


def cut(size, new, x):
    for dim, length in enumerate(x.shape):
        if length == size:
            x = x.narrow(dim, 0, new)
    return x


def single_samples(op, dtype, limit):
    for sample in itertools.islice(samples(op, dtype), limit):
        yield from resized(sample, 1)
        first = [[x[(slice(1),) * x.dim()] for x in draw] for draw in sample.draws]
        yield dataclasses.replace(sample, draws=first)


def by_jvp(call, sample, api):
    differentiable_call(call, sample)
    outputs = plain(call, *(x.clone() for x in sample.tensors))
    numbers = [k for k, x in enumerate(sample.tensors) if is_differentiable(x)]

    def of_numbers(*xs):
        full = [x.clone() for x in sample.tensors]
        for k, x in zip(numbers, xs, strict=True):
            full[k] = x
        return call(*full)

    inputs = tuple(sample.tensors[k] for k in numbers)
    tangents = tuple(map(torch.ones_like, inputs))
    yield (
        (),
        lambda: api.jvp(of_numbers, inputs, tangents)[1],
        [(y.shape, y.dtype) for y in outputs],
    )


def by_jacobian(transform, call, sample, api):
    function, x, others, outputs = of_one_input(call, sample)
    if transform == "hessian":
        plain_hessian_exists(function, x, others)
    by = {"randomness": "same"} if transform == "jacfwd" else {}
    derivative = getattr(api, transform)(function, **by)
    yield (), lambda: derivative(x.clone(), *others), jacobian_shapes(transform, x, outputs)


EMPTY_EXAMPLES = {
    "jvp of nothing": by_jvp,
    "jacrev of nothing": functools.partial(by_jacobian, "jacrev"),
    "jacfwd of nothing": functools.partial(by_jacobian, "jacfwd"),
    "hessian of nothing": functools.partial(by_jacobian, "hessian"),
}


def loop_over(op, call, sample, api, outcome):
    for choice in choices(len(sample.tensors)):
        if any(choice):
            sweep_sample(op, call, call, sample, api, outcome, choice, (0,))


def pull_back(op, call, sample, api, outcome):
    sweep_vjp_sample(op, sample, api, outcome)


AGAINST_LOOPS = {
    "vmap of nothing": loop_over,
    "vmap(vjp) of nothing": pull_back,
    "vmap of one": loop_over,
    "vmap(vjp) of one": pull_back,
}

KINDS = [*EMPTY_BATCH, *EMPTY_EXAMPLES, *AGAINST_LOOPS]


# ---- all cases of an operator --------------------------------------------------------------------


def judge(outcome, where, compute, expected):
    try:
        seed_all(SEED)
        actual = compute()
    except Exception as error:
        outcome.errors.append(f"{where}: {type(error).__name__}: {first_lines(error)}")
        return
    try:
        check_meta(actual, expected)
        outcome.right += 1
    except AssertionError as error:
        outcome.wrong.append(f"{where}: {error}")


def first_lines(error):
    return " ".join(str(error).split())[:500]


def described(sample, dims):
    return f"sample {sample.index} of shapes {[tuple(x.shape) for x in sample.tensors]}, {dims}"


def sweep_cases(make, call, sample, api, outcome):
    try:
        for dims, compute, expected in make(call, sample, api):
            judge(outcome, described(sample, dims), compute, expected)
    except Skip as reason:
        outcome.skipped[str(reason)] += 1


def sweep(kind, op, limit, announce):
    """The outcome of `op`; calls `announce` with True before functx is at work, else with False."""
    api = Announcing(announce)
    outcome = Outcome()
    dtype = torch.float32 if torch.float32 in op.dtypes else min(op.dtypes, key=str)
    announce(False)
    if kind in EMPTY_BATCH:
        cases = (s for s in samples(op, dtype, limit) if s.tensors)
    else:
        cases = (single_samples if "of one" in kind else emptied_samples)(op, dtype, limit)
    for sample in cases:
        announce(False)
        call = sample.bind(function_of(op))
        if kind in AGAINST_LOOPS:
            AGAINST_LOOPS[kind](op, call, sample, api, outcome)
        else:
            sweep_cases({**EMPTY_BATCH, **EMPTY_EXAMPLES}[kind], call, sample, api, outcome)
    return outcome


# ---- children ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Death:
    """How a child ended, and whether functx was at work."""

    signal: str
    in_functx: bool


def as_child(limit):
    """Sweeps the cases that come in, kind and operator on a line; says on stdout what it is at."""
    warnings.simplefilter("ignore")
    say = functools.partial(print, flush=True)
    for line in sys.stdin:
        kind, name = line.strip().split(":", 1)
        outcome = sweep(kind, ENTRIES[name], limit, lambda is_ours: say("at", int(is_ours)))
        say("done", json.dumps({**vars(outcome), "loops": sorted(outcome.loops)}))


def sweep_in_children(cases, limit=None):
    """For each case, of a kind and an operator, its `Outcome`, or the `Death` of the child."""
    results = {}
    remaining = collections.deque(cases)
    while remaining:
        child = subprocess.run(
            [sys.executable, Path(__file__), str(limit or 0)],
            input="\n".join(map(":".join, remaining)),
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
        )
        in_functx = False
        for line in child.stdout.splitlines():
            word, _, rest = line.partition(" ")
            if word == "at":
                in_functx = rest == "1"
            elif word == "done":
                fields = json.loads(rest)
                fields["skipped"] = collections.Counter(fields["skipped"])
                results[remaining.popleft()] = Outcome(**fields)
        if remaining:
            if child.returncode >= 0:
                raise RuntimeError(f"at {remaining[0]}: {child.stderr[-2000:]}")
            ended_by = signal.Signals(-child.returncode).name
            results[remaining.popleft()] = Death(ended_by, in_functx)
    return results


assert DRAWS == 3

if __name__ == "__main__":
    as_child(int(sys.argv[1]) or None)
