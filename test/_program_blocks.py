"""Statements with a function of their own: checkpoints, transforms, hooks; and calls of
`autograd.Function`s, of modules and of autograd itself."""

from __future__ import annotations

from _program_scope import Scope, split
from _program_statements import add_statement
from _programs import Function

FUNCTIONS = split("""
Square.apply({x}); Generated.apply({x}, {y}); SavedOutput.apply({x}); Mapped.apply({x}, 1.5)[0]
Mapped.apply({x}, 0.5)[1]; Two.apply({x}, {y})[0]; Two.apply({x}, {x}.detach())[0]
Two.apply({x}.detach(), {y})[0]; Doubled.apply({x}.clone()); Doubled.apply({x} * 1)
Straight.apply({x}); Once.apply({x}); Square.apply({x}) + Once.apply({x})
Generated.apply({x}, {x}); Generated.apply({x}, {y}.detach()); Square.apply(Square.apply({x}))
Generated.apply({x}[0], {y}); Square.apply({x}.t()); sum(Mapped.apply({x}, 2.0))
""")

MODULES = split("""
linear({x}); torch.nn.Sequential(linear, torch.nn.Tanh())({x}); residual({x})
residual(residual({x})); called(linear, {'weight': {y}}, {x})
called(linear, {'bias': {y}.view(-1)}, {x})
called(linear, {'weight': linear.weight * 2, 'bias': {y}.view(-1)}, {x})
called(residual, {'shift': {y}}, {x})
called(residual, {'second.weight': residual.second.weight.detach() + 1}, {x}); linear.weight @ {x}
linear.bias * {x}; torch.nn.functional.linear({x}, linear.weight, {y}.view(-1))
linear.weight.detach() @ {x}; residual.first(residual.second({x}))
""")

AUTOGRAD = split("""
torch.autograd.grad(total(({t} := {x}.detach().requires_grad_()) * {t}), {t})[0].detach()
torch.autograd.grad(total(({t} := {x}.detach().requires_grad_()) * {y}), {t}, create_graph=True)[0]
torch.autograd.functional.jvp(torch.sin, {x}, {y})[1]
torch.autograd.functional.vjp(torch.sin, {x}, {y})[1]; {x}.detach().requires_grad_() * {y}
({t} := {x}.clone()).requires_grad_() * {t}; {x}.detach().requires_grad_().detach() * {y}
""")

# {g} is a function of a value, {x}.
WRAPPED = split("""
checkpoint({g}, {x}, use_reentrant=False); checkpoint({g}, {x}, use_reentrant=False) * {x}
checkpoint(lambda: {g}({x}), use_reentrant=False); {g}({x}); hooked({g}, {x})
T.grad(lambda z: total({g}(z)))({x}); T.grad(lambda z: total({g}(z * {y})))({x})
T.grad(lambda z: total({g}(z)).exp().tanh())({x}).sum()
T.vmap({g})(torch.stack([{x}, {x}.sin()])); T.vmap({g}, 0, -1)(torch.stack([{x}, {x}]))
T.vmap({g}, -1)(torch.stack([{x}, {y}.expand_as({x})], -1))
T.vmap(lambda z, w: {g}(z) * w, (None, 0))({x}, torch.stack([{x}, {x} * 2]))
T.vmap(lambda w: {g}({x}) + w)(torch.tensor([0.3, 0.4])); T.jvp({g}, ({x},), (cosines({x}),))[1]
T.jvp({g}, ({x},), (torch.ones_like({x}),))[1]; T.jvp(lambda z: {g}(z) * {x}, ({x},), ({x},))[1]
T.vjp({g}, {x})[1](cosines({g}({x})))[0]; T.vjp(lambda z: {g}(z) * {y}, {x})[0]
T.jacrev({g})({x}).sum(0); T.jacfwd({g})({x}).sum(0); T.jacrev({g})({x}); T.jacfwd({g})({x})
T.linearize({g}, {x})[1](cosines({x})); T.hessian(lambda z: total({g}(z)))({x})
T.vmap(T.grad(lambda z: total({g}(z))))(torch.stack([{x}, {x} + 1]))
T.grad(lambda z: total(T.vmap({g})(torch.stack([z, {x}]))))({x})
T.vmap(T.grad(lambda z, w: total({g}(z * w))), (None, 0))({x}, torch.tensor([0.5, -0.6]))
T.vmap(T.grad(lambda z, w: total({g}(z)) * w), (None, 0))({x}, torch.tensor([0.5, -0.6]))
T.grad_and_value(lambda z: total({g}(z)))({x})[1]
""")


CALLS = {
    "function": FUNCTIONS,
    "module": MODULES,
    "autograd": AUTOGRAD,
}
CALL_KINDS = ["function"] * 4 + ["module"] * 2 + ["autograd"]


def add_call(scope: Scope) -> bool:
    template = scope.choose(CALLS[scope.choose(CALL_KINDS)])
    text = template.replace("{x}", scope.value()).replace("{y}", scope.value())
    if "{t}" in text:
        text = text.replace("{t}", scope.fresh_name())
    return scope.bind(text)


def add_block(scope: Scope) -> bool:
    """A function of one value, and something that calls it."""
    x, y = scope.value(), scope.value()
    function = _function(scope, x)
    if function is None:
        return False
    template = scope.choose(WRAPPED)
    text = template.replace("{g}", function.name).replace("{x}", x).replace("{y}", y)
    if not scope.bind(text, function):
        return False
    lines = "\n".join(scope.statements[-1].lines())
    if "checkpoint(" in lines:  # what it reads has to be the same when it is computed again
        scope.keep(lines)
    return True


def _function(scope: Scope, x: str) -> Function | None:
    value = scope.tensor(x)
    inside, parameters = scope.inner([value.clone()])
    for _ in range(scope.rng.randrange(1, 5)):
        add_statement(inside) if scope.chance(0.9) else add_call(inside)
    made = [n for n in inside.floats if n not in scope.floats]
    if len(made) < 2 and not inside.statements:
        return None
    result = inside.floats[-1]
    for name in reversed(inside.writable):
        if scope.chance(0.4):
            result = name
            break
    return Function(scope.fresh_name(), parameters, tuple(inside.statements), result)
