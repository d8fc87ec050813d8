"""The interface of vmap: dims, pytrees, nesting, chunks, and what a batched tensor looks like."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from _reference import assert_equal_trees, autograd_grad, loop_vmap, randn, stack_trees
from torch.testing import assert_close

import functx

Pair = namedtuple("Pair", ["left", "right"])


def scaled_product(x, y):
    return (x @ y).sin() * x.sum()


IN_DIMS = [
    (0, (3, 2, 4), (3, 4)),
    (1, (2, 3, 4), (4, 3)),
    (-1, (2, 4, 3), (4, 3)),
    ((0, None), (3, 2, 4), (4,)),
    ((None, 0), (2, 4), (3, 4)),
    ((-2, 1), (2, 3, 4), (4, 3)),
    ((2, -1), (2, 4, 3), (4, 3)),
]


@pytest.mark.parametrize("out_dim", [0, 1, -1])
@pytest.mark.parametrize(("in_dims", "x_shape", "y_shape"), IN_DIMS)
def test_in_dims_and_out_dim(in_dims, x_shape, y_shape, out_dim):
    x, y = randn(*x_shape), randn(*y_shape)
    expected = loop_vmap(scaled_product, in_dims, out_dim)(x, y)
    assert_close(functx.vmap(scaled_product, in_dims, out_dim)(x, y), expected)


@pytest.mark.parametrize("out_dims", [(0, 0), (1, -1), (2, 0), (-3, 1)])
def test_one_out_dim_per_output(out_dims):
    x = randn(4, 2, 3)

    def f(x):
        return x.sin(), x.T + 1

    assert_equal_trees(functx.vmap(f, out_dims=out_dims)(x), loop_vmap(f, 0, out_dims)(x))


def test_out_dim_none_returns_an_unbatched_value_as_it_is():
    x, y = randn(4, 2), randn(3)
    outputs = functx.vmap(lambda x: (x * 2, y * 2), out_dims=(0, None))(x)
    assert_equal_trees(outputs, (x * 2, y * 2))


def test_in_dims_as_a_pytree():
    x, y, z = randn(4, 2), randn(2, 4), randn(2)

    def f(arguments, scale):
        return arguments["x"] * arguments["rest"][0] + arguments["rest"][1] * scale

    arguments = {"x": x, "rest": [y, z]}
    actual = functx.vmap(f, in_dims=({"x": 0, "rest": [1, None]}, None))(arguments, 3.0)
    assert_close(actual, x * y.T + z * 3.0)


def test_one_in_dim_for_a_whole_pytree():
    x, y, z = randn(2, 4), randn(3, 4), randn(2)

    def f(pair, z):
        return pair["a"].sum() + pair["b"][0].sum() * z

    actual = functx.vmap(f, in_dims=(1, None))({"a": x, "b": (y,)}, z)
    assert_close(actual, x.sum(0)[:, None] + y.sum(0)[:, None] * z)


def test_pytree_outputs():
    x = randn(3, 2)

    def f(x):
        return OrderedDict(pair=Pair(x.sin(), [x.cos()]), nothing=(), one=x.sum())

    assert_equal_trees(functx.vmap(f)(x), stack_trees([f(row) for row in x]))


def test_out_dims_as_a_pytree_and_as_a_prefix():
    x = randn(3, 2)

    def f(x):
        return {"a": (x, x + 1), "b": x * 2}

    actual = functx.vmap(f, out_dims={"a": (1, 0), "b": 1})(x)
    assert_equal_trees(actual, {"a": (x.T, x + 1), "b": (x * 2).T})
    actual = functx.vmap(f, out_dims={"a": 1, "b": 0})(x)
    assert_equal_trees(actual, {"a": (x.T, (x + 1).T), "b": x * 2})


def test_keyword_arguments_are_not_batched():
    x, scale = randn(3, 2), randn(3, 2)

    def f(x, *, scale, power=2):
        assert scale.shape == (3, 2)
        return (x * scale) ** power

    assert_close(functx.vmap(f)(x, scale=scale), (x[:, None] * scale) ** 2)
    assert_close(functx.vmap(f)(x, scale=scale, power=3), (x[:, None] * scale) ** 3)


def test_arguments_that_are_not_tensors():
    x = randn(3, 2)

    def f(x, exponent, name, none):
        assert name == "sum"
        assert none is None
        return getattr(x**exponent, name)()

    actual = functx.vmap(f, in_dims=(0, None, None, None))(x, 3, "sum", None)
    assert_close(actual, (x**3).sum(1))


def test_closure_over_a_plain_and_over_an_outer_tensor():
    xs, ys, weight = randn(3, 2), randn(4, 2), randn(2, 2)

    def outer(x):
        return functx.vmap(lambda y: (weight @ y).dot(x) + x)(ys)

    expected = torch.stack([torch.stack([(weight @ y).dot(x) + x for y in ys]) for x in xs])
    assert_close(functx.vmap(outer)(xs), expected)


def test_outputs_that_do_not_depend_on_the_input():
    constant = randn(2)
    outputs = functx.vmap(lambda x: (constant, torch.ones(2), x.new_zeros(())))(randn(3, 1))
    assert_close(outputs[0], constant.expand(3, 2))
    assert_close(outputs[1], torch.ones(3, 2))
    assert_close(outputs[2], torch.zeros(3, dtype=torch.float64))


def test_constant_output_moves_to_its_out_dim():
    constant = randn(2)
    assert_close(
        functx.vmap(lambda x: constant, out_dims=1)(randn(3)), constant[:, None].expand(2, 3)
    )


def test_output_that_depends_on_the_outer_level_only():
    xs, ys = randn(2), randn(3)
    actual = functx.vmap(lambda x: functx.vmap(lambda y: x)(ys))(xs)
    assert_close(actual, xs[:, None].expand(2, 3))


def test_identity_and_the_same_tensor_twice():
    x = randn(3, 2)
    assert_close(functx.vmap(lambda x: x, out_dims=1)(x), x.T)
    assert_equal_trees(functx.vmap(lambda x, y: (x, x, x * y), (0, 0))(x, x), (x, x, x * x))
    square = randn(3, 3)
    assert_close(functx.vmap(torch.mul, (0, 1))(square, square), square * square.T)
    assert_close(functx.vmap(torch.dot, (None, 0))(x[0], x), x @ x[0])


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("out_dims", [0, (1, -1)])
def test_chunk_size(chunk_size, out_dims):
    x, y = randn(7, 2), randn(2, 7)
    sizes = []

    def f(x, y):
        sizes.append(1)
        return x * y, torch.outer(x, y)

    actual = functx.vmap(f, (0, 1), out_dims, chunk_size=chunk_size)(x, y)
    assert len(sizes) == (1 if chunk_size is None else -(-7 // chunk_size))
    assert_equal_trees(actual, loop_vmap(f, (0, 1), out_dims)(x, y))


def test_batch_of_one():
    x = randn(1, 3)
    assert_close(functx.vmap(lambda x: x.cumsum(0) / x.sum())(x), x.cumsum(1) / x.sum())


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.complex128, torch.int64, torch.uint8, torch.bool]
)
def test_dtypes(dtype):
    x = torch.tensor([[1, 0, 3], [2, 1, 0]]).to(dtype)
    actual = functx.vmap(lambda x: torch.cat([x, x[:1]]))(x)
    assert_close(actual, torch.cat([x, x[:, :1]], 1), rtol=0, atol=0)


def test_a_batched_tensor_looks_like_one_example():
    x = randn(2, 3, 5, 4)
    seen = []

    def f(x):
        assert x.shape == (2, 5, 4)
        assert (x.dim(), x.ndim, x.numel(), len(x)) == (3, 3, 40, 2)
        assert x.size(-1) == 4
        assert x.dtype == torch.float64
        assert x.device == torch.device("cpu")
        assert not x.is_complex()
        assert x.is_floating_point()
        assert not x.requires_grad
        assert isinstance(x, torch.Tensor)
        first, second = x
        assert first.shape == (5, 4)
        seen.append(repr(x))
        return first.T @ second + sum(row.sum() for row in x)

    actual = functx.vmap(f, in_dims=1)(x)
    expected = torch.stack([e[0].T @ e[1] + e.sum() for e in x.unbind(1)])
    assert_close(actual, expected)
    assert len(seen) == 1


def test_functions_keep_their_name_and_modules_work():
    assert functx.vmap(scaled_product).__name__ == "scaled_product"
    module = torch.nn.Linear(3, 2)
    x = torch.randn(4, 5, 3)
    assert_close(functx.vmap(module)(x), module(x))
    assert_close(functx.vmap(torch.sin)(x), x.sin())


def test_as_a_decorator():
    @functx.vmap
    def f(x, y):
        return x.dot(y)

    x, y = randn(3, 2), randn(3, 2)
    assert_close(f(x, y), (x * y).sum(1))


def test_expanded_and_strided_inputs():
    row = randn(4)
    x = row.expand(3, 4)
    y = randn(8, 6)[::2, 1::2].T
    assert_close(functx.vmap(lambda a, b: a * b + a[0])(x, y), x * y + row[0])


def test_autograd_through_vmap_sums_the_gradient_of_a_shared_weight():
    weight, x = randn(2, 3), randn(4, 3)

    def f(weight, x):
        return functx.vmap(lambda row: (weight @ row).tanh())(x).square().sum()

    def loop(weight, x):
        return sum((weight @ row).tanh().square().sum() for row in x)

    leaf_weight, leaf_x = weight.clone().requires_grad_(), x.clone().requires_grad_()
    f(leaf_weight, leaf_x).backward()
    expected = autograd_grad(loop, weight, x)
    assert_equal_trees((leaf_weight.grad, leaf_x.grad), expected)


def test_vmap_does_not_change_its_input():
    x = randn(3, 2)
    before, version = x.clone(), x._version
    functx.vmap(lambda x: x.add(1).mul_(2))(x)
    assert_close(x, before, rtol=0, atol=0)
    assert x._version == version


def test_autocast_inside_vmap():
    x, weight = torch.randn(3, 4), torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = functx.vmap(lambda x: x @ weight)(x)
        expected = torch.stack([row @ weight for row in x])
    assert actual.dtype == torch.bfloat16
    assert_close(actual, expected)


def test_under_no_grad_nothing_is_recorded():
    x = randn(3, 2).requires_grad_()
    with torch.no_grad():
        assert not functx.vmap(torch.sin)(x).requires_grad
    assert not functx.vmap(lambda x: x.detach().sin())(x).requires_grad
    assert functx.vmap(torch.sin)(x).requires_grad
