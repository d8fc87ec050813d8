"""Kinds of torch.autograd.Function, each with derivatives that are twice those of its forward.

So it shows whether the Function's own rules were used. `KINDS` maps a name to a function of one
vector, which gives a vector.
"""

import numpy as np
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class OldStyle(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x.cos() * gradient


class SetupContext(Function):
    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x.cos() * gradient


class GeneratedRule(SetupContext):
    generate_vmap_rule = True


class WithVjp(Function):
    """`vjp` is another name of `backward`."""

    forward = staticmethod(OldStyle.forward)
    vjp = staticmethod(OldStyle.backward)


class WithJvp(SetupContext):
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return 2 * x.cos() * tangent


class GeneratedWithJvp(WithJvp):
    generate_vmap_rule = True


class OldStyleWithJvp(OldStyle):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x.sin()

    jvp = staticmethod(WithJvp.jvp)


class NumpySin(SetupContext):
    """No transform can look into its forward."""

    @staticmethod
    def forward(x):
        return torch.from_numpy(np.sin(x.detach().numpy()))

    @staticmethod
    def vmap(info, in_dims, x):
        assert in_dims == (0,)
        assert x.shape[0] == info.batch_size
        return NumpySin.apply(x), 0


class NumpySinWithJvp(NumpySin):
    setup_context = staticmethod(WithJvp.setup_context)
    jvp = staticmethod(WithJvp.jvp)

    @staticmethod
    def vmap(info, in_dims, x):
        return NumpySinWithJvp.apply(x.movedim(0, -1)).movedim(-1, 0).movedim(0, -1), -1


class SavesOutput(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        (y,) = ctx.saved_tensors
        return 2 * gradient * (1 - y * y)


class KeepsAttributes(Function):
    """Tensors on ctx itself, one of them in a list, and what is no tensor."""

    @staticmethod
    def forward(ctx, x, scale, name):
        ctx.x = x
        ctx.more = [{"scale": scale}, name]
        return x.sin() * scale

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.x.cos() * ctx.more[0]["scale"] * gradient, None, None


class TreeArgument(Function):
    @staticmethod
    def forward(ctx, x, tree):
        ctx.save_for_backward(x, tree["weights"][0])
        return x.sin() * tree["weights"][0]

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return 2 * x.cos() * weight * gradient, None


class ManyOutputs(Function):
    """A tuple with an integer tensor, None, a tensor that is marked, and one that nobody uses."""

    @staticmethod
    def forward(ctx, x, y):
        index = x.detach().argsort()
        sign = x.sign()
        ctx.mark_non_differentiable(index, sign)
        ctx.save_for_backward(x, y)
        return x * y, index, None, sign, x + y

    @staticmethod
    def backward(ctx, product, index, none, sign, total):
        assert none is None
        assert not sign.any()
        x, y = ctx.saved_tensors
        return 2 * (product * y + total), 2 * (product * x + total)


class NotMaterialized(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y)
        return x * y, x + y

    @staticmethod
    def backward(ctx, product, total):
        x, y = ctx.saved_tensors
        gradients = [None, None]
        if product is not None:
            gradients = [2 * product * y, 2 * product * x]
        if total is not None:
            gradients = [total if g is None else g + total for g in gradients]
        return tuple(gradients)


class NeedsInputGrad(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, y)
        return x * y

    @staticmethod
    def backward(ctx, gradient):
        x, y = ctx.saved_tensors
        return (
            2 * gradient * y if ctx.needs_input_grad[0] else None,
            2 * gradient * x if ctx.needs_input_grad[1] else None,
        )


class Dirty(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        return x.mul_(3), y.exp()

    @staticmethod
    def backward(ctx, x, y):
        (saved,) = ctx.saved_tensors
        return 6 * x, 2 * y * saved.exp()


class DirtyWithJvp(Dirty):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_forward(y)
        return Dirty.forward(ctx, x, y)

    @staticmethod
    def jvp(ctx, x, y):
        (saved,) = ctx.saved_tensors
        return x.mul_(6), 2 * y * saved.exp()


class Broadcasting(Function):
    """The gradient of y is larger than y; autograd sums it."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx, gradient):
        x, y = ctx.saved_tensors
        return 2 * gradient * y, 2 * gradient * x


class UsesAnother(Function):
    """Its backward is made of another Function, as was the way to double backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return Square.apply(x) * gradient


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 6 * x**2

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 24 * x * gradient


class Identity(Function):
    """Reverses the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def many_outputs(x):
    product, index, none, sign, _ = ManyOutputs.apply(x.sin(), x.cos())
    assert none is None
    return product * sign.detach() + (product[index] * sign)


def dirty(function):
    def call(x):
        y = x.sin()
        z, exp = function.apply(y, x)
        assert z is y
        return y * exp

    return call


def tree(x):
    return TreeArgument.apply(x, {"weights": [x.detach() + 1], "name": "any"})


KINDS = {
    "old style": OldStyle.apply,
    "setup_context": SetupContext.apply,
    "generate_vmap_rule": GeneratedRule.apply,
    "vjp": WithVjp.apply,
    "jvp": WithJvp.apply,
    "generate_vmap_rule and jvp": GeneratedWithJvp.apply,
    "old style with jvp": OldStyleWithJvp.apply,
    "vmap": NumpySin.apply,
    "vmap and jvp": NumpySinWithJvp.apply,
    "saves output": SavesOutput.apply,
    "attributes": lambda x: KeepsAttributes.apply(x, 3.0, "name"),
    "tensor attributes": lambda x: KeepsAttributes.apply(x, (x.detach() + 1), "name"),
    "tree argument": tree,
    "many outputs": many_outputs,
    "not materialized": lambda x: NotMaterialized.apply(x.sin(), x.cos())[0],
    "not materialized, all": lambda x: torch.mul(*NotMaterialized.apply(x.sin(), x.cos())),
    "needs_input_grad": lambda x: NeedsInputGrad.apply(x.sin(), x.detach()),
    "needs_input_grad, other": lambda x: NeedsInputGrad.apply(x.detach(), x.sin()),
    "needs_input_grad, both": lambda x: NeedsInputGrad.apply(x.sin(), x.cos()),
    "dirty": dirty(Dirty),
    "dirty with jvp": dirty(DirtyWithJvp),
    "broadcasting": lambda x: Broadcasting.apply(x, x.sum()),
    "constant": lambda x: Broadcasting.apply(x, torch.arange(3.0, dtype=x.dtype)),
    "another in backward": UsesAnother.apply,
    "identity": lambda x: Identity.apply(x.sin()) * x,
}


class Once(OldStyle):
    """Can be differentiated once, by reverse mode."""

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return OldStyle.backward(ctx, gradient)


class Detaching(OldStyle):
    """Its backward is no operation that autograd could differentiate, but it does not say so."""

    @staticmethod
    def backward(ctx, gradient):
        return OldStyle.backward(ctx, gradient.detach())


class ForwardOnly(Function):
    @staticmethod
    def forward(ctx, x):
        return x.sin()


class Intermediate(Function):
    """Saves what is neither input nor output. Its derivative is right."""

    @staticmethod
    def forward(ctx, x):
        power = x**2
        ctx.save_for_backward(power)
        return power * x

    @staticmethod
    def backward(ctx, gradient):
        (power,) = ctx.saved_tensors
        return 3 * power * gradient
