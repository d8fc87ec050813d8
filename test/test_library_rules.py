"""Rules that PyTorch's `register_vmap` was given, for operators that it has no CustomOpDef for."""

import subprocess
import sys
import textwrap

import pytest
import torch
from _custom_ops import Recorder, define_product, in_numpy, looping, product_rule, with_rule
from _reference import assert_equal_trees, randn
from torch import Tensor
from torch.testing import assert_close

import functx
from functx import vmap


def define_scale(namespace, overload=""):
    name = f"{namespace}::scale{overload}"
    torch.library.define(name, "(Tensor x, float by) -> Tensor")
    torch.library.impl(name, "cpu", lambda x, by: in_numpy(lambda a: a * by)(x))
    return name


@pytest.mark.parametrize("overload", ["", ".twice"])
@pytest.mark.usefixtures("no_loop")
def test_register_vmap_on_a_defined_operator(overload, namespace):
    name = define_scale(namespace, overload)
    rule = Recorder(lambda info, in_dims, x, by: (x * by, in_dims[0]))
    torch.library.register_vmap(name, rule)
    x = randn(3, 4)
    scale = getattr(torch.ops, namespace).scale
    assert_close(vmap(lambda x: scale(x, 2.0), 1)(x), x.T * 2)
    assert [in_dims for _, in_dims, _, _ in rule.calls] == [(0, None)]


@looping
def test_register_vmap_as_a_decorator_and_again(namespace):
    name = define_scale(namespace)
    scale = getattr(torch.ops, namespace).scale
    x = randn(3, 4)
    with torch.library._scoped_library(namespace, "FRAGMENT") as lib:

        @torch.library.register_vmap(name, lib=lib)
        def first(info, in_dims, x, by):
            return x * 100, 0

        assert_close(vmap(lambda x: scale(x, 2.0))(x), x * 100)
    assert_close(vmap(lambda x: scale(x, 2.0))(x), x * 2)  # the rule went with its library
    torch.library.register_vmap(scale.default, lambda info, in_dims, x, by: (x * by + 1, 0))
    assert_close(vmap(lambda x: scale(x, 2.0))(x), x * 2 + 1)


def test_a_rule_of_a_custom_op_can_be_replaced(namespace):
    product, rule = with_rule("method", namespace)
    x, y = randn(3, 4), randn(3, 4)
    product.register_vmap(lambda info, in_dims, x, y: (x + y, 0))
    assert_close(vmap(product)(x, y), x + y)
    assert not rule.calls


def test_an_operator_that_is_defined_anew(namespace):
    """As when a cell of a notebook is run again, edited."""
    define_product(namespace).register_vmap(product_rule)
    x, y = randn(3, 4), randn(4)
    assert_close(vmap(getattr(torch.ops, namespace).product, (0, None))(x, y), x * y)

    @torch.library.custom_op(f"{namespace}::product", mutates_args=())
    def product(x: Tensor, by: float) -> tuple[Tensor, Tensor]:
        return x * by, x / by

    product.register_vmap(lambda info, in_dims, x, by: ((x * by, x / by), in_dims[0]))
    assert_equal_trees(vmap(lambda x: product(x, 2.0))(x), (x * 2, x / 2))


@looping
def test_a_vmap_kernel_that_is_no_rule_leaves_the_loop(namespace):
    name = define_scale(namespace)
    with torch.library._scoped_library(namespace, "FRAGMENT") as lib:
        lib.impl("scale", lambda x, by: x, "FuncTorchBatched")
        x = randn(3, 4)
        assert_close(vmap(lambda x: getattr(torch.ops, namespace).scale(x, 2.0))(x), x * 2)
    assert functx._library_rules.find(name) is None


def test_rules_registered_before_the_import():
    program = """
        import warnings
        import torch
        from torch import Tensor

        warnings.simplefilter("error")

        @torch.library.custom_op("early::double", mutates_args=())
        def double(x: Tensor) -> Tensor:
            assert x.dim() == 1
            return x * 2

        double.register_vmap(lambda info, in_dims, x: (x * 2, in_dims[0]))
        for name in ("triple", "quadruple"):
            factor = 3 if name == "triple" else 4
            torch.library.define(f"early::{name}", "(Tensor x) -> Tensor")
            torch.library.impl(f"early::{name}", "cpu", lambda x, by=factor: x * by)
            torch.library.register_vmap(
                f"early::{name}", lambda info, in_dims, x, by=factor: (x * by, in_dims[0])
            )

        import functx

        x = torch.ones(3, 4)
        assert functx.vmap(double)(x).eq(2).all()
        assert functx.vmap(torch.ops.early.triple)(x).eq(3).all()
        assert functx.vmap(torch.ops.early.quadruple)(x).eq(4).all()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_triton_op_shares_the_mechanism(namespace):
    """Its body may call Triton kernels; without a GPU it is made of PyTorch's operators."""

    @torch.library.triton_op(f"{namespace}::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        assert x.dim() == 1
        return x * 2

    rule = Recorder(lambda info, in_dims, x: (x * 2, in_dims[0]))
    twice.register_vmap(rule)
    x = randn(3, 4)
    assert_close(vmap(twice)(x), x * 2)
    assert len(rule.calls) == 1
