"""functx and torch.func in one process, nested both ways."""

import itertools

import pytest
import torch
from _reference import autograd_hessian, loop_vmap, numeric_jacobian, randn
from torch.testing import assert_close

import functx

# Maps of functions R^3 -> R^3 for a library, and what they must give, by finite differences.


def maps(library):
    return {
        "vmap": lambda f: lambda x: library.vmap(lambda s: f(s * x))(SCALES).flatten()[:3],
        "grad": lambda f: library.grad(lambda x: f(x).sum()),
        "vjp": lambda f: lambda x: library.vjp(f, x)[1](x.cos())[0],
        "jvp": lambda f: lambda x: library.jvp(f, (x,), (x.cos(),))[1],
        "jacrev": lambda f: lambda x: library.jacrev(f)(x).sum(1),
        "jacfwd": lambda f: lambda x: library.jacfwd(f)(x).sum(1),
    }


SCALES = torch.tensor([0.5, -1.5], dtype=torch.float64)
THEIRS, OURS = maps(torch.func), maps(functx)
STEP = 1e-2
REFERENCE = {
    "vmap": lambda f: lambda x: loop_vmap(lambda s: f(s * x))(SCALES).flatten()[:3],
    "grad": lambda f: lambda x: numeric_jacobian(f, x, STEP).sum(0),
    "vjp": lambda f: lambda x: x.cos() @ numeric_jacobian(f, x, STEP),
    "jvp": lambda f: lambda x: numeric_jacobian(f, x, STEP) @ x.cos(),
    "jacrev": lambda f: lambda x: numeric_jacobian(f, x, STEP).sum(1),
    "jacfwd": lambda f: lambda x: numeric_jacobian(f, x, STEP).sum(1),
}
PAIRS = list(itertools.product(OURS, repeat=2))


def function(x):
    y = x.sin() * x.sum()
    return torch.cat([y[:1], y[1:] * x[0]])


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_functx_inside_torch_func(outer, inner):
    x = randn(3)
    actual = THEIRS[outer](OURS[inner](function))(x)
    assert_close(actual, REFERENCE[outer](REFERENCE[inner](function))(x))


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_torch_func_inside_functx(outer, inner):
    x = randn(3)
    actual = OURS[outer](THEIRS[inner](function))(x)
    assert_close(actual, REFERENCE[outer](REFERENCE[inner](function))(x))


# ---- a pullback that is itself transformed: the tape of one level is below that of another -------


def transposed_twice(api, x):
    """The vjp of the vjp is the jvp."""
    return api.vjp(api.vjp(function, x)[1], x.cos())[1]((x.sin(),))[0]


def transposed_twice_inside(api, x):
    _, pullback = api.vjp(lambda v: api.vjp(function, x)[1](v)[0], x.cos())
    return pullback(x.sin())[0]


def gradient_of_a_pullback(api, x):
    _, pullback = api.vjp(function, x)
    return api.grad(lambda v: (pullback(v)[0] * x.sin()).sum())(x.cos())


def jacobian_of_a_pullback(api, x):
    _, pullback = api.vjp(function, x)
    return api.jacrev(lambda v: pullback(v)[0])(x.cos()).T @ x.sin()


def tangent_of_a_pullback(api, x):
    _, pullback = api.vjp(function, x)
    return api.jvp(lambda v: pullback(v)[0], (x.cos(),), (x.sin(),))[1]


def batch_of_a_pullback(api, x):
    _, pullback = api.vjp(function, x)
    return api.vmap(lambda v: pullback(v)[0])(torch.stack([x.cos(), x.sin()])).sum(0)


def by(J, x):
    return J @ x.sin()


OF_PULLBACKS = {
    transposed_twice: by,
    transposed_twice_inside: by,
    gradient_of_a_pullback: by,
    jacobian_of_a_pullback: by,
    tangent_of_a_pullback: lambda J, x: x.sin() @ J,
    batch_of_a_pullback: lambda J, x: (x.sin() + x.cos()) @ J,
}
# Two tapes of ours whose levels do not enclose each other have no order among torch.func's.
REFUSED_INSIDE_TORCH_FUNC = {transposed_twice, gradient_of_a_pullback, jacobian_of_a_pullback}


def expected_of_pullback(outer, of_pullback, x):
    return REFERENCE[outer](lambda x: OF_PULLBACKS[of_pullback](numeric_jacobian(function, x), x))(
        x
    )


@pytest.mark.parametrize("outer", OURS)
@pytest.mark.parametrize("of_pullback", OF_PULLBACKS, ids=lambda f: f.__name__)
def test_a_pullback_transformed_inside_functx(outer, of_pullback):
    x = randn(3)
    actual = OURS[outer](lambda x: of_pullback(functx, x))(x)
    assert_close(actual, expected_of_pullback(outer, of_pullback, x))


@pytest.mark.parametrize("outer", THEIRS)
@pytest.mark.parametrize("of_pullback", OF_PULLBACKS, ids=lambda f: f.__name__)
def test_a_pullback_transformed_inside_torch_func(outer, of_pullback):
    x = randn(3)
    transformed = THEIRS[outer](lambda x: of_pullback(functx, x))
    if of_pullback in REFUSED_INSIDE_TORCH_FUNC:
        with pytest.raises(NotImplementedError, match=r"inside of a transform of torch\.func"):
            transformed(x)
    else:
        assert_close(transformed(x), expected_of_pullback(outer, of_pullback, x))


@pytest.mark.parametrize("name", ["grad", "jvp", "vmap"])
def test_three_levels_of_both(name):
    x = randn(3)
    expected = REFERENCE["vmap"](REFERENCE[name](REFERENCE["grad"](function)))(x)
    assert_close(OURS["vmap"](THEIRS[name](OURS["grad"](function)))(x), expected)
    assert_close(THEIRS["vmap"](OURS[name](THEIRS["grad"](function)))(x), expected)


def test_side_by_side():
    """Calls of one between calls of the other, also while the other is active."""
    x = randn(4, 3)

    def f(x):
        constant = torch.func.vmap(torch.sin)(torch.ones(2, dtype=x.dtype))
        return (x * constant.sum()).sum()

    def g(x):
        constant = functx.vmap(torch.sin)(torch.ones(2, dtype=x.dtype))
        return (x * constant.sum()).sum()

    expected = 2 * torch.sin(torch.ones((), dtype=x.dtype)) * torch.ones_like(x)
    assert_close(functx.vmap(functx.grad(f))(x), expected)
    assert_close(torch.func.vmap(torch.func.grad(g))(x), expected)


def test_in_place_in_a_nest_of_both():
    xs = randn(4, 3)

    def f(x):
        y = x.clone()
        y[0] = x.prod()
        y[1:].mul_(x[0])
        return y.sin().sum()

    expected = torch.stack([autograd_hessian(f, x) for x in xs])
    assert_close(torch.func.vmap(functx.hessian(f))(xs), expected)
    assert_close(functx.vmap(torch.func.hessian(f))(xs), expected)
    assert_close(functx.vmap(torch.func.jacfwd(functx.grad(f)))(xs), expected)
    assert_close(torch.func.vmap(functx.jacrev(torch.func.grad(f)))(xs), expected)


def test_errors_of_one_inside_the_other_leave_both_clean():
    def fail(x):
        raise KeyError

    x = randn(3)
    for outer, inner in ((functx, torch.func), (torch.func, functx)):
        with pytest.raises(KeyError):
            outer.vmap(inner.grad(fail))(x)
        assert functx._C.level_depth() == 0
        assert torch._C._functorch.maybe_current_level() is None
        assert_close(outer.vmap(inner.grad(torch.sin))(x), x.cos())


def test_functional_call_and_stacked_modules():
    models = [torch.nn.Linear(3, 2).double() for _ in range(4)]
    params, buffers = torch.func.stack_module_state(models)
    x = randn(3)

    def f(params, x):
        return torch.func.functional_call(models[0], (params, buffers), (x,))

    actual = functx.vmap(f, in_dims=(0, None))(params, x)
    assert_close(actual, torch.stack([m(x) for m in models]))


def test_importing_functx_changes_nothing_for_torch_func():
    x = randn(4, 3)
    assert_close(torch.func.vmap(torch.func.grad(lambda x: x.sin().sum()))(x), x.cos())
    assert_close(torch.func.hessian(lambda x: x.sin().sum())(x[0]), torch.diag(-x[0].sin()))
    assert_close(torch.func.jacfwd(torch.sin)(x[0]), torch.diag(x[0].cos()))


def test_the_interface_of_torch_func_is_there():
    for name in [
        "vmap",
        "grad",
        "grad_and_value",
        "vjp",
        "jvp",
        "jacrev",
        "jacfwd",
        "hessian",
        "functional_call",
        "stack_module_state",
    ]:
        assert callable(getattr(functx, name)), name


# ---- pullbacks that meet the other library's transforms, or outlive one of their own ------------


def product(x):
    return x.sin() * x.sum()


PULLED = {
    "vmap": lambda library, pull: library.vmap(pull)(torch.eye(3, dtype=torch.float64)),
    "jvp": lambda library, pull: library.jvp(pull, (randn(3),), (randn(3),)),
    "grad": lambda library, pull: library.grad(lambda c: pull(c).sin().sum())(randn(3)),
    "jacrev": lambda library, pull: library.jacrev(pull)(randn(3)),
    "jacfwd": lambda library, pull: library.jacfwd(pull)(randn(3)),
    "vmap(grad)": lambda library, pull: library.vmap(library.grad(lambda c: pull(c).sin().sum()))(
        randn(2, 3)
    ),
}


@pytest.mark.parametrize("name", PULLED)
@pytest.mark.parametrize("made_by", [functx, torch.func])
def test_a_pullback_inside_the_transforms_of_the_other_library(name, made_by):
    x = randn(3)
    jacobian = numeric_jacobian(product, x)
    results = []
    for pull in (lambda c: c @ jacobian, lambda c: made_by.vjp(product, x)[1](c)[0]):
        torch.manual_seed(0)
        results.append(PULLED[name](torch.func if made_by is functx else functx, pull))
    assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)


OUTLIVED = {
    "grad": lambda f, x: functx.grad(f)(x),
    "vjp": lambda f, x: functx.vjp(f, x),
    "jvp": lambda f, x: functx.jvp(f, (x,), (x,)),
    "jvp(grad)": lambda f, x: functx.jvp(functx.grad(f), (x,), (x,)),
    "jvp(jvp)": lambda f, x: functx.jvp(lambda x: functx.jvp(f, (x,), (x,))[1], (x,), (x,)),
    "grad(jvp)": lambda f, x: functx.grad(lambda x: functx.jvp(f, (x,), (x,))[1])(x),
}


@pytest.mark.parametrize("name", OUTLIVED)
def test_a_pullback_that_outlives_the_level_it_was_made_in(name):
    """As in torch.func it is the derivative at the value that the input had, and a plain tensor."""
    pulls = []

    def f(x):
        pulls.append(functx.vjp(lambda z: z.sin() * x.sum(), x)[1])
        return x.sum()

    x, cotangent = randn(3), randn(3)
    OUTLIVED[name](f, x)
    (gradient,) = pulls[0](cotangent)
    assert_close(gradient, x.cos() * x.sum() * cotangent)
    if "jvp" in name:  # what it has saved has a tangent of a transform that has returned
        return
    assert_close(functx.vmap(pulls[0])(torch.diag(cotangent))[0].sum(0), gradient)
    of_pull = functx.grad(lambda c: pulls[0](c)[0].sum())(cotangent)
    assert_close(of_pull, x.cos() * x.sum())


def test_a_pullback_that_outlives_a_vmap():
    pulls = []

    def f(x, y):
        pulls.extend(functx.vjp(torch.sin, each)[1] for each in (x, y))
        return x

    x = randn(2, 3)
    functx.vmap(f, in_dims=(0, None))(x, x[0])
    assert_close(pulls[1](x[1])[0], x[0].cos() * x[1])
    with pytest.raises(RuntimeError, match="escaped"):
        pulls[0](x[1])[0].sin()
