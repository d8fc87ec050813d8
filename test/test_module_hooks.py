"""Module hooks inside transforms: forward, forward-pre and full backward hooks."""

import pytest
import torch
from _reference import autograd_grad, randn, stack_trees
from torch.func import functional_call
from torch.testing import assert_close

import functx


@pytest.fixture
def model():
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    ).double()


def parameters_of(model):
    return {name: p.detach() for name, p in model.named_parameters()}


def loss_of(model):
    def loss(params, x):
        return functional_call(model, params, (x,)).square().sum()

    return loss


def reference_gradients(model, params, x):
    """Plain autograd with the same hooks."""
    names = list(params)
    gradients = autograd_grad(
        lambda *values: loss_of(model)(dict(zip(names, values, strict=True)), x), *params.values()
    )
    return dict(zip(names, gradients, strict=True))


def check(model, params, xs):
    """Compares grad and vmap(grad) with plain autograd, hooks running in both."""
    gradient = functx.grad(loss_of(model))
    expected = [reference_gradients(model, params, x) for x in xs]
    actual = gradient(params, xs[0])
    batched = functx.vmap(gradient, in_dims=(None, 0))(params, xs)
    stacked = stack_trees(expected)
    for name in params:
        assert_close(actual[name], expected[0][name])
        assert_close(batched[name], stacked[name])


def test_forward_hooks_that_observe(model):
    shapes = []
    model[0].register_forward_hook(lambda m, args, out: shapes.append(tuple(out.shape)))
    model[2].register_forward_pre_hook(lambda m, args: shapes.append(tuple(args[0].shape)))
    check(model, parameters_of(model), randn(2, 3))
    assert set(shapes) == {(4,)}
    assert len(shapes) == 2 * 4  # two in the reference, one in grad, one in vmap(grad)


def test_forward_hooks_that_change_values(model):
    model[0].register_forward_hook(lambda m, args, out: out * 2 + 1)
    model[1].register_forward_pre_hook(lambda m, args: (args[0].sin(),))
    check(model, parameters_of(model), randn(2, 3))


def test_full_backward_hooks_that_observe(model):
    shapes = []
    model[2].register_full_backward_hook(
        lambda m, grad_input, grad_output: shapes.append(
            (tuple(grad_input[0].shape), tuple(grad_output[0].shape))
        )
    )
    check(model, parameters_of(model), randn(2, 3))
    assert shapes == [((4,), (2,))] * 4


def test_full_backward_hooks_that_change_the_gradient(model):
    model[1].register_full_backward_hook(lambda m, grad_input, grad_output: (grad_input[0] * 3,))
    params, xs = parameters_of(model), randn(2, 3)
    check(model, params, xs)
    tripled = functx.grad(loss_of(model))(params, xs[0])["0.weight"]
    model[1]._backward_hooks.clear()
    assert_close(tripled, 3 * functx.grad(loss_of(model))(params, xs[0])["0.weight"])


def test_full_backward_pre_hooks(model):
    model[2].register_full_backward_pre_hook(lambda m, grad_output: (grad_output[0] * 0.5,))
    check(model, parameters_of(model), randn(2, 3))


def test_global_module_hooks(model):
    names = []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda m, args, out: names.append(type(m).__name__)
    )
    with handle:
        functx.vmap(functx.grad(loss_of(model)), in_dims=(None, 0))(
            parameters_of(model), randn(2, 3)
        )
    assert names == ["Linear", "Tanh", "Linear", "Sequential"]


def test_hooks_under_jvp_and_jacrev(model):
    model[1].register_forward_hook(lambda m, args, out: out * 2)
    x, tangent = randn(3), randn(3)
    jacobian = functx.jacrev(model)(x).detach()
    expected = torch.stack([autograd_grad(lambda x, i=i: model(x)[i], x)[0] for i in range(2)])
    assert_close(jacobian, expected)
    assert_close(functx.jvp(model, (x,), (tangent,))[1].detach(), expected @ tangent)


HOOKED_NESTS = {
    "grad": lambda f: functx.grad(f),
    "vmap-grad": lambda f: lambda x: functx.vmap(functx.grad(f))(x[None])[0],
    "jvp-grad": lambda f: lambda x: functx.jvp(functx.grad(f), (x,), (x,))[0],
    "hessian": lambda f: lambda x: functx.jacfwd(lambda x: x * 0 + functx.grad(f)(x))(x).sum(1),
    "vmap-jacrev": lambda f: lambda x: functx.vmap(functx.jacrev(f))(x[None])[0],
    "vmap-vmap-grad": lambda f: (
        lambda x: functx.vmap(functx.vmap(functx.grad(f)))(x[None, None])[0, 0]
    ),
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", HOOKED_NESTS)
def test_full_backward_hooks_of_modules_whose_parameters_are_tracked(model, name, before):
    """By a tape outside: the hooks are for that of the transform, and are called once."""
    x = randn(3)
    f = lambda x: model(x).square().sum()
    if name == "hessian":
        plain = torch.autograd.functional.hessian(f, x).sum(1)
    else:
        plain = autograd_grad(f, x)[0]
    calls = []
    if before:
        model[1].register_full_backward_pre_hook(lambda m, g: (calls.append(m), (g[0] * 3,))[1])
    else:
        model[1].register_full_backward_hook(lambda m, g, _: (calls.append(m), (g[0] * 3,))[1])
    assert_close(HOOKED_NESTS[name](f)(x), 3 * plain)
    assert calls


def test_full_backward_hooks_between_two_tapes(model):
    """The parameters are on one outside, the input on that of the transform."""
    x = randn(4, 3)
    f = lambda x: model(x).square().sum()

    def through_gradients(gradients):
        return torch.autograd.grad(gradients(x).sin().sum(), [model[0].weight, model[2].weight])

    def plain(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(f(x), x, create_graph=True)[0]

    expected = through_gradients(plain)
    second = torch.stack([torch.autograd.functional.hvp(f, row, row)[1] for row in x])
    calls = []
    model[1].register_full_backward_hook(lambda *args: calls.append("hook"))
    model[2].register_full_backward_pre_hook(lambda *args: calls.append("pre-hook"))
    assert_close(through_gradients(functx.vmap(functx.grad(f))), expected)
    assert_close(functx.jvp(functx.vmap(functx.grad(f)), (x,), (x,))[1], second)
    assert calls == ["pre-hook", "hook"] * 2
