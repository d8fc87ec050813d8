"""What a random program is: statements, functions, a whole case; and the Python text of each.

The text is what runs, under functx and under the reference alike: a failure prints as it failed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

INDENT = "    "


def indented(lines: list[str]) -> list[str]:
    return [INDENT + line for line in lines]


@dataclass(frozen=True)
class Function:
    """`def name(parameters)`: statements, then an expression."""

    name: str
    parameters: tuple[str, ...]
    body: tuple[Statement, ...]
    result: str

    def lines(self) -> list[str]:
        body = [line for statement in self.body for line in statement.lines()]
        head = f"def {self.name}({', '.join(self.parameters)}):"
        return [head, *indented([*body, f"return {self.result}"])]


@dataclass(frozen=True)
class Statement:
    """Lines of code, the name they bind, if any, and the function defined for them, if any."""

    text: str
    target: str = ""
    function: Function | None = None

    def lines(self) -> list[str]:
        before = self.function.lines() if self.function else []
        return [*before, *self.text.split("\n")]


@dataclass(frozen=True)
class Transform:
    """One level of a nest: its name, and the lines that make `h<k>` of the function inside."""

    name: str
    text: str  # with OUTER and INNER for the names of the two functions

    def lines(self, depth: int) -> list[str]:
        inner = f"h{depth}" if depth else "f"
        return self.text.replace("OUTER", f"h{depth + 1}").replace("INNER", inner).split("\n")


@dataclass(frozen=True)
class Case:
    """Inputs, a function of them, a nest of transforms (innermost first), and what is outside."""

    seed: str
    inputs: tuple[str, ...]  # assignments of tensors: arguments and captured ones
    arguments: tuple[str, ...]
    function: Function
    nest: tuple[Transform, ...]
    tracked: tuple[str, ...] = ()  # inputs that ordinary autograd differentiates the result by
    context: str = ""  # a context manager around the call
    dtype: str = "float64"

    @property
    def nest_name(self) -> str:
        """Outermost first: `vmap(grad)`."""
        names = [transform.name for transform in reversed(self.nest)]
        name = "(".join(names) + ")" * (len(names) - 1)
        return name or "plain"

    def definitions(self) -> list[str]:
        lines = [*self.inputs, *self.function.lines()]
        for depth, transform in enumerate(self.nest):
            lines += transform.lines(depth)
        return lines

    def call(self) -> str:
        outermost = f"h{len(self.nest)}" if self.nest else "f"
        return f"{outermost}({', '.join(self.arguments)})"

    def source(self) -> str:
        """Code that leaves its answer in `result`."""
        default = "float32" if self.dtype == "float32" else "float64"
        lines = [f"torch.set_default_dtype(torch.{default})", *self.definitions()]
        lines += [f"{name}.requires_grad_()" for name in self.tracked]
        if self.context:
            lines += [f"with {self.context}:", *indented([f"result = {self.call()}"])]
        else:
            lines += [f"result = {self.call()}"]
        if self.tracked:
            lines += [f"result = result, differentiated(result, [{', '.join(self.tracked)}])"]
        return "\n".join(lines) + "\n"

    def statements(self) -> int:
        return sum(len(statement.lines()) for statement in self.function.body)

    def failing_half_way(self, position: int) -> Case:
        """The same case, where `f` raises before the statement at `position`."""
        body = list(self.function.body)
        body.insert(position, Statement("raise Halfway"))
        return replace(self, function=replace(self.function, body=tuple(body)))
