"""Random cases: a program, inputs for it and a nest of transforms around it."""

from __future__ import annotations

import random

import _program_reference
import torch
from _program_blocks import add_block, add_call
from _program_functions import NAMES
from _program_nests import Argument, order, random_nest, random_transform
from _program_scope import Scope, literal
from _program_statements import add_statement
from _programs import Case, Function, Statement

SHAPES = [(2,), (2,), (2,), (2, 2), (2, 2), (3,), (), (2, 3), (1,), (3, 2), (1, 2)]
MODULES = {"linear": "double(torch.nn.Linear(2, 2))", "residual": "double(Residual())"}
CONTEXTS = ("torch.no_grad()", "torch.enable_grad()", "torch.inference_mode()")
REAL_ONLY = {"jacrev", "jacfwd", "hessian"}


def random_case(rng: random.Random, seed: str, nest: tuple[str, ...] | None = None) -> Case:
    """`nest` is outermost first; by default a random one."""
    if nest is None:
        nest = random_nest(rng)
    before = torch.get_default_dtype()
    try:
        while True:
            case = _Writer(rng, nest).case(seed)
            if case is not None:
                return case
    finally:
        torch.set_default_dtype(before)


class _Writer:
    def __init__(self, rng: random.Random, nest: tuple[str, ...]):
        self.rng = rng
        self.nest = nest
        self.small = order(nest) > 2  # a high derivative: nothing that costs time
        self.dtype = "float64"
        if rng.random() < 0.05 and order(nest) < 3:
            self.dtype = "float32"
        elif rng.random() < 0.05 and not REAL_ONLY & set(nest):
            self.dtype = "complex128"
        self.names: dict = dict(
            NAMES, torch=torch, T=_program_reference, checkpoint=_program_reference.checkpoint
        )

    def literal(self, shape) -> str:
        return literal(self.rng, shape, is_complex=self.dtype == "complex128")

    def case(self, seed: str) -> Case | None:
        """None if the program came to nothing."""
        rng = self.rng
        torch.set_default_dtype(torch.float32 if self.dtype == "float32" else torch.float64)
        arguments = self.arguments()
        captured = {f"p{n}": rng.choice(SHAPES) for n in range(rng.choice((0, 0, 1, 1, 2)))}
        inputs = [f"{name} = {self.literal(shape)}" for name, shape in captured.items()]
        modules = [name for name in MODULES if rng.random() < 0.1 and self.dtype == "float64"]
        inputs += [f"{name} = {MODULES[name]}" for name in modules]
        exec("\n".join(inputs), self.names)
        function = self.function(arguments)
        if function is None:
            return None
        transforms = [
            random_transform(rng, name, arguments, self.small) for name in reversed(self.nest)
        ]
        passed = [a.name for a in arguments]
        if self.may_alias(arguments) and rng.random() < 0.3:
            passed[1] = passed[0]
        inputs += [f"{a.name} = {self.input(a)}" for a in arguments if a.name in passed]
        tracked, context = (), ""
        if rng.random() < 0.25 and not self.small:
            names = [*captured, *(a.name for a in arguments if a.kind == "float")]
            names += ["linear.weight"] if "linear" in modules else []
            tracked = tuple(n for n in names if rng.random() < 0.6 and (n != "y" or n in passed))
        elif rng.random() < 0.06:
            context = rng.choice(CONTEXTS)
        return Case(
            seed,
            tuple(inputs),
            tuple(passed),
            function,
            tuple(transforms),
            tracked,
            context,
            self.dtype,
        )

    # ---- arguments -------------------------------------------------------------------------------

    def arguments(self) -> list[Argument]:
        rng = self.rng
        first = self.shape()
        result = [Argument("x", first)]
        if rng.random() < 0.6:
            second = list(first) if rng.random() < 0.4 else self.shape()
            result.append(Argument("y", second, "tree" if rng.random() < 0.15 else "float"))
        if rng.random() < 0.07:
            result.append(Argument("index", [2], "index"))
        return result

    def shape(self) -> list[int]:
        if self.small:
            return list(self.rng.choice([(2,), (2,), ()]))
        if self.rng.random() < 0.02:
            return list(self.rng.choice([(0,), (2, 0)]))
        return list(self.rng.choice(SHAPES))

    def may_alias(self, arguments: list[Argument]) -> bool:
        if len(arguments) < 2:
            return False
        first, second = arguments[:2]
        return first.kind == second.kind == "float" and first.shape == second.shape

    def input(self, argument: Argument) -> str:
        """Of the shape that it has outside of the nest."""
        if argument.kind == "tree":
            left, right = self.literal(argument.shape), self.literal(argument.shape)
            return f"{{'left': {left}, 'right': {right}}}"
        if argument.kind == "index":
            count = torch.Size(argument.shape).numel()
            values = [self.rng.randrange(2) for _ in range(count)]
            shape = tuple(argument.shape)
            return f"torch.tensor({values}, dtype=torch.int64).reshape({shape})"
        return self.literal(argument.shape)

    def example(self, argument: Argument):
        """What the function gets inside of the nest; tracked, as it will be there."""
        if argument.kind == "index":
            return torch.tensor([1, 0])

        def tracked():
            value = eval(self.literal(argument.shape), self.names)
            return value.requires_grad_().clone()

        if argument.kind == "tree":
            return {"left": tracked(), "right": tracked()}
        return tracked()

    # ---- the program -----------------------------------------------------------------------------

    def function(self, arguments: list[Argument]) -> Function | None:
        rng, names = self.rng, self.names
        prologue = []
        for argument in arguments:
            name = argument.name
            names[name] = self.example(argument)
            if argument.kind == "tree":
                prologue.append(Statement(f"left, right = {name}['left'], {name}['right']"))
                exec(prologue[-1].text, names)
        names["__protected__"] = {
            v.untyped_storage().data_ptr() for v in names.values() if torch.is_tensor(v)
        }
        scope = Scope(rng, names, [0])
        length = rng.randrange(1, 4) if self.small else rng.randrange(2, 10)
        for _ in range(5 * length):
            if len(scope.statements) >= length:
                break
            self.add(scope)
        result = self.result(scope)
        if result is None:
            return None
        parameters = tuple(a.name for a in arguments)
        return Function("f", parameters, (*prologue, *scope.statements), result)

    def add(self, scope: Scope) -> None:
        kind = self.rng.random()
        if kind < 0.08 and not self.small:
            add_block(scope)
        elif kind < 0.16:
            add_call(scope)
        elif kind < 0.19 and "index" in self.names:
            scope.bind(f"{scope.value()}[index]")
        else:
            add_statement(scope)

    def result(self, scope: Scope) -> str | None:
        """A tensor, a tuple or a dict; what was written into is of interest."""
        rng = self.rng
        made = [n for n in scope.floats if any(n in s.text for s in scope.statements)]
        if not scope.statements or not made:
            return None
        chosen = [made[-1]]
        if scope.writable and rng.random() < 0.5:
            chosen = [rng.choice(scope.writable)]
        if rng.random() < 0.3:
            chosen.append(rng.choice(made))
        if not any(scope.tensor(n).requires_grad for n in chosen):
            return None
        form = rng.random()
        if len(chosen) == 1 or form < 0.2:
            return chosen[0] if form < 0.9 else f"{{'out': {chosen[0]}}}"
        return ", ".join(chosen) if form < 0.8 else f"{{'a': {chosen[0]}, 'b': ({chosen[1]},)}}"
