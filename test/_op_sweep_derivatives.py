"""Runs operators of `op_db` under compositions of jvp and vjp of functx or torch.func.

Each kind of sweep differentiates a function made of an operator (`_differentiated`) in one of
several ways. The references are those of `_derivatives`. A case is a sample and a choice of the
tensors that are differentiated: all, or one.
"""

import dataclasses
import functools

import torch
from _derivative_exceptions import (
    BY_DEFINITION,
    CONSTANT_FACTORS,
    GRADIENT_NOT_TRACKED,
    NOT_CONSTANT,
)
from _derivatives import (
    ForwardReference,
    ReverseReference,
    Undecided,
    check_alike,
    check_equal_inner,
    differences,
    first_line,
    is_differentiable,
    numbers_like,
    numbers_like_all,
    tracked_copies,
)
from _differentiated import batch, gradient, gradient_of_sum, slope, value
from _op_db import ENTRIES, full_name, samples, seed_all
from _op_sweep import SEED, UNINITIALIZED, Outcome, apply_vmap, position, quietly
from _reference import forward_ad_jvp
from torch.testing import assert_close

# ---- how: each gives the pairs of a reference and what to compare with it ----------------------


def forward(api, functions, outcome):
    function = functions[0]
    tangents = numbers_like_all(function.inputs, 0.5)
    reference = ForwardReference(function, tangents)
    compute = lambda: [api.jvp(function.under(api), tuple(function.inputs), tuple(tangents))]
    yield "", [reference], compute


def reverse(api, functions, outcome):
    function = functions[0]
    cotangents = numbers_like_all(function.plain(*function.inputs), 0.6)
    reference = ReverseReference(function, cotangents, numbers_like_all(function.inputs, 0.5))

    def compute():
        _, pullback = api.vjp(function.under(api), *function.inputs)
        return [pullback(tuple(cotangents))]

    yield "", [reference], compute


def mapped_forward(api, functions, outcome):
    """vmap of jvp: with a batch of everything, and of tangents alone, as in a Jacobian."""
    count = len(functions[0].inputs)
    rows = [numbers_like_all(f.inputs, 0.5 + 10 * b) for b, f in enumerate(functions)]

    def derivative(*args):
        return api.jvp(functions[0].under(api), args[:count], args[count:])

    for what, examples in ("all", functions), ("tangents", functions[:1] * len(functions)):
        references = [ForwardReference(f, row) for f, row in zip(examples, rows, strict=True)]
        args, dims = list(examples[0].inputs), [None] * count
        if what == "all":
            args, dims = stacked_inputs([f.inputs for f in examples])
        tangents, tangent_dims = stacked_inputs(rows)

        def compute(args=(*args, *tangents), dims=(*dims, *tangent_dims)):
            outputs, slopes = apply_vmap(api, derivative, args, dims, outcome.loops)
            return [
                ([y[b] for y in outputs], [t[b] for t in slopes]) for b in range(len(functions))
            ]

        yield f", batched in {what}", references, compute


def stacked_inputs(rows):
    """The columns of `rows`, each stacked at another place."""
    dims = [position(x, k) for k, x in enumerate(rows[0])]
    columns = zip(zip(*rows, strict=True), dims, strict=True)
    return [torch.stack(column, dim) for column, dim in columns], dims


LARGEST_JACOBIAN = 30


def has_jacobian(function, outcome):
    """Whether it is a function of one real tensor that is not large, and returns real ones."""
    (x, *others) = function.inputs
    if others or x.is_complex() or not 0 < x.numel() <= LARGEST_JACOBIAN:
        outcome.skipped["not a small real tensor"] += 1
        return False
    if any(y.is_complex() for y in function.plain(x)):
        outcome.skipped["complex results, of which jacfwd and jacrev take no Jacobian"] += 1
        return False
    return True


def jacobians(transform, function, api, dtype_of):
    (x,) = function.inputs
    results = transform(api)(function.under(api))(x)
    outputs = function.plain(x)
    check_alike(results, [y.new_empty(y.shape + x.shape, dtype=dtype_of(x, y)) for y in outputs])
    return outputs, results


def by_columns(api, functions, outcome):
    """jacfwd: each column is the derivative along a unit vector."""
    function = functions[0]
    if not has_jacobian(function, outcome):
        return
    (x,) = function.inputs
    units = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)

    def compute():
        outputs, results = jacobians(jacfwd, function, api, lambda x, y: y.dtype)
        flat = [j.reshape(*y.shape, x.numel()) for j, y in zip(results, outputs, strict=True)]
        return [(outputs, [j[..., k] for j in flat]) for k in range(x.numel())]

    yield "", [ForwardReference(function, [unit]) for unit in units], compute


def by_rows(api, functions, outcome):
    """jacrev: a sum of the rows, each times a cotangent, is a gradient."""
    function = functions[0]
    if not has_jacobian(function, outcome):
        return
    (x,) = function.inputs
    cotangents = numbers_like_all(function.plain(x), 0.6)

    def compute():
        _, results = jacobians(jacrev, function, api, lambda x, y: x.dtype)
        pairs = zip(cotangents, results, strict=True)
        sums = [torch.tensordot(c.to(j.dtype), j, c.dim()) for c, j in pairs]
        return [(sum(sums, torch.zeros_like(x)),)]

    yield "", [ReverseReference(function, cotangents, numbers_like_all([x], 0.5))], compute


def each(make):
    """A function for each draw."""
    return lambda f, draws: [make(f, inputs) for inputs in draws]


def whole(f, draws):
    return [batch(f, draws)]


def jacfwd(api):
    return lambda f: api.jacfwd(f, randomness="same")


def jacrev(api):
    return api.jacrev


KINDS = {
    "jvp": (each(value), forward),
    "vjp": (each(value), reverse),
    "vmap(jvp)": (each(value), mapped_forward),
    "jvp(vjp)": (each(gradient), forward),
    "vjp(vjp)": (each(gradient), reverse),
    "vmap(jvp(vjp))": (each(gradient), mapped_forward),
    "jvp(jvp)": (each(slope), forward),
    "vjp(jvp)": (each(slope), reverse),
    "jvp(vmap)": (whole, forward),
    "vjp(vmap)": (whole, reverse),
    "jacfwd": (each(value), by_columns),
    "jacrev": (each(value), by_rows),
    "jacfwd(jacfwd)": (each(gradient_of_sum(jacfwd)), by_columns),
    "jacrev(jacfwd)": (each(gradient_of_sum(jacfwd)), by_rows),
    "jacfwd(jacrev)": (each(gradient_of_sum(jacrev)), by_columns),
    "jacrev(jacrev)": (each(gradient_of_sum(jacrev)), by_rows),
}


# ---- the cases of an operator ------------------------------------------------------------------


def operator_of(op, sample, active):
    """The operator as a function of the tensors at `active` that returns what has derivatives."""
    call = sample.bind_smooth(op)
    left_out = NOT_CONSTANT.get(full_name(op), ())

    def function(*inputs):
        tensors = [x.clone() for x in sample.tensors]
        for k, x in zip(active, inputs, strict=True):
            tensors[k] = x.clone()  # an operator may write, but not into a leaf
        seed_all(SEED)
        results = [r for i, r in enumerate(call(*tensors)) if i not in left_out]
        return tuple(filter(is_differentiable, results))

    return function


def described(sample, active):
    shapes = [tuple(x.shape) for x in sample.tensors]
    return f"sample {sample.index} of shapes {shapes}, by {list(active)}"


def judge(outcome, where, references, compute):
    try:
        results = quietly(compute)
    except Exception as error:
        outcome.errors.append(f"{where}: {type(error).__name__}: {error}")
        return
    try:
        for reference, result in zip(references, results, strict=True):
            quietly(reference.check, result)
        outcome.right += 1
    except AssertionError as error:
        outcome.wrong.append(f"{where}: {first_lines(error)}")
    except Undecided as reason:
        outcome.skipped[f"not smooth here, and {reason}"] += 1


def first_lines(error):
    return " ".join(str(error).split())[:300]


def is_tracked(f, inputs):
    """Whether autograd differentiates `f` by its only input, and has not just heard of it."""
    inputs = tracked_copies(inputs)
    try:
        outputs = [y for y in f(*inputs) if y.requires_grad]
        ones = [torch.ones_like(y) for y in outputs]
        (gradient,) = torch.autograd.grad(outputs, inputs, ones, allow_unused=True)
    except (RuntimeError, NotImplementedError):
        return False
    return gradient is not None


def inputs_at(draw, active):
    return [draw[k].detach() for k in active]


def sweep_sample(kind, op, sample, api, outcome):
    numbers = [k for k, x in enumerate(sample.tensors) if is_differentiable(x)]
    if not numbers:
        outcome.skipped["takes no numbers"] += 1
        return
    alone = {k: (operator_of(op, sample, (k,)), inputs_at(sample.tensors, (k,))) for k in numbers}
    if reason := reason_to_skip(*alone[numbers[0]]):
        outcome.skipped[reason] += 1
        return
    tracked = [k for k in numbers if quietly(is_tracked, *alone[k])]
    for active in dict.fromkeys([tuple(tracked), *((k,) for k in tracked)]):
        if active:
            sweep_choice(kind, op, sample, api, outcome, active)
    if kind in ("jvp", "vjp") and not is_by_definition(op):
        for k in sorted({*numbers} - {*tracked}):
            where = described(sample, (k,))
            quietly(lambda: sweep_constant(value(*alone[k]), api, outcome, where))  # noqa: B023
    elif not tracked:
        outcome.skipped["not differentiable in PyTorch"] += 1


def reason_to_skip(f, inputs):
    try:
        outputs = quietly(f, *inputs)
    except Exception as error:
        return f"the plain call raises {type(error).__name__}"
    if not outputs:
        return "returns no numbers"
    if any(y.isnan().any() for y in outputs) and not any(x.numel() for x in inputs):
        return "a mean of nothing: there is no derivative"
    return None


def is_by_definition(op):
    return op.name in BY_DEFINITION or full_name(op) in BY_DEFINITION


def functions_of(what, f, op, sample, active):
    for function in what(f, [inputs_at(draw, active) for draw in sample.draws]):
        is_smooth = function.is_gradient and CONSTANT_FACTORS not in sample.kwargs
        yield dataclasses.replace(
            function,
            by_differences=is_smooth or not is_by_definition(op),
            has_constants=full_name(op) not in GRADIENT_NOT_TRACKED,
        )


def sweep_choice(kind, op, sample, api, outcome, active):
    what, how = KINDS[kind]
    where = described(sample, active)
    f = operator_of(op, sample, active)
    try:
        functions = quietly(lambda: list(functions_of(what, f, op, sample, active)))
        cases = quietly(lambda: list(how(api, functions, outcome)))
    except Undecided as reason:
        outcome.skipped[str(reason)] += 1
        return
    except Exception as error:
        outcome.skipped[f"the reference raises {type(error).__name__}: {first_line(error)}"] += 1
        return
    for batching, references, compute in cases:
        judge(outcome, where + batching, references, compute)


def sweep(kind, op, dtype, api, limit=None):
    """The outcome of all cases of `op`, or of `limit` samples from the first to the last."""
    outcome = Outcome()
    if op.name in UNINITIALIZED:
        outcome.skipped["uninitialized memory"] += 1
        return outcome
    for sample in spread(all_samples(full_name(op), dtype), limit):
        sweep_sample(kind, op, sample, api, outcome)
    return outcome


@functools.lru_cache(maxsize=1)
def all_samples(name, dtype):
    """Kept, as a sweep of the next kind is often of the same operator."""
    return [in_double(sample) for sample in samples(ENTRIES[name], dtype)]


def in_double(sample):
    """`sample` with all numbers in double precision, also the few that `op_db` has in single: in
    these there would not be enough digits for differences."""
    double = {torch.float32: torch.float64, torch.complex64: torch.complex128}
    draws = [[x.to(double.get(x.dtype, x.dtype)) for x in draw] for draw in sample.draws]
    return dataclasses.replace(sample, draws=draws)


def spread(items, limit):
    if limit is None or len(items) <= limit:
        return items
    return [items[k * len(items) // limit] for k in range(limit)]


# ---- constants to PyTorch, though there may be a derivative --------------------------------------


def forward_word(function, api):
    """What jvp does where PyTorch has no derivative in reverse mode."""
    tangents = numbers_like_all(function.inputs, 0.5)
    try:
        _, actual = api.jvp(function.under(api), tuple(function.inputs), tuple(tangents))
    except Exception:
        try:
            forward_ad_jvp(function.plain, function.inputs, tangents)
        except Exception:
            return "raises"
        return "raises, though PyTorch has a formula"
    try:
        for a, (slope, smooth) in zip(actual, differences(function, tangents), strict=True):
            assert_close(a[smooth], slope[smooth], rtol=1e-5, atol=1e-5)
    except AssertionError:
        return "zero" if not any(map(torch.any, actual)) else "wrong"
    return "right"


def reverse_word(function, api):
    """What vjp does there."""
    tangents = numbers_like_all(function.inputs, 0.5)
    slopes = differences(function, tangents)
    values = [slope.where(smooth, 0) for slope, smooth in slopes]
    cotangents = [numbers_like(s, 0.6).where(smooth, 0) for s, smooth in slopes]
    try:
        _, pullback = api.vjp(function.under(api), *function.inputs)
        actual = pullback(tuple(cotangents))
    except Exception:
        return "raises"
    # Of an elementwise function: outside of its domain the slope is not a number, times zero too.
    domain = slopes[0][1]
    actual = [a.where(domain, 0) if a.shape == domain.shape else a for a in actual]
    try:
        check_equal_inner(actual, tangents, cotangents, values, {"rtol": 1e-6, "atol": 1e-8})
    except AssertionError:
        return "zero" if not any(map(torch.any, actual)) else "wrong"
    return "right"


def sweep_constant(function, api, outcome, where):
    """By an input that plain autograd doesn't differentiate by: both modes must do the same."""
    ahead, back = forward_word(function, api), reverse_word(function, api)
    verdict = f"not differentiable in PyTorch: {ahead} forward, {back} in reverse"
    if (ahead, back) == ("right", "right"):
        outcome.right += 1
        slopes = differences(function, numbers_like_all(function.inputs, 0.5))
        outcome.beyond_pytorch += any(
            s.where(smooth, 0).abs().gt(1e-5).any() for s, smooth in slopes
        )
    elif "though" in ahead:
        outcome.errors.append(f"{where}: {verdict}")
    elif "wrong" in (ahead, back) or {ahead, back} == {"right", "zero"}:
        outcome.wrong.append(f"{where}: {verdict}")
    else:
        outcome.skipped[verdict] += 1
