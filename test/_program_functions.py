"""What random programs call: `autograd.Function`s, helper functions and modules."""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_leaves, tree_map


class Halfway(Exception):
    """What a program raises that is meant to fail."""


def total(tree):
    """A real number that depends on all of a result, not linearly."""
    terms = [leaf.sin().sum() for leaf in tree_leaves(tree) if carries(leaf)]
    return sum(term.real if term.is_complex() else term for term in terms)


def carries(leaf):
    return isinstance(leaf, torch.Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def cosines(tree):
    """Cotangents or tangents that depend on what they belong to."""
    return tree_map(torch.cos, tree)


def ramps(tree):
    """Constant ones."""
    return tree_map(
        lambda x: torch.linspace(0.5, -0.8, x.numel(), dtype=x.dtype).reshape(x.shape), tree
    )


def differentiated(result, inputs):
    """What ordinary autograd makes of a result: the gradients of its `total`."""
    value = total(result)
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    return list(torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True))


def quietly(function, *args):
    with torch.no_grad():
        return function(*args)


def hooked(function, *args):
    """With what autograd saves held in a list by saved-tensor hooks.

    A copy of it: PyTorch does not look whether what a hook holds was overwritten since.
    """
    with torch.autograd.graph.saved_tensors_hooks(lambda x: [x.clone()], lambda held: held[0]):
        return function(*args)


def conjugates(ctx):
    """A gradient goes back through the conjugate of a derivative."""
    return [x.conj() for x in ctx.saved_tensors]


class Square(torch.autograd.Function):
    """The old form, without a rule for anything."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = conjugates(ctx)
        return 2 * x * gradient


class Generated(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, y):
        return x.sin() * y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        x, y = conjugates(ctx)
        return gradient * x.cos() * y, gradient * x.sin()

    @staticmethod
    def jvp(ctx, x_tangent, y_tangent):
        x, y = ctx.saved_for_forward if hasattr(ctx, "saved_for_forward") else ctx.saved_tensors
        return x_tangent * x.cos() * y + y_tangent * x.sin()


class SavedOutput(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.tanh().exp()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx, gradient):
        x, y = conjugates(ctx)
        return gradient * y * (1 - x.tanh() ** 2)


class Mapped(torch.autograd.Function):
    """With a rule for vmap that is the function itself."""

    @staticmethod
    def forward(x, factor):
        return x.sin() * factor, x.cos()

    @staticmethod
    def setup_context(ctx, inputs, outputs):
        ctx.save_for_backward(inputs[0])
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx, a, b):
        (x,) = conjugates(ctx)
        return a * x.cos() * ctx.factor - b * x.sin(), None

    @staticmethod
    def vmap(info, in_dims, x, factor):
        return Mapped.apply(x, factor), (in_dims[0], in_dims[0])


class Often(torch.autograd.Function):
    """What `Once` is to the reference: PyTorch takes derivatives of a backward that it can't
    differentiate for zeros, where the error that it prepared is not on the way."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = conjugates(ctx)
        return gradient * x.cos()


class Once(Often):
    backward = staticmethod(once_differentiable(Often.backward))


class Two(torch.autograd.Function):
    """Two inputs, of which one may need no gradient; two outputs, one of integers."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        order = (x > 0).long()
        ctx.mark_non_differentiable(order)
        return x * y.cos(), order

    @staticmethod
    def backward(ctx, gradient, _):
        x, y = conjugates(ctx)
        to_x = gradient * y.cos() if ctx.needs_input_grad[0] else None
        to_y = -gradient * x * y.sin() if ctx.needs_input_grad[1] else None
        return to_x, to_y


class Doubled(torch.autograd.Function):
    """In place."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Straight(torch.autograd.Function):
    """A gradient that is not the function's derivative: everyone has to use it."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 0.5


def double(module):
    """A module in double precision with parameters that don't depend on what ran before."""
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            values = torch.linspace(-0.7, 0.9 - 0.1 * k, parameter.numel(), dtype=torch.float64)
            parameter.data = values.sin().mul(1.3).reshape(parameter.shape)
    return module.double()


def called(module, parameters, *args):
    return torch.func.functional_call(module, parameters, args)


class Residual(torch.nn.Module):
    """Two linear maps, a buffer, and the same one again."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 3)
        self.second = torch.nn.Linear(3, 2, bias=False)
        self.register_buffer("shift", torch.tensor([0.2, -0.3]))

    def forward(self, x):
        return x + self.second(self.first(x + self.shift).tanh())


NAMES = {
    "total": total,
    "cosines": cosines,
    "ramps": ramps,
    "differentiated": differentiated,
    "quietly": quietly,
    "hooked": hooked,
    "double": double,
    "called": called,
    "Residual": Residual,
    "Halfway": Halfway,
    **{
        function.__name__: function
        for function in (Square, Generated, SavedOutput, Mapped, Once, Two, Doubled, Straight)
    },
}
