"""PyTorch's own autograd called by a function that a transform is applied to.

Each form of it is a function R^3 -> R^3. The expected result is what the same function gives on
plain tensors: in a loop for vmap, differentiated once more by plain autograd for derivatives.
"""

import itertools

import pytest
import torch
from _reference import loop_vmap, randn
from torch.autograd import forward_ad
from torch.autograd import functional as autograd_functional
from torch.testing import assert_close

import functx

SCALES = torch.tensor([0.5, -1.5], dtype=torch.float64)
WEIGHT = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)

OUTER = {
    "vmap": lambda f: lambda x: functx.vmap(lambda s: f(s * x))(SCALES).flatten()[:3],
    "grad": lambda f: functx.grad(lambda x: f(x).sum()),
    "vjp": lambda f: lambda x: functx.vjp(f, x)[1](x.cos())[0],
    "jvp": lambda f: lambda x: functx.jvp(f, (x,), (x.cos(),))[1],
    "jacrev": lambda f: lambda x: functx.jacrev(f)(x).sum(1),
    "jacfwd": lambda f: lambda x: functx.jacfwd(f)(x).sum(1),
}


def plain_jacobian(f, x):
    """Differentiable in turn."""
    x = tracked(x)
    rows = [torch.autograd.grad(y, x, create_graph=True, materialize_grads=True) for y in f(x)]
    return torch.stack([row for (row,) in rows])


REFERENCE = {
    "vmap": lambda f: lambda x: loop_vmap(lambda s: f(s * x))(SCALES).flatten()[:3],
    "grad": lambda f: lambda x: plain_jacobian(f, x).sum(0),
    "vjp": lambda f: lambda x: x.cos() @ plain_jacobian(f, x),
    "jvp": lambda f: lambda x: plain_jacobian(f, x) @ x.cos(),
    "jacrev": lambda f: lambda x: plain_jacobian(f, x).sum(1),
    "jacfwd": lambda f: lambda x: plain_jacobian(f, x).sum(1),
}
DERIVATIVES = [name for name in OUTER if name != "vmap"]


def function(x):
    y = x.sin() * x.sum()
    return torch.cat([y[:1], y[1:] * x[0]])


def energy(x):
    return (function(x) ** 2).sum()


def tracked(x):
    """`x` itself, if autograd tracks it already; else it begins here, and stays `x`."""
    return x if x.requires_grad else x.clone().requires_grad_()


def leaf(x):
    return x.detach().requires_grad_()


# ---- forms whose result depends on x as what they compute does -----------------------------------


def by_grad(x):
    x = tracked(x)
    return torch.autograd.grad(energy(x), x, create_graph=True)[0]


def by_grad_of_the_argument(x):
    x.requires_grad_()
    return torch.autograd.grad(energy(x), x, create_graph=True)[0]


def by_grad_with_cotangent(x):
    x = tracked(x)
    return torch.autograd.grad(function(x), x, x.cos(), create_graph=True)[0]


def by_grad_with_plain_cotangent(x):
    x = tracked(x)
    y = 2 * x
    return torch.autograd.grad(y + y * x.sin(), x, WEIGHT, create_graph=True)[0]


def by_grad_twice(x):
    x = tracked(x)
    (slope,) = torch.autograd.grad(energy(x), x, create_graph=True)
    return torch.autograd.grad(slope.sum(), x, create_graph=True)[0]


def by_grad_batched(x):
    x = tracked(x)
    basis = torch.eye(3, dtype=x.dtype)
    rows = torch.autograd.grad(function(x), x, basis, create_graph=True, is_grads_batched=True)[0]
    return rows.sum(1)


def by_grad_of_a_shared_weight(x):
    weight = WEIGHT.clone().requires_grad_()
    return torch.autograd.grad(energy(x * weight), weight, create_graph=True)[0]


def by_grad_of_several(x):
    x = tracked(x)
    weight = WEIGHT.clone().requires_grad_()
    unused = WEIGHT.clone().requires_grad_()
    of_x, of_weight, zero = torch.autograd.grad(
        (energy(x * weight), (x * weight).sum()),
        (x, weight, unused),
        create_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return of_x * of_weight + zero


def by_backward(x):
    weight = WEIGHT.clone().requires_grad_()
    energy(x * weight).backward(create_graph=True)
    gradient, weight.grad = weight.grad, None
    return gradient


def by_backward_into_inputs(x):
    weight, other = WEIGHT.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    energy(x * weight * other).backward(inputs=[weight], create_graph=True)
    assert other.grad is None
    gradient, weight.grad = weight.grad, None
    return gradient


def by_saved_tensors_hooks(x):
    x = tracked(x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        y = function(x)
    return torch.autograd.grad(y, x, x.cos(), create_graph=True)[0]


def by_checkpoint(x):
    x = tracked(x)
    y = torch.utils.checkpoint.checkpoint(function, x, use_reentrant=False)
    return torch.autograd.grad(y, x, x.cos(), create_graph=True)[0]


def by_writing(x):
    x = tracked(x)
    y = x.new_zeros(3)
    y[1:] = function(x)[1:]
    y[0] = x[2]
    y.mul_(x)
    return torch.autograd.grad(y, x, x.cos(), create_graph=True)[0]


def by_forward_ad(x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, x.cos()))).tangent


def by_forward_ad_in_a_plain_direction(x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, WEIGHT))).tangent


def by_forward_ad_over_grad(x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(tracked(x), x.cos())
        (slope,) = torch.autograd.grad(energy(dual), dual, create_graph=True)
        return forward_ad.unpack_dual(slope).tangent


def functional(name, **options):
    api = getattr(autograd_functional, name)

    def form(x):
        if options.get("create_graph"):
            x = tracked(x)
        if name in ("jacobian", "hessian"):
            return api(function if name == "jacobian" else energy, x, **options).sum(1)
        return api(function if name in ("vjp", "jvp") else energy, x, x.cos(), **options)[1]

    form.__name__ = "-".join([name, *(key for key, value in options.items() if value)])
    return form


CONNECTED = [
    by_grad,
    by_grad_of_the_argument,
    by_grad_with_cotangent,
    by_grad_with_plain_cotangent,
    by_grad_twice,
    by_grad_batched,
    by_saved_tensors_hooks,
    by_checkpoint,
    by_writing,
    by_forward_ad,
    by_forward_ad_in_a_plain_direction,
    by_forward_ad_over_grad,
    *(
        functional(name, create_graph=True, strict=strict)
        for name in ("jacobian", "hessian", "vjp", "jvp", "hvp", "vhp")
        for strict in (False, True)
    ),
    functional("jacobian", create_graph=True, vectorize=True),
    functional("hessian", create_graph=True, vectorize=True),
    functional("jacobian", vectorize=True, strategy="forward-mode"),
]

# ... and that differentiate by something that is the same for all x.
BY_A_WEIGHT = [
    by_grad_of_a_shared_weight,
    by_grad_of_several,
    by_backward,
    by_backward_into_inputs,
]

# ---- forms whose result autograd takes for a constant --------------------------------------------


def by_grad_of_a_leaf(x):
    x = leaf(x)
    return torch.autograd.grad(energy(x), x)[0]


def by_backward_of_a_leaf(x):
    x = leaf(x)
    energy(x).backward()
    return x.grad


def by_backward_twice(x):
    x = leaf(x)
    x.sum().backward()
    energy(x).backward()
    x.cos().sum().backward()
    return x.grad


def by_backward_with_cotangent(x):
    x = leaf(x)
    function(x).backward(WEIGHT)
    return x.grad


def by_retain_grad(x):
    x = leaf(x)
    y = x * 1
    y.retain_grad()
    energy(y).backward()
    return y.grad


def by_retain_graph(x):
    x = leaf(x)
    y = energy(x)
    y.backward(retain_graph=True)
    y.backward()
    return x.grad


def by_parameter(x):
    parameter = torch.nn.Parameter(x.detach())
    return torch.autograd.grad(energy(parameter), parameter)[0]


def by_hook(x):
    x = leaf(x)
    y = x.sin()
    y.register_hook(lambda gradient: 2 * gradient * x)
    return torch.autograd.grad(y * x, x, x.cos())[0]


def by_node_hook(x):
    x = leaf(x)
    y = x.sin()
    y.grad_fn.register_hook(lambda gradients, _: (gradients[0] * y,))
    y.backward(WEIGHT)
    return x.grad


def by_accumulation_hook(x):
    x = leaf(x)
    seen = []
    x.register_post_accumulate_grad_hook(lambda x: seen.append(x.grad * x))
    energy(x).backward()
    return seen[0]


def by_optimizer(x):
    x = leaf(x.clone())
    optimizer = torch.optim.SGD([x], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        energy(x).backward()
        optimizer.step()
    return x.detach()


CONSTANT = [
    by_grad_of_a_leaf,
    by_backward_of_a_leaf,
    by_backward_twice,
    by_backward_with_cotangent,
    by_retain_grad,
    by_retain_graph,
    by_parameter,
    by_hook,
    by_node_hook,
    by_accumulation_hook,
    by_optimizer,
    *(
        functional(name, strict=strict)
        for name in ("jacobian", "hessian", "vjp", "jvp", "hvp", "vhp")
        for strict in (False, True)
    ),
    functional("jacobian", vectorize=True),
    functional("hessian", vectorize=True),
]


def named(forms):
    return pytest.mark.parametrize("form", forms, ids=[form.__name__ for form in forms])


@named(CONNECTED + CONSTANT)
def test_inside_vmap(form):
    x = randn(3)
    assert_close(OUTER["vmap"](form)(x), REFERENCE["vmap"](form)(x))
    twice = functx.vmap(lambda a: functx.vmap(lambda s: form(a * s * x))(SCALES))(SCALES)
    loops = loop_vmap(lambda a: loop_vmap(lambda s: form(a * s * x))(SCALES))(SCALES)
    assert_close(twice, loops)


@named(BY_A_WEIGHT)
def test_by_what_all_examples_share(form):
    with pytest.raises(RuntimeError, match=r"functx.vmap: .* tracked outside .*Use functx.grad"):
        OUTER["vmap"](form)(randn(3))


@pytest.mark.parametrize("outer", DERIVATIVES)
@named(CONNECTED + BY_A_WEIGHT)
def test_inside_a_derivative(outer, form):
    x = randn(3)
    assert_close(OUTER[outer](form)(x.clone()), REFERENCE[outer](form)(x).detach())


@pytest.mark.parametrize("outer", DERIVATIVES)
@named(CONSTANT)
def test_a_constant_inside_a_derivative(outer, form):
    x = randn(3)
    constant = form(x)
    assert_close(OUTER[outer](form)(x), torch.zeros_like(x))
    actual = OUTER[outer](lambda x: x * form(x))(x)
    assert_close(actual, REFERENCE[outer](lambda x: x * constant)(x).detach())


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(OUTER, repeat=2)))
@named([by_grad, by_grad_batched, by_grad_of_the_argument, by_forward_ad, by_writing])
def test_inside_two_transforms(outer, inner, form):
    x = randn(3)
    actual = OUTER[outer](OUTER[inner](form))(x.clone())
    assert_close(actual, REFERENCE[outer](REFERENCE[inner](form))(x).detach())


@pytest.mark.parametrize("outer", [functx.vmap, lambda f: lambda x: functx.jvp(f, (x,), (x,))])
def test_a_view_from_before_tracking_is_not_written_to(outer):
    """The tensor it is a view of could not be told."""

    def f(x):
        total = x * 0
        part = total[1:]
        y = x.clone().requires_grad_()
        part.copy_(y[1:])
        return torch.autograd.grad(total.sum(), y)[0]

    with pytest.raises(RuntimeError, match="view that was taken when nothing was tracked"):
        outer(f)(randn(4, 3))


def test_views_from_before_tracking_that_nothing_is_lost_by():
    x = randn(4, 3)

    def f(x):
        part = x[1:]
        y = x.detach().requires_grad_()
        copy = part.clone()
        copy.mul_(y[1:])
        detached = x.detach()
        detached = detached.view(3).clone()
        detached += y
        return torch.autograd.grad((copy * part * detached[1:]).sum(), y)[0]

    expected = torch.stack([f(row) for row in x])
    assert_close(functx.vmap(f)(x), expected)


def test_a_checkpoint_below_forward_mode():
    x, tangent = randn(3), randn(3)

    def f(x):
        return torch.utils.checkpoint.checkpoint(energy, x, use_reentrant=False)

    expected = torch.autograd.functional.hessian(energy, x)
    assert_close(functx.hessian(f)(x), expected)
    assert_close(functx.jvp(functx.grad(f), (x,), (tangent,))[1], expected @ tangent)
    actual = functx.vmap(lambda t: functx.jvp(functx.grad(f), (x,), (t,))[1])(torch.eye(3).double())
    assert_close(actual, expected)
