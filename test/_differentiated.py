"""Functions of tensors to differentiate, made of another one: `f`, which returns a tuple."""

import torch
from _derivatives import (
    Function,
    ReverseReference,
    Undecided,
    autograd_vjp,
    dense,
    inner,
    numbers_like_all,
    precision,
    tracked_copies,
    tracked_flags,
)


def value(f, inputs):
    """`f` itself."""
    return Function(inputs, f, f, lambda api: f, precision(f(*inputs)))


def selector(f, inputs):
    """Of the outputs those that autograd tracks."""
    flags = tracked_flags(f, inputs)
    return lambda outputs: tuple(y for y, flag in zip(outputs, flags, strict=True) if flag)


def gradient_by_autograd(f, select, count, create_graph):
    """A function of the inputs, which autograd must track, and the cotangents."""

    def gradient(*args):
        inputs, cotangents = args[:count], args[count:]
        gradients = torch.autograd.grad(
            select(f(*inputs)),
            inputs,
            cotangents,
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        return dense(gradients)

    return gradient


def gradient(f, inputs):
    """vjp of `f` as a function of the inputs and the cotangents."""
    select, count = selector(f, inputs), len(inputs)
    once = gradient_by_autograd(f, select, count, False)

    def under(api):
        def by_transform(*args):
            _, pullback = api.vjp(lambda *xs: select(f(*xs)), *args[:count])
            return pullback(args[count:])

        return by_transform

    outputs = select(f(*inputs))
    cotangents = numbers_like_all(outputs, 0.1)
    if any(g.isnan().any() for g in once(*tracked_copies([*inputs, *cotangents]))):
        raise Undecided("PyTorch's gradient is not a number")
    return Function(
        [*inputs, *cotangents],
        lambda *args: once(*tracked_copies(args)),
        gradient_by_autograd(f, select, count, True),
        under,
        precision(outputs),
        is_gradient=True,
    )


def check_gradient(f, inputs):
    """That PyTorch's gradient is the derivative of `f`, and not something else."""
    function = value(f, inputs)
    cotangents = numbers_like_all(f(*inputs), 0.2)
    reference = ReverseReference(function, cotangents, numbers_like_all(inputs, 0.5))
    try:
        reference.check(autograd_vjp(f, inputs, cotangents))
    except AssertionError as error:
        raise Undecided("PyTorch's gradient is not that of the function") from error


def slope(f, inputs):
    """jvp of `f`, as a function of the inputs and the tangents that returns a number: the inner
    product with fixed numbers, which is that of the gradient with the tangents. What is not finite
    has no derivative and is left out."""
    select, count = selector(f, inputs), len(inputs)
    outputs = select(f(*inputs))
    finite = [y.isfinite() for y in outputs]
    weights = [w.where(at, 0) for w, at in zip(numbers_like_all(outputs, 0.2), finite, strict=True)]
    by_gradient = gradient(f, inputs)
    check_gradient(f, inputs)

    def contracted_by(gradient):
        return lambda *args: (inner(gradient(*args[:count], *weights), args[count:])[0],)

    def under(api):
        def by_transform(*args):
            _, tangents = api.jvp(f, args[:count], args[count:])
            tangents = [t.where(at, 0) for t, at in zip(select(tangents), finite, strict=True)]
            return (inner(weights, tangents)[0],)

        return by_transform

    return Function(
        [*inputs, *numbers_like_all(inputs, 0.4)],
        contracted_by(by_gradient.plain),
        contracted_by(by_gradient.tracked),
        under,
        by_gradient.eps,
        is_gradient=True,
    )


def gradient_of_sum(transform):
    """The gradient of a sum of all outputs times fixed numbers. `transform(api)` makes it of a
    function of one tensor that returns a number."""

    def make(f, inputs):
        select = selector(f, inputs)
        weights = numbers_like_all(select(f(*inputs)), 0.2)
        by_gradient = gradient(f, inputs)

        def total(*xs):
            return inner(weights, select(f(*xs)))[0]

        def under(api):
            return lambda *xs: (transform(api)(total)(*xs),)

        return Function(
            inputs,
            lambda *xs: by_gradient.plain(*xs, *weights),
            lambda *xs: by_gradient.tracked(*xs, *weights),
            under,
            by_gradient.eps,
            is_gradient=True,
        )

    return make


def batch(f, draws):
    """vmap of `f` over all `draws` of its inputs, stacked; plain, a loop."""

    def loop(*stacks):
        # The product gives each row's gradient memory of its own: that of as_strided looks at it.
        rows = [[1 * y for y in f(*row)] for row in zip(*stacks, strict=True)]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))

    inputs = [torch.stack(column) for column in zip(*draws, strict=True)]
    mapped = lambda api: api.vmap(f, randomness="same")
    return Function(inputs, loop, loop, mapped, precision(loop(*inputs)))
