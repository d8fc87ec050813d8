"""The rules for the kernels of accelerators, with stand-ins for these on the CPU."""

import pytest
import torch
from _attention import ACCELERATORS, accelerator_kernels_on_cpu, attend
from _attention_cases import (
    CASES,
    INPUTS,
    MASKS,
    Autograd,
    Case,
    Functx,
    like,
    loop,
    loss_of,
    written_gradient_jvp,
    written_jvp,
)
from _reference import assert_equal_trees, autograd_grad, directional_derivative
from torch.testing import assert_close

import functx

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")

OPTIONS = [
    {},
    {"scale": 0.3},
    {"is_causal": True},
    {"bias": (2, 4, 5, 5)},
    {"bias": (1, 1, 5, 5)},
    {"key": (2, 2, 5, 8)},
    {"key": (2, 4, 7, 8), "is_causal": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ", ".join(map(str, o)) or "plain")
@pytest.mark.parametrize("name", ACCELERATORS)
def test_kernels_of_accelerators(name, options):
    """Their operators, on the CPU, by stand-ins that return what they do."""
    options = dict(options)
    key = options.pop("key", (2, 4, 5, 8))
    bias = options.pop("bias", None)
    if bias is not None and name == "flash":
        pytest.skip("flash attention takes no bias")
    bias = None if bias is None else torch.randn(bias, dtype=torch.float64)
    case = Case(name, query=(2, 4, 5, 8), key=key)
    primals = case.inputs()
    tangents = like(primals)

    def fused(q, k, v):
        return ACCELERATORS[name](q, k, v, bias, **options)

    def written(q, k, v):
        return attend(q, k, v, bias, from_end=name == "flash", **options)

    def total(jvp, f):
        return lambda *args: jvp(f, args[:3], args[3:]).sin().sum()

    with accelerator_kernels_on_cpu():
        moved = functx.jvp(fused, primals, tangents)[1]
        assert_close(moved, directional_derivative(written, primals, tangents))
        gradients = functx.grad(loss_of(fused), argnums=INPUTS)
        assert_equal_trees(gradients(*primals), autograd_grad(loss_of(written), *primals))
        actual = functx.jvp(gradients, primals, tangents)[1]
        assert_equal_trees(actual, written_gradient_jvp(written, primals, tangents))
        args = (*primals, *tangents)
        actual = functx.grad(total(Functx.jvp, fused), argnums=tuple(range(6)))(*args)
        assert_equal_trees(actual, autograd_grad(total(written_jvp, written), *args))
        args = tuple(torch.stack([x, x.flip(-1)]) for x in args)
        actual = functx.vmap(lambda *a: Functx.jvp(fused, a[:3], a[3:]))(*args)
        expected = loop(lambda *a: written_jvp(written, a[:3], a[3:]), (True,) * 6, args)
        assert_close(actual, expected.detach())
        actual = functx.grad(loss_of(functx.vmap(functx.grad(loss_of(fused)))))(*args[:3])
        expected = autograd_grad(
            lambda *a: loop(Autograd.grad(loss_of(written)), (True,) * 3, a).sin().sum(), *args[:3]
        )
        assert_close(actual, expected[0])


@pytest.mark.parametrize("shape", MASKS[1:], ids=str)
@pytest.mark.parametrize("name", ["efficient", "overrideable"])
def test_gradient_of_a_bias_that_kernels_have(name, shape):
    q, k, v = CASES[0].inputs()
    args = (q, torch.randn(shape, dtype=torch.float64))
    tangents = like(args)

    def fused(q, bias):
        return ACCELERATORS[name](q, k, v, bias)

    def written(q, bias):
        return attend(q, k, v, bias)

    def written_gradient(q, bias):
        return torch.autograd.grad(loss_of(written)(q, bias), bias, create_graph=True)[0]

    with accelerator_kernels_on_cpu():
        gradients = functx.grad(loss_of(fused), argnums=(0, 1))
        actual = functx.jvp(gradients, args, tangents)[1]
        assert_equal_trees(actual, written_gradient_jvp(written, args, tangents))
        gradient = functx.grad(loss_of(fused), argnums=1)
        third = functx.grad(loss_of(lambda *a: Functx.jvp(gradient, a, tangents)), argnums=(0, 1))
        expected = autograd_grad(
            loss_of(lambda *a: written_jvp(written_gradient, a, tangents)), *args
        )
        assert_equal_trees(third(*args), expected)
