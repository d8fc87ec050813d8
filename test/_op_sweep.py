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
from _derivatives import dense
from _op_db import DRAWS, full_name, function_of, samples, seed_all
from torch.testing import assert_close

import functx

# Between one kernel on a batch and the same kernel on an example: sums run in another order.
TOLERANCES = {
    torch.float64: {"rtol": 1e-7, "atol": 1e-7},
    torch.complex128: {"rtol": 1e-7, "atol": 1e-7},
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.complex64: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
    torch.float16: {"rtol": 5e-3, "atol": 5e-3},
}
EXACT = {"rtol": 0, "atol": 0}

# Products of several matrices with a random one: PyTorch's own tests allow for as much.
ILL_CONDITIONED = {"svd_lowrank": {"rtol": 1e-3, "atol": 1e-3}}

HALF = (torch.bfloat16, torch.float16)

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

# Arguments that plain autograd takes for constants by mistake are left out of comparisons with it.
NOT_REACHED = {
    # Class weights: test_silent_zeros.py compares their gradients with differences.
    "nn.functional.linear_cross_entropy.chunked",
    "nn.functional.linear_cross_entropy.chunked_none",
}

SEED = 0
LOOP = re.compile(r"batching rule for ([\w:]+)")


@dataclasses.dataclass
class Outcome:
    """Counts of the cases, the operators that ran in a loop, and what went wrong."""

    right: int = 0
    beyond_pytorch: int = 0  # of these, derivatives that PyTorch takes for zero
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
    """Collects the names of the operators that a vmap runs in a loop: torch.func warns of them,
    functx can tell of all, also where a rule takes to the loop without a warning."""

    def __init__(self, names):
        super().__init__(record=True)
        self.names = names

    def __enter__(self):
        self.log = super().__enter__()
        warnings.simplefilter("always")
        functx._C.take_looped_operators()

    def __exit__(self, *error):
        self.names.update(name.split(".")[0] for name in functx._C.take_looped_operators())
        for warning in self.log:
            if match := LOOP.search(str(warning.message)):
                self.names.add(match[1])
        super().__exit__(*error)


# What a loop has where its examples differ in shape.
RAGGED = []


def compare(actual, expected, op_name):
    assert expected is not RAGGED, "a result, though its shape differs between examples"
    assert len(actual) == len(expected), f"{len(actual)} results instead of {len(expected)}"
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape, f"shape {tuple(a.shape)} instead of {tuple(e.shape)}"
        assert a.dtype == e.dtype, f"{a.dtype} instead of {e.dtype}"
        if op_name not in UNINITIALIZED:
            tolerances = ILL_CONDITIONED.get(op_name) or TOLERANCES.get(e.dtype, EXACT)
            assert_close(a, e, equal_nan=True, check_stride=False, **tolerances)


def choices(count):
    """Which arguments are batched: all subsets, for many arguments the small and the large."""
    if count <= 3:
        patterns = itertools.product((True, False), repeat=count)
        return [c for c in patterns if any(c)] or [()]
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


def described(sample, *what):
    shapes = [tuple(x.shape) for x in sample.tensors]
    return f"sample {sample.index} of shapes {shapes}, batched in {', '.join(map(str, what))}"


def quietly(function, *args):
    """PyTorch warns of many things that are not to be seen here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


def fails(function, *args):
    try:
        quietly(function, *args)
    except Exception:
        return True
    return False


def seeded(call, args):
    """Copies, for the operator may write."""
    seed_all(SEED)
    return call(*(x.clone() for x in args))


def loop(call, sample, choice):
    """What each example gives."""
    return [
        seeded(call, [x if flag else y for x, y, flag in zip(draw, sample.tensors, choice)])  # noqa: B905
        for draw in sample.draws
    ]


def loop_over_views(call, args, dims, size=DRAWS):
    """The same on views of the batch: raises where their strides are not what the operator needs,
    such as `view` on a column."""
    for b in range(size):
        call(*(x.clone() if d is None else x.select(d, b) for x, d in zip(args, dims, strict=True)))


def apply_vmap(api, call, args, dims, loops):
    """Under "same" where random numbers are drawn: then a loop can draw the same ones."""
    with Loops(loops):
        try:
            return seeded(api.vmap(call, in_dims=dims), args)
        except RuntimeError as error:
            if "randomness" not in str(error):
                raise
        return seeded(api.vmap(call, in_dims=dims, randomness="same"), args)


def is_as_exact(actual, expected, call, sample, choice):
    """Whether results in half precision are at most twice as far from those in double as the loop's
    are, on average and at worst: sums and products may be rounded at other places."""
    doubled = dataclasses.replace(
        sample,
        draws=[[x.double() if x.dtype in HALF else x for x in draw] for draw in sample.draws],
    )
    exact = stacked(quietly(loop, call, doubled, choice))
    for a, e, x in zip(actual, expected, exact, strict=True):
        mine, theirs = (a.double() - x).abs(), (e.double() - x).abs()
        if (
            a.dtype not in HALF
            or mine.mean() > 1.25 * theirs.mean()
            or mine.max() > 2 * theirs.max()
        ):
            return False
    return True


def judge(outcome, op, where, expected, apply, excuse=lambda: False, as_exact=lambda actual: False):
    """Counts what `apply` gives or raises. `excuse` says whether the loop may fail here too, and
    `as_exact` whether a result is as good as the expected one, though it differs."""
    try:
        actual = apply()
    except Exception as error:
        if excuse():
            outcome.skipped["the loop over views fails too"] += 1
        else:
            outcome.errors.append(f"{where}: {type(error).__name__}: {error}")
        return
    try:
        compare(actual, expected, op.name)
        outcome.right += 1
    except AssertionError as error:
        if as_exact(actual):
            outcome.right += 1
        else:
            outcome.wrong.append(f"{where}: {error}")


def sweep_sample(op, call, reference, sample, api, outcome, choice, shifts):
    """Some arguments of a sample are batched, for each of `shifts` at other positions."""
    try:
        examples = quietly(loop, reference, sample, choice)
    except Exception as error:
        outcome.skipped[f"the loop raises {type(error).__name__}"] += 1
        return
    if not examples[0]:
        outcome.skipped["returns no tensor"] += 1
        return
    try:
        expected = stacked(examples)
    except RuntimeError:
        expected = RAGGED
    dtype = examples[0][0].dtype
    for shift in shifts:
        args, dims = placed(sample, choice, shift)
        mapped = call
        if not args:  # a factory
            args, dims, mapped = [torch.zeros(DRAWS)], (0,), lambda _: call()
        judge(
            outcome,
            op,
            described(sample, dims),
            expected,
            lambda: apply_vmap(api, mapped, args, dims, outcome.loops),  # noqa: B023
            lambda: fails(loop_over_views, mapped, args, dims),  # noqa: B023
            lambda actual: (
                dtype in HALF and is_as_exact(actual, expected, reference, sample, choice)
            ),
        )


def with_out(function):
    """`function` called with `out=`: zeros of the shapes and dtypes that it returns."""

    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        is_one = isinstance(result, torch.Tensor)
        out = torch.zeros_like(result) if is_one else tuple(map(torch.zeros_like, result))
        seed_all(SEED)
        function(*args, out=out, **kwargs)
        return out

    return call


def variant_of(op, variant):
    """The function of `op` in the given variant, or None if it has none."""
    if variant == "out":
        return with_out(op.get_op()) if op.supports_out else None
    return {"method": op.get_method, "inplace": op.get_inplace, None: op.get_op}[variant]()


def sweep(op, dtype, api, limit=None, shifts=(0, 1, 2), variant=None):
    """The outcome of all cases of `op`; `variant` is None, "method", "inplace" or "out"."""
    function = variant_of(op, variant)
    # With out= PyTorch forgets to conjugate in ihfft2 and ihfftn over a single dimension.
    reference = op.get_op() if variant == "out" else function
    outcome = Outcome()
    for sample in samples(op, dtype, limit):
        calls = sample.bind(function), sample.bind(reference)
        for choice in choices(len(sample.positions)):
            # An unbatched tensor cannot take a batch of values.
            if variant != "inplace" or choice[0]:
                sweep_sample(op, *calls, sample, api, outcome, choice, shifts)
    return outcome


# ---- vmap(vmap) --------------------------------------------------------------------------------


def nested_choices(count):
    """(outer, inner): everything twice, then each argument under one of the two vmaps."""
    first = tuple(k == 0 for k in range(count))
    rest = tuple(k != 0 for k in range(count))
    mixed = [(first, rest), (rest, first)] if count > 1 else []
    return [((True,) * count, (True,) * count), *mixed]


def nested_arguments(sample, outer, inner):
    """Outer batches in dim 0 and inner ones in the last, and the arguments of each example."""

    def value(k, o, i):
        shift = o * outer[k] + i * inner[k]
        return sample.draws[shift % DRAWS][k]

    args = []
    for k, (by_outer, by_inner) in enumerate(zip(outer, inner, strict=True)):
        rows = [
            torch.stack([value(k, o, i) for i in range(DRAWS)], -1) if by_inner else value(k, o, 0)
            for o in range(2)
        ]
        args.append(torch.stack(rows) if by_outer else rows[0])
    examples = [
        [[value(k, o, i) for k in range(len(outer))] for i in range(DRAWS)] for o in range(2)
    ]
    return args, examples


def loop_in_loop(call, examples):
    return stacked([stacked([seeded(call, args) for args in row]) for row in examples])


def sweep_nested_sample(op, sample, api, outcome, outer, inner):
    call = sample.bind(op.get_op())
    args, examples = nested_arguments(sample, outer, inner)
    outer_dims = tuple(0 if flag else None for flag in outer)
    inner_dims = tuple(-1 if flag else None for flag in inner)
    try:
        expected = quietly(loop_in_loop, call, examples)
    except Exception as error:
        outcome.skipped[f"the loop raises {type(error).__name__}"] += 1
        return
    if not expected:
        outcome.skipped["returns no tensor"] += 1
        return
    mapped = api.vmap(call, in_dims=inner_dims, randomness="same")

    def in_views(*rows):
        loop_over_views(call, rows, inner_dims)

    judge(
        outcome,
        op,
        described(sample, outer_dims, inner_dims),
        expected,
        lambda: apply_vmap(api, mapped, args, outer_dims, outcome.loops),
        lambda: fails(loop_over_views, in_views, args, outer_dims, 2),
    )


def sweep_nested(op, dtype, api, limit=None):
    """The outcome of one vmap inside another."""
    outcome = Outcome()
    for sample in samples(op, dtype, limit):
        if sample.positions:
            for outer, inner in nested_choices(len(sample.positions)):
                sweep_nested_sample(op, sample, api, outcome, outer, inner)
    return outcome


# ---- vmap(vjp) ---------------------------------------------------------------------------------


def is_differentiable(x):
    return x.is_floating_point() or x.is_complex()


def numbers_like(out, phase):
    """The same for whoever asks."""
    angle = 0.7 * torch.arange(out.numel(), dtype=torch.float64).reshape(out.shape) + phase
    return (angle.cos() + 0.5j * angle.sin() if out.is_complex() else angle.cos()).to(out.dtype)


def tracked_outputs(call, tensors):
    """What autograd can differentiate: a function that selects it from the outputs, and an example
    of it."""
    tensors = [x.clone().requires_grad_(is_differentiable(x)) for x in tensors]
    seed_all(SEED)
    outputs = call(*tensors)
    flags = [y.requires_grad for y in outputs]
    select = lambda results: [y for y, flag in zip(results, flags, strict=True) if flag]
    return select, [y.detach() for y in select(outputs)]


def pullback_by_autograd(call, select, count):
    """A function of `count` tensors and the cotangents: the gradient by plain autograd."""

    def gradient(*args):
        tensors, cotangents = [x.detach() for x in args[:count]], args[count:]
        inputs = [x.requires_grad_() for x in tensors if is_differentiable(x)]
        copies = [x.clone() for x in tensors]  # an operator may write, but not into a leaf
        return torch.autograd.grad(
            select(call(*copies)), inputs, cotangents, allow_unused=True, materialize_grads=True
        )

    return gradient


def pullback_by(api, call, select, count):
    """The same by `vjp` of `api`."""

    def gradient(*args):
        tensors, cotangents = args[:count], args[count:]

        def of_inputs(*replaced):
            replaced = iter(replaced)
            full = [next(replaced) if is_differentiable(x) else x for x in tensors]
            return tuple(select(call(*full)))

        _, pullback = api.vjp(of_inputs, *filter(is_differentiable, tensors))
        return pullback(cotangents)

    return gradient


def reached_by_autograd(call, select, tensors):
    """For each differentiable tensor, whether plain autograd takes the outputs to depend on it."""
    inputs = [x.detach().requires_grad_() if is_differentiable(x) else x for x in tensors]
    outputs = select(call(*(x.clone() for x in inputs)))
    inputs = [x for x in inputs if x.requires_grad]
    gradients = torch.autograd.grad(
        outputs, inputs, [torch.ones_like(y) for y in outputs], allow_unused=True
    )
    return [gradient is not None for gradient in gradients]


def selected(gradient, flags):
    """`gradient` with those results only that have their flag."""
    return lambda *args: tuple(itertools.compress(gradient(*args), flags))


def with_cotangents(sample, outputs):
    """A sample whose arguments are the tensors and then the cotangents of `outputs`."""
    draws = [
        [*draw, *(numbers_like(y, k + 10 * b) for k, y in enumerate(outputs))]
        for b, draw in enumerate(sample.draws)
    ]
    return dataclasses.replace(sample, draws=draws)


def vjp_choices(count):
    """Of `count` tensors, and whether the cotangents are batched: all with and without these, each
    tensor alone, and no tensor at all, as in a Jacobian."""
    alone = [(tuple(i == j for j in range(count)), False) for i in range(count)]
    everything = (True,) * count
    return [(everything, True), (everything, False), *alone * (count > 1), ((), True)]


def sweep_vjp_sample(op, sample, api, outcome):
    call = sample.bind(function_of(op))
    count = len(sample.tensors)
    if not any(map(is_differentiable, sample.tensors)):
        return
    try:
        select, outputs = quietly(tracked_outputs, call, sample.tensors)
    except Exception as error:
        outcome.skipped[f"the plain call raises {type(error).__name__}"] += 1
        return
    if not outputs:
        outcome.skipped["not differentiable"] += 1
        return
    if any(x.isnan().any() for draw in sample.draws for x in draw):
        # A product: PyTorch divides it by the input, or multiplies the others if there is a zero.
        outcome.skipped["an input is NaN: there is no derivative"] += 1
        return
    flags = itertools.repeat(True)
    if full_name(op) in NOT_REACHED:
        flags = reached_by_autograd(call, select, sample.tensors)
    sample = with_cotangents(sample, outputs)
    for tensors, cotangents in vjp_choices(count):
        choice = (*(tensors or (False,) * count), *(cotangents,) * len(outputs))
        try:
            by_autograd = selected(pullback_by_autograd(call, select, count), flags)
            expected = dense(stacked(quietly(loop, by_autograd, sample, choice)))
        except Exception as error:
            outcome.skipped[f"the loop raises {type(error).__name__}"] += 1
            continue
        args, dims = placed(sample, choice, 0)
        gradient = selected(pullback_by(api, call, select, count), flags)
        judge(
            outcome,
            op,
            described(sample, dims),
            expected,
            lambda: dense(apply_vmap(api, gradient, args, dims, outcome.loops)),  # noqa: B023
        )


def sweep_vjp(op, dtype, api, limit=None):
    """The outcome of vmap(vjp) on all cases of `op`."""
    outcome = Outcome()
    for sample in samples(op, dtype, limit):
        sweep_vjp_sample(op, sample, api, outcome)
    return outcome
