"""Building a program statement by statement: each runs as it is written, and stays if it could.

So a generator need not know what shapes an operator accepts: it proposes, plain PyTorch disposes.
"""

from __future__ import annotations

import random
import re

import torch
from _programs import Function, Statement

LARGEST = 12.0  # values beyond this are not kept: derivatives of high order would lose their digits
MOST_ELEMENTS = 12

# What these give is a view or a copy, as it happens, so that nobody may write to either.
VIEW_OR_COPY = re.compile(r"\.(reshape|flatten|ravel|contiguous)\(")


class Scope:
    """The body of a function that is being written."""

    def __init__(self, rng: random.Random, names: dict, counter: list[int], writable=()):
        self.rng = rng
        self.names = names  # what the code sees; tensors, modules, helper functions
        self.counter = counter
        self.floats: list[str] = [n for n, v in names.items() if is_value(v)]
        self.writable: list[str] = list(writable)  # made here, or a view of what was
        self.statements: list[Statement] = []

    # ---- choices ---------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def choose(self, options):
        return options[self.rng.randrange(len(options))]

    def value(self) -> str:
        """The name of a value; later ones are likelier, so that programs are deep."""
        count = len(self.floats)
        return self.floats[max(self.rng.randrange(count), self.rng.randrange(count))]

    def target(self) -> str | None:
        return self.choose(self.writable) if self.writable else None

    def apart_from(self, target: str, name: str) -> str:
        """A value to write into `target`. What reads in part what it writes has no one result."""
        storages = {self.names[n].untyped_storage().data_ptr() for n in (target, name)}
        return name if len(storages) == 2 else f"{name}.clone()"

    def tensor(self, name: str) -> torch.Tensor:
        return self.names[name]

    def number(self) -> str:
        return f"{self.rng.randrange(-14, 15) / 10 + 0.05:.2f}"

    def literal(self, shape) -> str:
        return literal(self.rng, shape)

    def dim(self, name: str) -> int:
        count = self.tensor(name).dim()
        return self.rng.randrange(-count, count)

    def fresh_name(self) -> str:
        self.counter[0] += 1
        number = self.counter[0] - 1
        letters = "abcdegijklmnoqrstuvw"
        return letters[number % len(letters)] + str(number // len(letters) or "")

    # ---- statements ------------------------------------------------------------------------------

    def bind(self, expression: str, function: Function | None = None) -> bool:
        """Adds `name = expression` if it gives a value that later statements can use."""
        name = self.fresh_name()
        if not self._run(Statement(f"{name} = {expression}", name, function)):
            return False
        if not is_value(self.names[name]):
            del self.names[name]
            self.statements.pop()
            return False
        self.floats.append(name)
        if self._made_here(name) and is_injective(self.names[name]):
            self.writable.append(name)
        if VIEW_OR_COPY.search(expression):
            self.keep(self.statements[-1].text)
        return True

    def bind_several(self, expression: str) -> bool:
        """Adds `a, b = expression` for an operator with several results."""
        try:
            count = len(eval(expression, self.names))
        except Exception:
            return False
        names = [self.fresh_name() for _ in range(count)]
        if not 0 < count < 4:
            return False
        statement = Statement(f"{', '.join(names)}{',' if count == 1 else ''} = {expression}")
        if not self._run(statement):
            return False
        self.floats += [n for n in names if is_value(self.names[n])]
        return True

    def do(self, text: str, written: str) -> bool:
        """Adds code that writes into `written`."""
        ran = self._run(Statement(text))  # or did so in part, before it raised
        self.floats = [n for n in self.floats if n != written and is_value(self.names[n])]
        if is_value(self.names[written]):
            self.floats.append(written)  # last, so that what was written is used
        self.writable = [n for n in self.writable if n in self.floats]
        return ran and written in self.floats

    def _run(self, statement: Statement) -> bool:
        try:
            exec(compile("\n".join(statement.lines()), "<statement>", "exec"), self.names)
        except Exception:
            return False
        self.statements.append(statement)
        return True

    def _made_here(self, name: str) -> bool:
        """Whether no argument and no captured tensor lies behind it."""
        storage = self.names[name].untyped_storage().data_ptr()
        return storage not in self.names["__protected__"]

    # ---- functions inside ------------------------------------------------------------------------

    def keep(self, text: str) -> None:
        """What `text` mentions is not written to any more, nor are views of it."""
        mentioned = [self.names.get(name) for name in re.findall(r"\w+", text)]
        kept = {v.untyped_storage().data_ptr() for v in mentioned if isinstance(v, torch.Tensor)}
        self.names["__protected__"] = self.names["__protected__"] | kept
        self.writable = [name for name in self.writable if self._made_here(name)]

    def inner(self, values: list[torch.Tensor]) -> tuple[Scope, tuple[str, ...]]:
        """A scope for a function that sees the names of this one, and its parameters."""
        names = dict(self.names)
        parameters = tuple(self.fresh_name() for _ in values)
        for name, value in zip(parameters, values, strict=True):
            names[name] = value
        protected = {v.untyped_storage().data_ptr() for v in names.values() if is_value(v)}
        names["__protected__"] = self.names["__protected__"] | protected
        return Scope(self.rng, names, self.counter), parameters


def split(text: str) -> list[str]:
    """The templates of a list, which semicolons and ends of lines separate."""
    return [t.strip() for t in text.replace("\n", ";").split(";") if t.strip()]


def is_value(value) -> bool:
    """Whether statements can use it. PyTorch gives up some views when their base is written to."""
    try:
        return (
            isinstance(value, torch.Tensor)
            and (value.is_floating_point() or value.is_complex())
            and value.numel() <= MOST_ELEMENTS
            and value.dim() <= 4
            and bool((value.abs() <= LARGEST).all())
        )
    except RuntimeError:
        return False


def is_injective(tensor: torch.Tensor) -> bool:
    """Whether each element has a place of its own, as in few tensors that `unfold` gives."""
    span = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    places = torch.arange(max(span, 0) + 1).as_strided(tensor.shape, tensor.stride())
    return places.unique().numel() == tensor.numel()


def literal(rng: random.Random, shape, is_complex=False, low=-1.3, high=1.4) -> str:
    """`torch.tensor([...])` of numbers that differ, and are not zero."""

    def numbers(shape):
        if not shape:
            real = f"{rng.uniform(low, high):.3f}"
            return f"{real}{rng.uniform(-1, 1):+.3f}j" if is_complex else real
        return "[" + ", ".join(numbers(shape[1:]) for _ in range(shape[0])) + "]"

    if 0 in shape:
        return f"torch.zeros({tuple(shape)})"
    return f"torch.tensor({numbers(tuple(shape))})"
