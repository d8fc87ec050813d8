"""The checks of one model, in a process that may die of them.

By hand, from this folder: `python run_one.py bert 'hessian*'`.
"""

import contextlib
import fnmatch
import sys
import time
import traceback
import warnings

import torch
from _checks import CHECKS, SECOND, UNDER_AUTOCAST, levels_left
from _model import Subject
from torch.utils._pytree import tree_flatten, tree_leaves

SECONDS = 60  # for one check of one model, both times

CALLS = ("first", "second")
AUTOCAST = " autocast"
SINGLE = " float32"

NAMES = (
    *CHECKS,
    *(name + SINGLE for name in CHECKS),
    *(name + AUTOCAST for name in UNDER_AUTOCAST),
)


def tolerance(name, single):
    """Relative to the largest number. Central differences limit it for second derivatives, and for
    lower precision the arithmetic."""
    if name.endswith(SINGLE):
        return 2e-3
    if single:
        return 1e-3 if name in SECOND else 1e-5
    return 1e-5 if name in SECOND else 1e-9


def scaled_errors(got, want):
    """How far each tensor is off, relative to its largest number. One far smaller than the
    others is measured by what is lost in adding those up."""
    largest = max((float(w.abs().max()) for w in want if w.numel()), default=0.0)
    for g, w in zip(got, want, strict=True):
        if w.numel():
            scale = float(w.abs().max()) + 0.01 * largest + 1e-300
            yield float((g.double() - w.double()).abs().max()) / scale
        else:
            yield 0.0


def mismatch(got, want, tolerance):
    """What is wrong with a result, or None."""
    got, got_spec = tree_flatten(got)
    want, want_spec = tree_flatten(want)
    if got_spec != want_spec:
        return f"structure {got_spec}, not {want_spec}"
    for k, (g, w) in enumerate(zip(got, want, strict=True)):
        if g.shape != w.shape:
            return f"result {k} has shape {tuple(g.shape)}, not {tuple(w.shape)}"
    errors = list(scaled_errors(got, want))
    if all(error <= tolerance for error in errors):  # nan is not
        return None
    k = max(range(len(errors)), key=lambda k: (errors[k] != errors[k], errors[k]))
    g, w = got[k].double().reshape(-1), want[k].double().reshape(-1)
    at = int((g - w).abs().nan_to_num(torch.inf).argmax())
    return (
        f"result {k} of {len(want)} off by {errors[k]:.1e} of its scale: "
        f"{float(g[at]):.8g}, not {float(w[at]):.8g}"
    )


class Plain:
    """A module as it is without transforms, to compare with later."""

    def __init__(self, subject):
        self.subject = subject
        self.params = dict(subject.module.named_parameters())
        self.flags = {name: p.requires_grad for name, p in self.params.items()}
        self.tensors = {k: v.clone() for k, v in subject.module.state_dict().items()}
        self.value = self.output()

    def output(self):
        with torch.no_grad():
            s = self.subject
            return s.module(s.x, *s.data)

    def change(self):
        """What has changed, or None."""
        if levels_left():
            return "a level was left on the stack"
        now = dict(self.subject.module.named_parameters())
        if list(now) != list(self.params) or any(now[k] is not p for k, p in self.params.items()):
            return "a parameter is another tensor afterwards"
        if {name: p.requires_grad for name, p in now.items()} != self.flags:
            return "requires_grad of a parameter has changed"
        if any(p.grad is not None for p in now.values()):
            return "a parameter has got a grad"
        state = self.subject.module.state_dict()
        if any(not torch.equal(state[k], v) for k, v in self.tensors.items()):
            return "a parameter or buffer has another value afterwards"
        value = self.output()
        pairs = zip(tree_leaves(value), tree_leaves(self.value), strict=True)
        if any(isinstance(a, torch.Tensor) and not torch.equal(a, b) for a, b in pairs):
            return "the module's output is another afterwards"
        return None


def split(name):
    for suffix in (SINGLE, AUTOCAST):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return name, ""


def reason(error):
    """The message of an exception, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}"[:400]


class Runner:
    def __init__(self, build):
        self.build = build
        self.subjects, self.wants, self.lost = {}, {}, {}

    def subject(self, dtype):
        if dtype not in self.subjects:
            torch.manual_seed(0)
            subject = Subject(self.build(), dtype)
            self.subjects[dtype] = subject, Plain(subject)
        return self.subjects[dtype]

    def want(self, check):
        if check not in self.wants:
            subject, _ = self.subject(torch.float64)
            self.wants[check] = CHECKS[check][1](subject)
        return self.wants[check]

    def lost_by_autocast(self, check):
        """How far plain autograd under autocast is off. Differences are no help there: the gradient
        stands for its derivatives."""
        check = "vmap(grad)" if check in SECOND else check
        if check not in self.lost:
            subject, _ = self.subject(torch.float32)
            with autocast():
                got = tree_leaves(CHECKS[check][1](subject))
            self.lost[check] = max(scaled_errors(got, tree_leaves(self.want(check))))
        return self.lost[check]

    def tolerance(self, name, check, suffix):
        if suffix == AUTOCAST:
            return 0.1 + (10 if check in SECOND else 3) * self.lost_by_autocast(check)
        subject, _ = self.subject(torch.float64)
        return max(tolerance(name, subject.single), subject.error)

    def run(self, name, verbose=False):
        """'right', 'wrong' or 'raises', and why."""
        check, suffix = split(name)
        if suffix == AUTOCAST and not self.subject(torch.float64)[0].autocasts:
            return "raises", "plain autograd too: it comes to no end"
        try:
            want, tolerance = self.want(check), self.tolerance(name, check, suffix)
        except Exception as error:
            return "raises", f"plain autograd too: {reason(error)}"
        subject, plain = self.subject(torch.float32 if suffix else torch.float64)
        # Twice: what a module keeps of the first call must not spoil the second.
        for call in CALLS:
            try:
                with autocast() if suffix == AUTOCAST else contextlib.nullcontext():
                    got = CHECKS[check][0](subject)
            except Exception as error:
                if verbose:
                    traceback.print_exc()
                return "raises", reason(error)
            found = mismatch(got, want, tolerance) or plain.change()
            if found:
                return "wrong", f"{call} call: {found}"
        return "right", ""


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def main(models, name, *patterns):
    warnings.simplefilter("ignore")
    runner = Runner(models[name])
    for check in NAMES:
        if patterns and not any(fnmatch.fnmatch(check, p) for p in patterns):
            continue
        start = time.perf_counter()
        print(f"{name:24} {check:28} ", end="", flush=True)
        outcome, why = runner.run(check, verbose=len(patterns) > 0)
        print(f"{outcome:7} {time.perf_counter() - start:6.2f} s  {why}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    from _zoo import MODELS

    main(MODELS, *sys.argv[1:])
