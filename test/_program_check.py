"""Runs a case under a library and under the reference, and says how the answers compare."""

from __future__ import annotations

import random
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import _program_reference as reference
import torch
from _program_functions import NAMES, Halfway, Often
from _programs import Case
from torch.utils._pytree import tree_flatten

import functx

# Of the largest number in a tensor, and of one.
TOLERANCES = {torch.float32: 5e-3, torch.float64: 1e-8, torch.complex128: 1e-8}
LARGEST = 1e6  # numbers beyond have lost digits: programs take sines of derivatives

WITHOUT_GRAD = re.compile(r"quietly\(|no_grad\(\)\(|nn\.init")
FORWARD = re.compile(r"T\.(jvp|jacfwd|hessian|linearize)")


@dataclass(frozen=True)
class Verdict:
    kind: str  # "right", "wrong", "refused", "invalid"
    detail: str = ""

    @property
    def group(self) -> str:
        """The detail without what differs from case to case."""
        return re.sub(r"0x[0-9a-f]+|-?\d+(\.\d+)?(e-?\d+)?", "#", self.detail.split("\n")[0])[:150]


@contextmanager
def quiet():
    """Double precision by default, no warnings."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


def run(code, library):
    names = dict(NAMES, torch=torch, T=library, checkpoint=_checkpoint_for(library))
    if library is reference:
        names["Once"] = Often
    try:
        exec(code, names)
    finally:
        torch.set_default_dtype(torch.float64)  # the code sets its own
    return names["result"]


def _checkpoint_for(library):
    if library is reference:
        return reference.checkpoint
    from torch.utils.checkpoint import checkpoint

    return checkpoint


def expected(case: Case, by_rows: bool = False):
    source = case.source()
    if case.context == "torch.inference_mode()":
        source = source.replace(case.context, "torch.no_grad()")
    code = compile(source, "<program>", "exec")
    with reference.settings(outside=bool(case.tracked), by_rows=by_rows):
        return run(code, reference)


def is_undecided(case: Case) -> bool:
    """A constant computed under `no_grad` has a tangent in forward mode, as PyTorch defines it, and
    none if forward mode is made of reverse mode, as it is in the reference."""
    source = case.source()
    # Nor does autograd record in inference mode, which the reference can't do without.
    if case.context == "torch.inference_mode()" and "torch.autograd" in source:
        return True
    return bool(WITHOUT_GRAD.search(source) and FORWARD.search(source))


def answered(case: Case):
    """What the reference gives, or a verdict if that says nothing."""
    if is_undecided(case):
        return Verdict("invalid", "no_grad in forward mode")
    try:
        answer = expected(case)
    except Exception as error:
        try:
            answer = expected(case, by_rows=True)
        except Exception:
            return Verdict("invalid", f"{type(error).__name__}: {error}")
    if not all((leaf.abs() <= LARGEST).all() for leaf in _tensors(answer)):
        return Verdict("invalid", "not finite, or too large")
    return answer


def check(case: Case, library=functx) -> Verdict:
    return judged(case, answered(case), library)


def judged(case: Case, answer, library) -> Verdict:
    """An answer is wrong if both forms of the reference contradict it."""
    if isinstance(answer, Verdict):
        return answer
    verdict = compare_run(case, library, answer)
    if verdict.kind == "wrong" and case.dtype == "float32":
        exact = check(replace(case, dtype="float64"), library)
        if exact.kind != "wrong":
            return Verdict("invalid", "rounding in float32")
    if verdict.kind == "wrong":
        try:
            difference = difference_of(answer, expected(case, by_rows=True))
        except Exception:
            difference = None
        if difference is not None:
            return Verdict("invalid", f"the references differ: {difference}")
    return verdict


def compare_run(case: Case, library, answer) -> Verdict:
    code = compile(case.source(), "<program>", "exec")
    try:
        actual = run(code, library)
    except Exception as error:
        left = levels_left(library)
        if left:
            return Verdict("wrong", f"{left} levels left after {type(error).__name__}: {error}")
        return Verdict("refused", f"{type(error).__name__}: {error}")
    left = levels_left(library)
    if left:
        return Verdict("wrong", f"{left} levels left")
    difference = difference_of(actual, answer)
    return Verdict("wrong", difference) if difference else Verdict("right")


def levels_left(library) -> int:
    """How many levels a call left behind; they are removed."""
    if library is not functx:
        return 0
    depth = functx._C.level_depth()
    while (level := functx._C.innermost_level()) is not None:
        functx._C.pop(level)
    return depth


def _tensors(tree):
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def difference_of(actual, answer) -> str | None:
    actual_leaves, actual_spec = tree_flatten(actual)
    answer_leaves, answer_spec = tree_flatten(answer)
    if actual_spec != answer_spec:
        return f"structure {actual_spec} instead of {answer_spec}"
    for a, e in zip(actual_leaves, answer_leaves, strict=True):
        if a.shape != e.shape or a.dtype != e.dtype:
            return f"{tuple(a.shape)} {a.dtype} instead of {tuple(e.shape)} {e.dtype}"
        a, e = a.detach(), e.detach()
        if a.numel() == 0:
            continue
        allowed = TOLERANCES.get(e.dtype, 0) * max(1.0, float(e.abs().max()))
        if not bool(((a - e).abs() <= allowed).all()):
            return f"{a.tolist()} instead of {e.tolist()}"
    return None


def fails_half_way(case: Case, position: int, library=functx) -> Verdict:
    """The case with an exception in the middle: it has to come out, and to leave nothing behind."""
    code = compile(case.failing_half_way(position).source(), "<program>", "exec")
    try:
        run(code, library)
    except Halfway:
        left = levels_left(library)
        return Verdict("wrong", f"{left} levels left after Halfway") if left else Verdict("right")
    except Exception as error:
        return Verdict("refused", f"{type(error).__name__}: {error}")
    return Verdict("wrong", "the exception was lost")


def examine(case: Case, rng: random.Random, library=functx) -> list[Verdict]:
    """The check, and now and then: again after an exception half-way, and in threads at once."""
    answer = answered(case)
    verdicts = [judged(case, answer, library)]
    if verdicts[0].kind != "right" or library is not functx:
        return verdicts
    if rng.random() < 0.15:
        position = rng.randrange(len(case.function.body) + 1)
        verdicts += [fails_half_way(case, position, library), compare_run(case, library, answer)]
    if rng.random() < 0.05 and case.dtype != "float32":  # the default dtype is all threads'
        with ThreadPoolExecutor(3) as pool:
            verdicts += pool.map(lambda _: compare_run(case, library, answer), range(3))
    return verdicts
