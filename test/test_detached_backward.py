"""A backward that detaches its gradients has the right derivative, but not a right second one.
Where that is asked for, there is an error instead of a zero."""

import pytest
import torch
from _reference import randn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.testing import assert_close

from functx import grad, hessian, jacrev, vjp, vmap

X = randn(3)


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2


def detached(ctx, g):
    return (2 * ctx.saved_tensors[0] * g).detach()


def under_no_grad(ctx, g):
    with torch.no_grad():
        return 2 * ctx.saved_tensors[0] * g


def by_autograd(ctx, g):
    with torch.enable_grad():
        x = ctx.saved_tensors[0].detach().requires_grad_()
        return torch.autograd.grad(x**2, x, g)[0]


def old_style(backward):
    return type("Square", (Square,), {"backward": staticmethod(backward)})


def new_style(backward):
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    names = {"forward": lambda x: x**2, "setup_context": setup_context, "backward": backward}
    return type("Square", (Function,), {name: staticmethod(f) for name, f in names.items()})


def through(function):
    return lambda x: function.apply(x).sin().sum()


SECOND = {
    "grad(grad)": lambda f: grad(lambda x: grad(f)(x).sum())(X),
    "jacrev(jacrev)": lambda f: jacrev(jacrev(f))(X),
    "vjp(grad)": lambda f: vjp(grad(f), X)[1](X),
    "vmap(jacrev(jacrev))": lambda f: vmap(jacrev(jacrev(f)))(torch.stack([X, X])),
    "jacrev(vmap(grad))": lambda f: jacrev(vmap(grad(f)))(torch.stack([X, X])),
    "backward of grad": lambda f: grad(f)(X.clone().requires_grad_()).sum().backward(),
}


@pytest.mark.parametrize("style", [old_style, new_style])
@pytest.mark.parametrize("backward", [detached, under_no_grad, by_autograd])
@pytest.mark.parametrize("name", SECOND)
def test_a_second_derivative_is_refused(name, backward, style):
    f = through(style(backward))
    expected = 2 * X * (X**2).cos()
    assert_close(grad(f)(X), expected)
    assert_close(vmap(grad(f))(torch.stack([X, X])), torch.stack([expected, expected]))
    with pytest.raises(RuntimeError, match="differentiate twice Square, whose backward detaches"):
        SECOND[name](f)


@pytest.mark.parametrize("style", [old_style, new_style])
@pytest.mark.parametrize("name", SECOND)
def test_once_differentiable_where_the_gradient_is_constant(name, style):
    """The second derivative is by what forward saved alone."""
    square = style(once_differentiable(by_autograd))
    f = lambda x: square.apply(x).sum()
    assert_close(grad(f)(X), 2 * X)
    with pytest.raises(RuntimeError, match="differentiate twice a function that was marked"):
        SECOND[name](f)


class Weighted(Function):
    """Zeros for what has no gradient, a gradient that one output alone has, and one not at all."""

    @staticmethod
    def forward(ctx, x, mask):
        ctx.save_for_backward(x)
        return x**2, mask * 2

    @staticmethod
    def backward(ctx, g, of_mask):
        return 2 * ctx.saved_tensors[0] * g, torch.zeros(3, dtype=g.dtype)


def test_zeros_need_not_depend_on_gradients():
    f = lambda x: Weighted.apply(x, 3 * x)[0].sin().sum()
    plain = lambda x: (x**2).sin().sum()
    assert_close(jacrev(jacrev(f))(X), hessian(plain)(X))
    assert_close(vmap(jacrev(jacrev(f)))(X[None]), hessian(plain)(X)[None])


class Sum(Function):
    @staticmethod
    def forward(ctx, x, y):
        return x.clone(), y.clone()

    @staticmethod
    def backward(ctx, of_x, of_y):
        return of_x, of_y


def test_a_result_may_depend_on_a_gradient_that_is_constant():
    """Of `y` the gradient is 3, whatever `x` is."""

    def f(x):
        first, second = Sum.apply(x, 2 * x)
        return first.sin().sum() + (3 * second).sum()

    plain = lambda x: x.sin().sum()
    assert_close(jacrev(jacrev(f))(X), hessian(plain)(X))


def test_without_a_second_derivative_nothing_is_asked():
    """Recorded for nothing: the caller retains the graph and never differentiates again."""
    f = through(old_style(detached))
    x = X.clone().requires_grad_()
    with torch.no_grad():
        assert_close(grad(f)(x), (2 * X * (X**2).cos()))
