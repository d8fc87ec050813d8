"""Tensors of PyTorch that wrap ours or that ours are to become, and the look of its compiler."""

import pytest
import torch
from _reference import autograd_jacobian, loop_vmap, randn
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import functx


def writing(x):
    y = x.clone()
    part = y[:2]
    part.mul_(x[:2])
    y[2:].add_(x.sum()).sin_()
    return y


def functional(x):
    return torch.cat([x[:2] ** 2, (x[2:] + x.sum()).sin()])


TRANSFORMS = {
    "vmap": (lambda f: functx.vmap(f), lambda: loop_vmap(functional)),
    "grad": (
        lambda f: lambda x: functx.grad(lambda x: f(x).sum())(x[0]),
        lambda: lambda x: autograd_jacobian(functional, x[0])[0].sum(0),
    ),
    "jvp": (
        lambda f: lambda x: functx.jvp(f, (x[0],), (x[1],))[1],
        lambda: lambda x: autograd_jacobian(functional, x[0])[0] @ x[1],
    ),
    "jacrev": (
        lambda f: lambda x: functx.jacrev(f)(x[0]),
        lambda: lambda x: autograd_jacobian(functional, x[0])[0],
    ),
    "vmap-jacfwd": (
        lambda f: functx.vmap(functx.jacfwd(f)),
        lambda: loop_vmap(lambda x: autograd_jacobian(functional, x)[0]),
    ),
    "vmap-grad": (
        lambda f: functx.vmap(functx.grad(lambda x: f(x).sum())),
        lambda: loop_vmap(lambda x: autograd_jacobian(functional, x)[0].sum(0)),
    ),
    "vmap-vmap": (
        lambda f: lambda x: functx.vmap(functx.vmap(f))(x[None]),
        lambda: lambda x: loop_vmap(functional)(x)[None],
    ),
}


@pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_functionalization_inside(name, remove):
    transform, reference = TRANSFORMS[name]
    x = randn(3, 4)
    expected = reference()(x)
    assert_close(transform(functionalize(writing, remove=remove))(x), expected)
    around = functionalize(transform(functionalize(writing, remove=remove)), remove=remove)
    assert_close(around(x), expected)
    assert_close(make_fx(around)(x)(x), expected)


# ---- PyTorch's functional wrappers, which take over the keys of what they wrap -------------------


def functionalized(f):
    """As AOTAutograd does it, without torch.func."""

    def run(x):
        wrapped = torch._to_functional_tensor(x)
        torch._enable_functionalization(reapply_views=True)
        try:
            result = f(wrapped)
            torch._sync(result)
        finally:
            torch._disable_functionalization()
        return torch._from_functional_tensor(result)

    return run


# Not under jvp, where views of such a wrapper come out plain, nor across grad: plain PyTorch has no
# derivatives through functional wrappers either.
@pytest.mark.parametrize("name", ["vmap", "vmap-vmap"])
def test_functional_wrappers_of_wrappers(name):
    transform, reference = TRANSFORMS[name]
    x = randn(3, 4)
    assert_close(transform(functionalized(writing))(x), reference()(x))


def test_functional_wrappers_among_wrappers():
    x = randn(3, 4)

    def f(x):
        return functionalized(lambda wrapped: wrapped * x + x)(x)

    assert_close(functx.vmap(f)(x), x * x + x)
    assert_close(functx.jvp(f, (x,), (x.cos(),))[1], (2 * x + 1) * x.cos())


def test_a_functional_wrapper_that_escapes():
    escaped = []
    functx.vmap(lambda x: (escaped.append(torch._to_functional_tensor(x)), x)[1])(randn(3, 4))
    with pytest.raises(RuntimeError, match=r"functx.vmap: a tensor of this transform has escaped"):
        escaped[0] + 1


def test_data_of_another_class_is_refused():
    outside = torch.zeros(4)

    def f(x):
        with pytest.raises(RuntimeError, match=r"mutating directly with `\.data`"):
            x.clone().data = torch._to_functional_tensor(x)
        with pytest.raises(RuntimeError, match=r"mutating directly with `\.data`"):
            outside.data = x
        return x

    functx.vmap(f)(randn(3, 4))
    functx.jvp(f, (randn(4),), (randn(4),))


# ---- the compiler --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_compiled_function_inside(name, backend):
    transform, reference = TRANSFORMS[name]
    torch.compiler.reset()
    x = randn(3, 4)
    assert_close(transform(torch.compile(writing, backend=backend))(x), reference()(x))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_compiled_transform(name):
    transform, reference = TRANSFORMS[name]
    torch.compiler.reset()
    x = randn(3, 4)
    assert_close(torch.compile(transform(writing), backend="eager")(x), reference()(x))
