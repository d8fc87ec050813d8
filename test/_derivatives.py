"""What the derivative of a function of tensors has to be: by differences, and by plain autograd.

A derivative is checked against central differences wherever the function is smooth. Where it has a
kink, PyTorch's choice among the slopes decides, as plain autograd has it. All numbers are real to
this: an inner product is the real part of the complex one.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch.testing import assert_close

STEP = 1e-4
DOUBLE = torch.finfo(torch.float64).eps
EXACT = {"rtol": 1e-7, "atol": 1e-8}


class Undecided(Exception):
    """There is no reference; says why."""


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of `inputs` that returns a tuple of tensors: `plain` evaluates it, autograd can
    differentiate `tracked`, and `under(api)` is made of the transforms of `api`. It is computed to
    a precision of `eps`. Without `by_differences` plain autograd alone decides; without
    `has_constants` differences do where autograd takes an output for a constant."""

    inputs: list
    plain: Callable
    tracked: Callable
    under: Callable
    eps: float
    by_differences: bool = True
    has_constants: bool = True
    is_gradient: bool = False  # or another derivative, by autograd

    def flags(self):
        """Which outputs depend on the inputs."""
        flags = tracked_flags(self.tracked, self.inputs)
        return flags if self.has_constants else [True] * len(flags)


def precision(tensors):
    return max((torch.finfo(x.dtype).eps for x in tensors), default=DOUBLE)


def is_differentiable(x):
    return x.is_floating_point() or x.is_complex()


def numbers_like(x, phase):
    """The same for whoever asks; none is zero."""
    angle = 0.7 * torch.arange(x.numel(), dtype=torch.float64).reshape(x.shape) + phase
    return (angle.cos() + 0.5j * angle.sin() if x.is_complex() else angle.cos()).to(x.dtype)


def numbers_like_all(tensors, phase):
    return [numbers_like(x, phase + k) for k, x in enumerate(tensors)]


def inner(xs, ys):
    """Real part of the sum of products, and the sum of their absolute values."""
    products = [(x.conj() * y).real.double() for x, y in zip(xs, ys, strict=True)]
    return sum(p.sum() for p in products), sum(p.abs().sum() for p in products)


# ---- differences -----------------------------------------------------------------------------


def difference(values, step):
    """The derivative of one output from its values at -2, -1, 0, 1 and 2 half steps, and the
    elements of it that can be trusted: where it doesn't depend on the step, where the slopes to
    both sides approach each other, and where rounding in the values leaves enough digits."""
    far_below, below, here, above, far_above = values
    wide, narrow = (far_above - far_below) / (2 * step), (above - below) / step
    bend = (far_above - 2 * here + far_below) / step
    narrow_bend = (above - 2 * here + below) / (step / 2)
    error = (wide - narrow).abs() + (bend - 2 * narrow_bend).abs()
    largest = here.abs().nan_to_num(0, 0).max() if here.numel() else 0
    error = error + 100 * DOUBLE * largest / step
    return (4 * narrow - wide) / 3, error <= 1e-6 + 1e-5 * narrow.abs()


def differences(function, tangents, step=STEP):
    """The derivative of a `Function` along `tangents`: for each output the value, and where to
    trust it."""
    rows = [
        function.plain(*(x + k * step * t for x, t in zip(function.inputs, tangents, strict=True)))
        for k in (-1, -0.5, 0, 0.5, 1)
    ]
    trusted = function.by_differences and function.eps <= DOUBLE
    results = []
    for here, *values in zip(rows[2], *rows, strict=True):
        if trusted and all(v.shape == here.shape for v in values):
            results.append(difference(values, step))
        else:
            results.append((torch.zeros_like(here), torch.zeros_like(here, dtype=torch.bool)))
    return results


# ---- plain autograd --------------------------------------------------------------------------


def tracked_copies(tensors):
    return [x.detach().requires_grad_() for x in tensors]


def tracked_flags(function, inputs):
    """Which outputs autograd tracks."""
    return [y.requires_grad for y in function(*tracked_copies(inputs))]


def autograd_vjp(function, inputs, cotangents):
    """Of a function that returns a tuple; raises Undecided where autograd tracks no output."""
    inputs = tracked_copies(inputs)
    pairs = [(y, c) for y, c in zip(function(*inputs), cotangents, strict=True) if y.requires_grad]
    if not pairs:
        raise Undecided("autograd does not track it")
    gradients = torch.autograd.grad(
        [y for y, _ in pairs],
        inputs,
        [c for _, c in pairs],
        allow_unused=True,
        materialize_grads=True,
    )
    return dense(gradients)


def dense(tensors):
    return [x.to_dense() if x.layout is not torch.strided else x for x in tensors]


def vjp_or_undecided(function, inputs, cotangents):
    """Undecided also where PyTorch refuses, or the derivative is not finite."""
    try:
        gradients = autograd_vjp(function, inputs, cotangents)
    except (RuntimeError, NotImplementedError) as error:
        raise Undecided(f"plain autograd raises: {first_line(error)}") from error
    if not all(g.isfinite().all() for g in gradients):
        raise Undecided("the derivative is not finite")
    return gradients


def first_line(error):
    return next(iter(str(error).splitlines()), "")


# ---- comparison ------------------------------------------------------------------------------


def check_alike(actual, expected):
    assert len(actual) == len(expected), f"{len(actual)} results instead of {len(expected)}"
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape, f"shape {tuple(a.shape)} instead of {tuple(e.shape)}"
        assert a.dtype == e.dtype, f"{a.dtype} instead of {e.dtype}"


def passes(check, *args):
    try:
        check(*args)
    except AssertionError:
        return False
    return True


def check_equal_inner(xs, ys, us, vs, tolerances):
    (left, left_size), (right, right_size) = inner(xs, ys), inner(us, vs)
    error = (left - right).abs()
    bound = tolerances["atol"] + tolerances["rtol"] * (left_size + right_size)
    assert error <= bound, (
        f"the derivative along a vector is {left.item()} instead of {right.item()}"
    )


class ForwardReference:
    """What the derivative of `function` along `tangents` has to be. Elements that differences can't
    be trusted with are checked all at once: their sum, by numbers that differ, is a gradient. What
    autograd takes for a constant has to be one, for both modes to agree."""

    def __init__(self, function, tangents):
        self.function = function
        self.tangents = tangents
        self.outputs = function.plain(*function.inputs)
        self.slopes = differences(function, tangents)
        self.flags = function.flags()

    def check(self, result):
        """Raises AssertionError, or Undecided if there was nothing to compare with."""
        outputs, actual = map(dense, result)
        check_alike(outputs, self.outputs)
        for y, e in zip(outputs, self.outputs, strict=True):
            assert_close(y, e, equal_nan=True, **self.tolerances)
        check_alike(actual, self.outputs)
        trusted, rest = 0, []
        for a, y, (slope, smooth), flag in zip(
            actual, outputs, self.slopes, self.flags, strict=True
        ):
            if not flag:
                slope, smooth = torch.zeros_like(y), torch.ones_like(smooth)
            assert_close(a[smooth], slope[smooth], rtol=1e-5, atol=1e-5)
            trusted += smooth.sum()
            rest.append(y.isfinite() & ~smooth)
        if any(r.any() for r in rest):
            try:
                self.check_at(rest, actual)
            except Undecided:
                if trusted == 0:
                    raise

    @property
    def tolerances(self):
        return {"rtol": max(1e-7, 2 * self.function.eps), "atol": max(1e-8, self.function.eps)}

    def check_at(self, places, actual):
        weights = numbers_like_all(self.outputs, 0.3)
        weights = [w.where(at, 0) for w, at in zip(weights, places, strict=True)]
        actual = [a.where(at, 0) for a, at in zip(actual, places, strict=True)]
        gradients = vjp_or_undecided(self.function.tracked, self.function.inputs, weights)
        check_equal_inner(weights, actual, gradients, self.tangents, self.tolerances)


AS_IN_PYTORCH = "plain autograd says the same: "


class ReverseReference:
    """What the gradient of `function` has to be: the inner product with `tangents` is that of
    `cotangents` with the derivative, and plain autograd decides on each element. Where that is
    wrong itself, the error says so."""

    def __init__(self, function, cotangents, tangents):
        self.function = function
        self.cotangents = cotangents
        self.tangents = tangents
        self.slopes = [
            (slope if flag else torch.zeros_like(slope), smooth | (not flag))
            for (slope, smooth), flag in zip(
                differences(function, tangents), function.flags(), strict=True
            )
        ]
        self.is_smooth = all(smooth.all() for _, smooth in self.slopes)

    def check(self, actual):
        """Raises AssertionError, or Undecided if there was nothing to compare with."""
        actual = dense(actual)
        check_alike(actual, self.function.inputs)
        if not self.is_smooth:
            self.check_elements(
                actual,
                vjp_or_undecided(self.function.tracked, self.function.inputs, self.cotangents),
            )
            return
        by_autograd = self.gradient_by_autograd()
        try:
            self.check_sum(actual)
        except AssertionError as error:
            if by_autograd is not None and passes(self.check_elements, actual, by_autograd):
                raise AssertionError(AS_IN_PYTORCH + str(error)) from error
            raise
        if by_autograd is not None and passes(self.check_sum, by_autograd):
            self.check_elements(actual, by_autograd)

    def gradient_by_autograd(self):
        """None where PyTorch refuses."""
        try:
            return autograd_vjp(self.function.tracked, self.function.inputs, self.cotangents)
        except (Undecided, RuntimeError, NotImplementedError):
            return None

    def check_elements(self, actual, expected):
        for a, e in zip(actual, expected, strict=True):
            assert_close(a, e, equal_nan=True, **self.tolerances(e))

    def check_sum(self, actual):
        slopes = [slope for slope, _ in self.slopes]
        check_equal_inner(
            actual, self.tangents, self.cotangents, slopes, {"rtol": 1e-6, "atol": 1e-8}
        )

    def tolerances(self, expected):
        """Elements that almost cancel are as exact as the others."""
        rtol = max(1e-7, 2 * self.function.eps)
        size = expected.abs().nan_to_num(0).max().item() if expected.numel() else 0
        return {"rtol": rtol, "atol": rtol * max(size, 0.1)}
