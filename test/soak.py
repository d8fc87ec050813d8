"""`make soak CALLS=10000`: each transform and each pair, under every kind of exit, many times.

After the warm-up nothing may grow: bytes in use, live tensors, the stack of levels. Printed is a
line for each nest and exit that kept something; with one the exit status is 1.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import warnings
from dataclasses import dataclass

import torch
from _memory import bytes_in_use, resident_bytes
from tqdm import tqdm

import functx

WIDTH = 512
RAMP = torch.linspace(-0.5, 0.5, WIDTH, dtype=torch.float64)
BLOCKS = 4  # a leak shows in each quarter of the calls; a table that grows once, in one of them
ALLOWED_BYTES_A_CALL = 8.0


class Interrupt(BaseException):
    """Like KeyboardInterrupt, which no `except Exception` catches."""


def curve(x):
    """R^n -> R^2 by way of something wide: saved inputs and outputs, views, a tensor written to."""
    wide = (x.sum() * RAMP).exp()
    out = torch.zeros_like(wide)
    out[: WIDTH // 2] = wide[WIDTH // 2 :] * wide[: WIDTH // 2]
    out[1:].mul_(0.5)
    return torch.stack([out.sum().tanh(), (wide * x.prod()).mean()])


# ---- transforms of such functions, with `has_aux` or what they return dropped -------------------


def vmap(f):
    return lambda x: functx.vmap(f, in_dims=1, out_dims=-1)(torch.stack([x, x + 0.1], 1)).flatten()


def grad(f):
    return functx.grad(lambda x: f(x).sin().sum())


def grad_aux(f):
    def mapped(x):
        gradient, aux = functx.grad(lambda x: ((y := f(x)).sin().sum(), y), has_aux=True)(x)
        return torch.cat([gradient, aux])

    return mapped


def vjp(f):
    def mapped(x):
        out, pullback = functx.vjp(f, x)
        return torch.cat([out, *pullback(out.cos())])

    return mapped


def vjp_aux_kept(f):
    def mapped(x):
        out, pullback, aux = functx.vjp(lambda x: ((y := f(x)), y.sin()), x, has_aux=True)
        return torch.cat([out, aux, *pullback(out), *pullback(aux)])

    return mapped


def vjp_dropped(f):
    return lambda x: functx.vjp(f, x)[0]


def jvp(f):
    return lambda x: torch.cat(functx.jvp(f, (x,), (x.sin(),)))


def jvp_aux(f):
    def mapped(x):
        return torch.cat(functx.jvp(lambda x: ((y := f(x)), y.sin()), (x,), (x,), has_aux=True))

    return mapped


def jacrev(f):
    return lambda x: functx.jacrev(f)(x).flatten()


def jacfwd(f):
    return lambda x: functx.jacfwd(f)(x).flatten()


def hessian(f):
    return lambda x: functx.hessian(lambda x: f(x).sin().sum())(x).flatten()


def linearize(f):
    def mapped(x):
        out, pushforward = functx.linearize(f, x)
        return torch.cat([out, pushforward(x.sin())])

    return mapped


def linearize_dropped(f):
    return lambda x: functx.linearize(f, x)[0]


TRANSFORMS = {
    function.__name__: function
    for function in (
        vmap, grad, grad_aux, vjp, vjp_aux_kept, vjp_dropped, jvp, jvp_aux,
        jacrev, jacfwd, hessian, linearize, linearize_dropped,
    )
}  # fmt: skip
NESTS = [(t,) for t in TRANSFORMS] + list(itertools.product(TRANSFORMS, repeat=2))


def nested(nest, f):
    for name in reversed(nest):
        f = TRANSFORMS[name](f)
    return f


# ---- exits ---------------------------------------------------------------------------------------


def normal(nest):
    call = nested(nest, curve)
    return lambda x: call(x)


def _raising(nest, error):
    def fails(x):
        kept = curve(x)
        raise error(kept)

    call = nested(nest, fails)

    def run(x):
        try:
            call(x)
        except error:
            return
        raise AssertionError("the exception was lost")

    return run


def exception(nest):
    return _raising(nest, KeyError)


def interrupt(nest):
    return _raising(nest, Interrupt)


def tracked(nest):
    """Ordinary autograd outside, backwards."""
    call = nested(nest, curve)

    def run(x):
        x = x.detach().requires_grad_()
        result = call(x)
        if result.requires_grad:
            torch.autograd.grad(result.sum(), x)

    return run


def tracked_dropped(nest):
    """Ordinary autograd outside, which nobody asks for a gradient."""
    call = nested(nest, curve)
    return lambda x: call(x.detach().requires_grad_())


def traced(nest):
    """A trace function raises somewhere in functx, at a later line in each call."""
    call = nested(nest, curve)
    state = {"at": 0}

    def run(x):
        seen = 0

        def trace(frame, event, arg):
            nonlocal seen
            if "functx" not in frame.f_code.co_filename.rsplit("/", 2)[-2:][0]:
                return None
            seen += 1
            if seen == state["at"]:
                raise Interrupt
            return trace

        state["at"] = state["at"] % 400 + 1
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call(x)
        except Interrupt:
            pass
        finally:
            sys.settrace(before)

    return run


EXITS = {e.__name__: e for e in (normal, exception, interrupt, tracked, tracked_dropped, traced)}


# ---- measuring -----------------------------------------------------------------------------------


@dataclass
class Kept:
    bytes_a_call: float  # in the best quarter
    resident: int
    tensors: int
    levels: int

    def __bool__(self):
        return self.bytes_a_call > ALLOWED_BYTES_A_CALL or self.tensors > 0 or self.levels > 0


def live_tensors() -> int:
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # isinstance on deprecated lazy objects
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def soak(nest, exit_name, calls) -> Kept:
    """What `calls` calls keep, after some that warm up, and one collection."""
    call = EXITS[exit_name](nest)
    x = torch.tensor([0.3, -0.7, 0.4], dtype=torch.float64)
    levels = 0
    for _ in range(max(10, calls // 20)):
        call(x)
        levels = max(levels, left_levels())
    tensors, resident = live_tensors(), resident_bytes()
    marks = [bytes_in_use()]
    for _ in range(BLOCKS):
        for _ in range(calls // BLOCKS):
            call(x)
            levels = max(levels, left_levels())
        gc.collect()
        marks.append(bytes_in_use())
    least = min(b - a for a, b in itertools.pairwise(marks)) / (calls // BLOCKS)
    return Kept(least, resident_bytes() - resident, live_tensors() - tensors, levels)


def left_levels() -> int:
    depth = functx._C.level_depth()
    while (level := functx._C.innermost_level()) is not None:
        functx._C.pop(level)
    return depth


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--exits", nargs="*", default=list(EXITS))
    parser.add_argument("--nests", nargs="*", help="like vmap,grad")
    options = parser.parse_args()
    nests = [tuple(n.split(",")) for n in options.nests] if options.nests else NESTS
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that collections look at what the calls leave only
    failed, worst = 0, {}
    cases = list(itertools.product(nests, options.exits))
    for nest, exit_name in tqdm(cases, mininterval=5):
        try:
            kept = soak(nest, exit_name, options.calls)
        except Exception as error:
            kept = f"{type(error).__name__}: {str(error)[:300]}"
        else:
            worst[exit_name] = max(worst.get(exit_name, 0), kept.bytes_a_call)
        if kept:
            failed += 1
            tqdm.write(f"{'('.join(nest):32} {exit_name:16} {kept}", file=sys.stdout)
            sys.stdout.flush()
    print(f"{len(cases)} nests and exits, {options.calls} calls each; {failed} kept something")
    print("most bytes a call:", worst)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
