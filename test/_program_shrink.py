"""Makes a failing case smaller while it still fails."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from _programs import Case, Function, Statement


def shrunk(case: Case, fails: Callable[[Case], bool], seconds: float = 20.0) -> Case:
    """The smallest case found by one change at a time; each accepted change starts over."""
    end = time.monotonic() + seconds
    progress = True
    while progress and time.monotonic() < end:
        progress = False
        for candidate in _smaller(case):
            if time.monotonic() > end:
                break
            if _weight(candidate) < _weight(case) and fails(candidate):
                case, progress = candidate, True
                break
    return case


def _weight(case: Case) -> tuple[int, int]:
    return len(case.nest), len(case.source())


def _smaller(case: Case) -> Iterator[Case]:
    for k in range(len(case.nest)):
        yield replace(case, nest=case.nest[:k] + case.nest[k + 1 :])
    if case.context:
        yield replace(case, context="")
    if case.tracked:
        yield replace(case, tracked=())
        for k in range(len(case.tracked)):
            yield replace(case, tracked=case.tracked[:k] + case.tracked[k + 1 :])
    for function in _smaller_functions(case.function):
        yield replace(case, function=function)
    yield from _with_fewer_inputs(case)
    for k, transform in enumerate(case.nest):
        for text in _simpler_texts(transform.text):
            nest = (*case.nest[:k], replace(transform, text=text), *case.nest[k + 1 :])
            yield replace(case, nest=nest)
    for k, text in enumerate(case.inputs):
        for simpler in _simpler_numbers(text):
            yield replace(case, inputs=(*case.inputs[:k], simpler, *case.inputs[k + 1 :]))


def _smaller_functions(function: Function) -> Iterator[Function]:
    body = function.body
    for result in _simpler_results(function):
        yield replace(function, result=result)
    for k in reversed(range(len(body))):
        yield replace(function, body=body[:k] + body[k + 1 :])
    for k in reversed(range(len(body))):
        yield from _without_value(function, k)
    for k, statement in enumerate(body):
        if statement.function is not None:
            for smaller in _smaller_functions(statement.function):
                changed = replace(statement, function=smaller)
                yield replace(function, body=(*body[:k], changed, *body[k + 1 :]))
    for k, statement in enumerate(body):
        for text in _simpler_numbers(statement.text):
            changed = replace(statement, text=text)
            yield replace(function, body=(*body[:k], changed, *body[k + 1 :]))


def _simpler_results(function: Function) -> Iterator[str]:
    names = re.findall(r"\b[a-z]\w?\b", function.result)
    bound = {s.target for s in function.body} | set(function.parameters)
    if len(function.result) > 2:
        yield from (n for n in names if n in bound)
    earlier = [s.target for s in function.body if s.target]
    yield from (n for n in earlier if len(n) <= len(function.result))


def _without_value(function: Function, k: int) -> Iterator[Function]:
    """Without a statement, and something that it uses in the place of what it makes."""
    statement = function.body[k]
    targets = re.match(r"((?:\w+, ?)*\w+),? = ", statement.text)
    if not targets:
        return
    names = re.findall(r"\w+", targets.group(1))
    used = dict.fromkeys(re.findall(r"\b[a-z]\d?\b", statement.text[targets.end() :]))
    for other in used:
        if other not in names:
            pattern = re.compile(r"\b(" + "|".join(names) + r")\b")
            rest = tuple(_renamed(s, pattern, other) for s in function.body[k + 1 :])
            result = pattern.sub(other, function.result)
            yield replace(function, body=function.body[:k] + rest, result=result)


def _renamed(statement: Statement, pattern: re.Pattern[str], name: str) -> Statement:
    function = statement.function
    if function is not None:
        function = replace(
            function,
            body=tuple(_renamed(s, pattern, name) for s in function.body),
            result=pattern.sub(name, function.result),
        )
    return replace(statement, text=pattern.sub(name, statement.text), function=function)


def _with_fewer_inputs(case: Case) -> Iterator[Case]:
    for k in range(len(case.inputs)):
        yield replace(case, inputs=case.inputs[:k] + case.inputs[k + 1 :])


def _simpler_texts(text: str) -> Iterator[str]:
    for pattern, simpler in (
        (r"total\((INNER\([\w, ]*\))\)", r"\1.sum()"),
        (r", has_aux=True", ""),
        (r"\(total\(r := (INNER\([\w, ]*\))\), r\)", r"total(\1)"),
        (r", out_dims=-1", ""),
        (r"cosines", "ramps"),
        (r"return out, aux, pull", "return pull"),
        (r"return out, (pull|push)", r"return \1"),
    ):
        if re.search(pattern, text):
            yield re.sub(pattern, simpler, text)


def _simpler_numbers(text: str) -> Iterator[str]:
    """One decimal instead of three, all at once."""
    simpler = re.sub(r"(-?\d+\.\d)\d+", r"\1", text)
    if simpler != text and "0.0" not in simpler:
        yield simpler
