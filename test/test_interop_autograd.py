"""Ordinary autograd around and inside transforms: grad modes, tracked closures, backward, hooks."""

import pytest
import torch
from _reference import (
    assert_equal_trees,
    autograd_grad,
    autograd_hessian,
    forward_ad_jvp,
    randn,
)
from torch.testing import assert_close

import functx

# ---- grad modes, as torch.func documents them --------------------------------------------------


def test_no_grad_inside_makes_a_constant():
    x = randn()

    def f(x):
        with torch.no_grad():
            constant = x**2
        return x - constant

    assert_close(functx.grad(f)(x), torch.ones_like(x))
    assert_close(functx.vmap(functx.grad(f))(x[None]), torch.ones_like(x[None]))
    assert_close(functx.vjp(f, x)[1](x)[0], x)
    assert_close(functx.jacrev(f)(x), torch.ones_like(x))


def test_no_grad_outside_is_ignored():
    x = randn(3)

    def f(x):
        assert torch.is_grad_enabled()
        return (x**3).sum()

    with torch.no_grad():
        assert_close(functx.grad(f)(x), 3 * x**2)
        assert_close(functx.grad(f)(x.clone().requires_grad_()), 3 * x**2)
        assert_close(functx.vmap(functx.grad(torch.sin))(x), x.cos())
        assert_close(functx.vjp(torch.sin, x)[1](x)[0], x * x.cos())
        assert_close(functx.jacrev(torch.sin)(x), torch.diag(x.cos()))
        assert_close(functx.hessian(f)(x), torch.diag(6 * x))
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_no_grad_outside_leaves_the_result_untracked():
    x = randn(3).requires_grad_()
    with torch.no_grad():
        assert not functx.grad(lambda x: (x**3).sum())(x).requires_grad
        assert not functx.jacrev(torch.sin)(x).requires_grad
        output, pullback = functx.vjp(torch.sin, x)
        assert not output.requires_grad
        assert not pullback(output)[0].requires_grad
    # What a pullback records is decided when it is called.
    (result,) = pullback(torch.ones_like(x))
    assert_close(torch.autograd.grad(result.sum(), x)[0], -x.sin())


def test_a_gradient_taken_under_no_grad_is_a_constant_of_the_outer_gradient():
    x = randn()

    def f(x):
        with torch.no_grad():
            slope = functx.grad(lambda y: y**3)(x)
        return x * slope

    assert_close(functx.grad(f)(x), 3 * x**2)


def test_no_grad_inside_does_not_stop_forward_mode():
    """torch.no_grad is about reverse mode; jvp under it is PyTorch's forward mode under it."""
    x, tangent = randn(3), randn(3)

    def f(x):
        with torch.no_grad():
            y = x.sin()
        return x * y

    assert_close(functx.jvp(f, (x,), (tangent,))[1], forward_ad_jvp(f, (x,), (tangent,))[1])


@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_is_restored_after_success_and_failure(enabled):
    def fail(x):
        raise KeyError("inside")

    with torch.set_grad_enabled(enabled):
        functx.grad(torch.sum)(randn(3))
        assert torch.is_grad_enabled() == enabled
        with pytest.raises(KeyError):
            functx.grad(fail)(randn(3))
        assert torch.is_grad_enabled() == enabled


def test_enable_grad_inside_no_grad_inside():
    x = randn()

    def f(x):
        with torch.no_grad():
            y = x**2
            with torch.enable_grad():
                z = x**3
        return x * y + z

    assert_close(functx.grad(f)(x), 4 * x**2)


# ---- tensors that autograd tracks ---------------------------------------------------------------


def test_closure_over_a_tracked_tensor():
    weight, x = randn(3).requires_grad_(), randn(3)
    gradient = functx.grad(lambda x: (weight * x**2).sum())(x)
    assert_close(gradient, (2 * weight * x).detach(), check_stride=False)
    assert gradient.requires_grad
    gradient.sum().backward()
    assert_close(weight.grad, 2 * x)


def test_input_that_requires_grad():
    x = randn(3).requires_grad_()
    gradient = functx.grad(lambda x: (x**3).sum())(x)
    gradient.square().sum().backward()
    assert_close(x.grad, autograd_grad(lambda x: (9 * x**4).sum(), x)[0])


def test_input_that_is_not_a_leaf():
    x = randn(3).requires_grad_()
    functx.grad(lambda y: (y**3).sum())(x.exp()).sum().backward()
    assert_close(x.grad, autograd_grad(lambda x: (3 * x.exp() ** 2).sum(), x)[0])


def test_value_and_aux_carry_the_gradient_of_a_tracked_closure():
    weight, x = randn(3).requires_grad_(), randn(3)
    _, (value, aux) = functx.grad_and_value(
        lambda x: ((weight * x).sum(), weight**2), has_aux=True
    )(x)
    (value + aux.sum()).backward()
    assert_close(weight.grad, (x + 2 * weight).detach())


def test_gradient_does_not_leak_into_a_tracked_closure():
    weight = randn(3).requires_grad_()
    functx.grad(lambda x: (weight * x).sum())(randn(3))
    assert weight.grad is None


def test_backward_through_a_gradient_penalty():
    weight, x = randn(3, 3), randn(5, 3)

    def penalty(gradient_of, weight):
        return sum(gradient_of(weight, row).square().sum() for row in x)

    def energy(row, weight):
        return (weight @ row).tanh().prod()

    def plain(weight, row):
        row = row.clone().requires_grad_()
        return torch.autograd.grad(energy(row, weight), row, create_graph=True)[0]

    (expected,) = autograd_grad(lambda w: penalty(plain, w), weight)
    leaf = weight.clone().requires_grad_()
    penalty(lambda w, row: functx.grad(energy)(row, w), leaf).backward()
    assert_close(leaf.grad, expected)
    leaf.grad = None
    functx.vmap(functx.grad(energy), in_dims=(0, None))(x, leaf).square().sum().backward()
    assert_close(leaf.grad, expected)


TRANSFORMS = {
    "vmap": lambda f: functx.vmap(f),
    "vmap-vmap": lambda f: lambda x: functx.vmap(functx.vmap(f))(x[None])[0],
    "jvp": lambda f: lambda x: functx.jvp(f, (x,), (x.cos(),))[1],
    "vjp": lambda f: lambda x: functx.vjp(f, x)[1](x.cos())[0],
    "vmap-grad": lambda f: functx.vmap(functx.grad(f)),
    "jacrev": lambda f: functx.jacrev(f),
    "jacfwd": lambda f: functx.jacfwd(f),
    "hessian": lambda f: functx.hessian(lambda x: f(x).sum()),
    "jacrev-jacfwd": lambda f: functx.jacrev(functx.jacfwd(f)),
    "jvp-vmap": lambda f: lambda x: functx.jvp(functx.vmap(f), (x,), (x.cos(),))[1],
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_backward_through_every_transform(name):
    """All these derivatives of sin are elementwise; sums of squares have known gradients."""
    x, scale = randn(4), randn()
    expressions = {
        "vmap": lambda x, c: (c * x).sin(),
        "vmap-vmap": lambda x, c: (c * x).sin(),
        "jvp": lambda x, c: c * (c * x).cos() * x.cos(),
        "vjp": lambda x, c: c * (c * x).cos() * x.cos(),
        "vmap-grad": lambda x, c: c * (c * x).cos(),
        "jacrev": lambda x, c: c * (c * x).cos(),
        "jacfwd": lambda x, c: c * (c * x).cos(),
        "hessian": lambda x, c: -(c**2) * (c * x).sin(),
        "jacrev-jacfwd": lambda x, c: -(c**2) * (c * x).sin(),
        "jvp-vmap": lambda x, c: c * (c * x).cos() * x.cos(),
    }
    expected = autograd_grad(lambda x, c: expressions[name](x, c).square().sum(), x, scale)
    leaves = [t.clone().requires_grad_() for t in (x, scale)]
    output = TRANSFORMS[name](lambda x: (leaves[1] * x).sin())(leaves[0])
    output.square().sum().backward()
    assert_equal_trees(tuple(leaf.grad for leaf in leaves), expected)


def test_gradgradcheck_of_vmap_and_grad():
    x, weight = randn(3, 2).requires_grad_(), randn(2, 2).requires_grad_()

    def f(x, weight):
        return functx.vmap(functx.grad(lambda r: (weight @ r).tanh().prod()))(x)

    assert torch.autograd.gradcheck(f, (x, weight))
    assert torch.autograd.gradgradcheck(f, (x, weight))


def test_torch_autograd_functional_around_a_transform():
    x = randn(3)

    def f(x):
        return (x.prod() * x).sin().sum()

    actual = torch.autograd.functional.jacobian(functx.grad(f), x)
    assert_close(actual, autograd_hessian(f, x))


def test_torch_autograd_grad_inside_a_transform():
    x = randn(3)

    def slope_sum(x):
        (slope,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        return slope.sum()

    assert_close(functx.grad(slope_sum)(x), 6 * x)


def test_torch_autograd_grad_inside_vmap():
    x = randn(3)

    def slope_sum(x):
        (slope,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        return slope.sum()

    assert_close(functx.vmap(functx.grad(slope_sum))(x[:, None]), 6 * x[:, None])


def test_functx_inside_plain_forward_ad():
    x, tangent = randn(3), randn(3)

    def f(x):
        return (x**3).sum()

    _, actual = forward_ad_jvp(functx.grad(f), (x,), (tangent,))
    assert_close(actual, 6 * x * tangent)
    _, actual = forward_ad_jvp(functx.vmap(torch.sin), (x,), (tangent,))
    assert_close(actual, x.cos() * tangent)


def test_tensor_hooks_run_inside_transforms():
    x = randn(3)
    seen = []

    def f(x):
        y = x.sin()
        y.register_hook(lambda g: (seen.append(g.shape), 2 * g)[1])
        return y.sum()

    assert_close(functx.grad(f)(x), 2 * x.cos())
    assert_close(functx.vmap(functx.grad(f))(x[None]), 2 * x.cos()[None])
    assert seen == [(3,), (3,)]


@pytest.mark.parametrize("constant", [torch.detach, lambda x: x.data], ids=["detach", "data"])
def test_detach_inside(constant):
    x = randn(3)
    f = lambda x: constant(x) * x
    assert_close(functx.grad(lambda x: f(x).sum())(x), x)
    assert_close(functx.vmap(functx.grad(lambda x: f(x).sum()))(x[None])[0], x)
    assert_close(functx.jvp(f, (x,), (x,))[1], x * x)
    assert_close(functx.vmap(lambda x: functx.jvp(f, (x,), (x,))[1])(x[None])[0], x * x)
    assert_close(functx.jvp(functx.vmap(f), (x[None],), (x[None],))[1][0], x * x)


def test_the_data_of_a_parameter():
    """As before where there is no transform."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    assert not parameter.data.requires_grad
    parameter.data.add_(1)
    assert parameter.tolist() == [1, 1]
    parameter.data = torch.ones(3)
    assert parameter.shape == (3,)
    with pytest.raises(RuntimeError, match="Deleting"):
        del parameter.data


def test_anomaly_detection():
    """It finds the NaN of any example."""
    x = torch.tensor([4.0, -1.0])
    root = lambda x: x.sqrt().sum()
    calls = [functx.vmap(functx.grad(root)), functx.grad(lambda x: functx.vmap(root)(x).sum())]
    with torch.autograd.set_detect_anomaly(True):
        for call in calls:
            assert_close(call(x.abs()), 0.5 / x.abs().sqrt())
            with pytest.raises(RuntimeError, match=r"SqrtBackward0.*nan"):
                call(x)
