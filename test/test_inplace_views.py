"""In-place operators and views under every transform: writes reach the base, with gradients."""

import pytest
import torch
from _reference import (
    assert_equal_trees,
    autograd_grad,
    directional_derivative,
    loop_vmap,
    numeric_grad,
    numeric_hessian,
    numeric_jacobian,
    randn,
)
from torch.testing import assert_close

import functx

# Functions R^3 -> R^3 that write in place, each in its own way.


def into_new_zeros(x):
    y = x.new_zeros(3)
    y[0] = x.sum()
    y[1:].mul_(x[0])
    y[2] += x.prod()
    return y.sin()


def into_zeros_like(x):
    y = torch.zeros_like(x)
    y[1:] = x[:2] ** 2
    y[0].add_(x[2])
    return y * x


def into_clone(x):
    y = x.clone()
    y[0] *= x[1]
    y[::2].add_(x[1:]).sin_()
    return y + x


def chained_views(x):
    y = x.repeat(2, 1)
    y.T[1:, 0].mul_(x[2])
    y.view(-1)[4:] = x[:2] * x[0]
    return y.transpose(0, 1).select(1, 0) * y.unbind(0)[1]


def view_taken_before_the_write(x):
    y = x * 1
    head, diagonal = y[:2], torch.diag(y).diagonal()
    y.mul_(x)
    head.exp_()
    return y + diagonal


def view_of_a_view(x):
    y = (x * 2).unsqueeze(0).expand(3, 3).clone()
    block = y[1:].narrow(1, 0, 2)
    block.copy_(torch.outer(x[:2], x[1:]))
    block[0].zero_()
    return y.sum(0) * x


def views_read_after_a_write(x):
    y = x.cos() * 2
    first, middle = y.narrow(0, 0, 1), y[1:2]
    y[:2].sub_(x[1:])
    y.unfold(0, 2, 1)[1].mul_(x[0])
    return torch.cat([y.split(1)[2] * first, middle, x.sin().tensor_split([1])[0] * first])


def through_as_strided(x):
    y = torch.outer(x, x)
    y.as_strided((3,), (4,)).mul_(x)
    return y.sum(0)


def scatter_writes(x):
    index = torch.tensor([2, 0, 1])
    y = x.cos()
    y.index_put_((index,), x, accumulate=True)
    y.index_add_(0, index, x * x).scatter_(0, index[:1], x[:1] * 3)
    y.masked_fill_(torch.tensor([False, True, False]), 0.5)
    y.index_fill_(0, torch.tensor([0]), 2.0)
    return y * x


def fills_and_copies(x):
    y = x * x
    z = y.clone()
    y.fill_(2.0).add_(x)
    z[1].copy_(x[0] * x[2])
    z[2].fill_(x[1])
    return y * z


def reductions_out_of_views(x):
    y = x.outer(x)
    y.diagonal().mul_(2).add_(x.sum())
    y[:, 0] /= 2 + x.cos()
    return y.sum(1) - y.mT[0]


def reshapes_in_place(x):
    y = x.outer(x.sin())
    y.unsqueeze_(0).squeeze_(0).t_()
    y.transpose_(0, 1).mul_(x)
    y.T.tanh_()
    return y.sum(0)


def set_item_with_masks_and_lists(x):
    y = x.new_ones(4, 3)
    y[[0, 2]] = x
    y[1, torch.tensor([0, 2])] = x[:2]
    y[..., -1] *= x.sum()
    y[3:, None] = x * 2
    return y.prod(0)


FUNCTIONS = [
    into_new_zeros,
    into_zeros_like,
    into_clone,
    chained_views,
    view_taken_before_the_write,
    view_of_a_view,
    views_read_after_a_write,
    through_as_strided,
    scatter_writes,
    fills_and_copies,
    reductions_out_of_views,
    reshapes_in_place,
    set_item_with_masks_and_lists,
]

each = pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)


def total(f):
    return lambda x: (f(x) * torch.arange(1.0, 4.0, dtype=x.dtype)).sum()


@each
def test_vmap(f):
    x = randn(4, 3)
    assert_close(functx.vmap(f)(x), loop_vmap(f)(x))
    assert_close(functx.vmap(f, in_dims=1, out_dims=1)(x.T), loop_vmap(f)(x).T)


@each
def test_nested_vmap(f):
    x = randn(2, 4, 3)
    assert_close(functx.vmap(functx.vmap(f))(x), loop_vmap(loop_vmap(f))(x))


@each
def test_grad(f):
    x = randn(3)
    assert_close(functx.grad(total(f))(x), numeric_grad(total(f), x))


@each
def test_vmap_of_grad(f):
    x = randn(4, 3)
    expected = torch.stack([numeric_grad(total(f), row) for row in x])
    assert_close(functx.vmap(functx.grad(total(f)))(x), expected)


@each
def test_grad_of_vmap(f):
    x = randn(4, 3)
    actual = functx.grad(lambda x: functx.vmap(total(f))(x).square().sum())(x)
    expected = numeric_grad(lambda x: loop_vmap(total(f))(x).square().sum(), x)
    assert_close(actual, expected)


@each
def test_vjp(f):
    x, cotangent = randn(3), randn(3)
    output, pullback = functx.vjp(f, x)
    assert_close(output, f(x))
    assert_close(pullback(cotangent)[0], cotangent @ numeric_jacobian(f, x))


@each
def test_jvp(f):
    x, tangent = randn(3), randn(3)
    expected = (f(x), directional_derivative(f, (x,), (tangent,)))
    assert_equal_trees(functx.jvp(f, (x,), (tangent,)), expected)


@each
def test_vmap_of_jvp(f):
    x, tangent = randn(4, 3), randn(4, 3)
    actual = functx.vmap(lambda x, t: functx.jvp(f, (x,), (t,))[1])(x, tangent)
    assert_close(actual, directional_derivative(loop_vmap(f), (x,), (tangent,)))


@each
def test_jvp_of_vmap(f):
    x, tangent = randn(4, 3), randn(4, 3)
    actual = functx.jvp(functx.vmap(f), (x,), (tangent,))
    expected = (loop_vmap(f)(x), directional_derivative(loop_vmap(f), (x,), (tangent,)))
    assert_equal_trees(actual, expected)


@each
@pytest.mark.parametrize("jacobian", [functx.jacrev, functx.jacfwd], ids=["jacrev", "jacfwd"])
def test_jacobians(jacobian, f):
    x = randn(3)
    assert_close(jacobian(f)(x), numeric_jacobian(f, x))


@each
def test_hessian(f):
    x = randn(3) / 2
    assert_close(functx.hessian(f)(x), numeric_hessian(f, x))


@each
def test_vmap_of_hessian(f):
    x = randn(2, 3) / 2
    expected = torch.stack([numeric_hessian(f, row) for row in x])
    assert_close(functx.vmap(functx.hessian(f))(x), expected)


# ---- what is written to is a factory's result, or a constant from outside ----------------------


def into_torch_zeros(x):
    out = torch.zeros(3, dtype=x.dtype)
    out[0] = x.sum()
    out[1:].add_(x[1:] ** 2)
    return out


def into_torch_empty(x):
    out = torch.empty(2, 3, dtype=x.dtype)
    out[0] = x
    out[1].copy_(x.sin())
    return out.prod(0)


def into_torch_full_through_a_view(x):
    out = torch.full((3, 3), 2.0, dtype=x.dtype)
    view = out.diagonal()
    view.mul_(x)
    return out.sum(0) + view


def into_a_clone_of_a_constant(x):
    out = torch.arange(3, dtype=x.dtype).clone()
    out[1] = x.prod()
    out += x
    return out


def into_the_result_of_an_operator_on_constants(x):
    out = torch.ones(3, dtype=x.dtype) + 1
    out.mul_(x)
    return out


CONSTANT_BASES = [
    into_torch_zeros,
    into_torch_empty,
    into_torch_full_through_a_view,
    into_a_clone_of_a_constant,
    into_the_result_of_an_operator_on_constants,
]

each_constant = pytest.mark.parametrize("f", CONSTANT_BASES, ids=lambda f: f.__name__)


@each_constant
def test_writes_into_a_constant_under_jvp(f):
    x, tangent = randn(3), randn(3)
    expected = (f(x), directional_derivative(f, (x,), (tangent,)))
    assert_equal_trees(functx.jvp(f, (x,), (tangent,)), expected)


@each_constant
def test_writes_into_a_constant_under_nested_jvp(f):
    x, s, t = randn(3), randn(3), randn(3)

    def derivative(x):
        return functx.jvp(f, (x,), (s,))[1]

    expected = directional_derivative(
        lambda x: directional_derivative(f, (x,), (s,), 1e-2), (x,), (t,), 1e-2
    )
    assert_close(functx.jvp(derivative, (x,), (t,))[1], expected)


@each_constant
def test_writes_into_a_constant_under_grad_and_jacrev(f):
    x = randn(3)
    assert_close(functx.grad(total(f))(x), numeric_grad(total(f), x))
    _, pullback = functx.vjp(f, x)
    jacobian = torch.stack([pullback(row)[0] for row in torch.eye(3, dtype=x.dtype)])
    assert_close(jacobian, numeric_jacobian(f, x))
    assert_close(functx.jacrev(f)(x), numeric_jacobian(f, x))


@each_constant
def test_writes_into_a_constant_under_grad_of_grad(f):
    x = randn(3)
    actual = functx.jacrev(functx.grad(total(f)))(x)
    assert_close(actual, numeric_hessian(total(f), x))


@each_constant
def test_writes_into_a_constant_under_jacfwd(f):
    x = randn(3)
    assert_close(functx.jacfwd(f)(x), numeric_jacobian(f, x))


@each_constant
def test_writes_into_a_constant_under_hessian(f):
    x = randn(3)
    assert_close(functx.hessian(f)(x), numeric_hessian(f, x))
    assert_close(functx.jacrev(functx.jacfwd(f))(x), numeric_hessian(f, x))


@each_constant
def test_writes_into_a_constant_under_jvp_of_grad(f):
    x, tangent = randn(3), randn(3)
    actual = functx.jvp(functx.grad(total(f)), (x,), (tangent,))[1]
    assert_close(actual, numeric_hessian(total(f), x) @ tangent)


def test_an_input_may_be_written_to_and_the_caller_sees_it_under_vmap():
    x, y = randn(4, 3), randn(4)
    expected = x * y[:, None]
    out = functx.vmap(lambda x, y: x.mul_(y))(x, y)
    assert_close(out, expected)
    assert_close(x, expected)


def test_a_captured_tensor_may_be_written_to_with_what_is_the_same_for_every_example():
    buffer = torch.zeros(2)
    functx.vmap(lambda x: (buffer.add_(1), x)[1])(randn(3))
    assert_close(buffer, torch.ones(2))


def test_writes_do_not_change_saved_values_silently():
    """exp saves its result; overwriting that is an error of autograd, not a wrong gradient."""
    x = randn(3)

    def f(x):
        y = x.exp()
        y.mul_(2)
        return y.sum()

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        functx.grad(f)(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        functx.vmap(functx.grad(f))(x[None])
    assert_close(functx.jvp(f, (x,), (x,))[1], (2 * x.exp() * x).sum())


def test_detached_view_shares_memory_but_not_gradient():
    x = randn(3)

    def f(x):
        y = x * 1
        y.detach().mul_(2)
        return (y * x.detach()).sum()

    assert_close(functx.grad(f)(x), x)
    assert_close(functx.vmap(functx.grad(f))(x[None]), x[None])
    assert_close(functx.jvp(f, (x,), (x,)), (2 * x.square().sum(), x.square().sum()))


def test_grad_of_an_input_written_to_after_a_copy():
    x, y = randn(3), randn(3)

    def f(x, y):
        x = x.clone()
        x += y
        x[0] = y[1]
        return (x * x).sum()

    expected = autograd_grad(f, x, y)
    assert_equal_trees(functx.grad(f, argnums=(0, 1))(x, y), expected)
    per_sample = functx.vmap(functx.grad(f, argnums=(0, 1)), in_dims=(0, 0))(x[None], y[None])
    assert_equal_trees(per_sample, tuple(e[None] for e in expected))


# ---- resize_ ------------------------------------------------------------------------------------

SIZES = {"same": (3, 2), "fewer": (4,), "none": (0, 2), "scalar": (), "more": (3, 4)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("make", [torch.clone, lambda x: x.clone().t()])
def test_resize_keeps_what_lies_first_in_memory(make, size):
    x = randn(4, 2, 3)
    calls = [
        lambda y: y.resize_(size),
        lambda y: y.resize_as_(torch.zeros(size)),
    ]
    for call in calls:
        resized = functx.vmap(lambda x, call=call: call(make(x)))(x)
        looped = torch.stack([call(make(each)) for each in x])
        assert resized.shape == looped.shape
        kept = min(6, torch.Size(size).numel())
        assert_close(*(y.reshape(4, y[0].numel())[:, :kept] for y in (resized, looped)))


def test_resize_under_nested_vmap():
    x = randn(2, 3, 4, 5)
    f = lambda x: x.clone().resize_(2, 2)
    looped = [[f(x[i, :, j].contiguous()) for j in range(4)] for i in range(2)]
    expected = torch.stack([torch.stack(row) for row in looped])
    assert_close(functx.vmap(functx.vmap(f, in_dims=1))(x), expected)


def test_resize_of_a_permuted_example_reads_memory_as_a_loop_does():
    x = randn(4, 2, 3)
    for f in (lambda x: x.clone().t().resize_(6), lambda x: x.clone().t().resize_(2, 2)):
        assert_close(functx.vmap(f)(x), torch.stack([f(each) for each in x]))


def test_an_example_that_does_not_grow_shares_memory_with_its_views():
    def f(x):
        y = x.clone()
        y.view(-1).resize_(4).mul_(2)
        return y

    x = randn(3, 2, 3)
    assert_close(functx.vmap(f)(x), torch.stack([f(each) for each in x]))


def test_writes_into_an_example_that_has_grown():
    f = lambda x: x.new_empty(0).resize_(2, 3).fill_(1).add_(x)
    x = randn(4, 3)
    assert_close(functx.vmap(f)(x), torch.stack([f(each) for each in x]))
    f = lambda x: torch.mul(x, 2, out=x.new_empty(0))
    assert_close(functx.vmap(f)(x), 2 * x)
    assert x.shape == (4, 3)


def test_resize_to_channels_last():
    f = lambda x: x.clone().resize_(1, 3, 2, 2, memory_format=torch.channels_last)
    x = randn(2, 12)
    resized = functx.vmap(f)(x)
    assert_close(resized, torch.stack([f(each) for each in x]))
    assert resized[0].is_contiguous(memory_format=torch.channels_last)


def test_what_is_tracked_or_has_a_tangent_is_not_resized():
    x = randn(3, 2)
    f = lambda x: x.clone().resize_(1)
    with pytest.raises(RuntimeError, match="cannot resize variables that require grad"):
        functx.vmap(functx.grad(f))(x)
    with pytest.raises(RuntimeError, match=r"functx\.jvp: resize_ cannot give a tensor of shape"):
        functx.vmap(lambda x: functx.jvp(f, (x,), (x,)))(x)
    with pytest.raises(RuntimeError, match=r"functx\.jvp: resize_ cannot give a tensor of shape"):
        functx.jvp(lambda x: x.clone().resize_as_(torch.zeros(5)), (x,), (x,))


def test_constants_are_resized_under_jvp_and_grad():
    x = randn(2)
    f = lambda x: (x * torch.ones(6, dtype=x.dtype).resize_as_(torch.zeros(2))).sum()
    ones = torch.ones_like(x)
    assert_close(functx.jvp(f, (x,), (x,)), (x.sum(), x.sum()))
    assert_close(functx.grad(f)(x), ones)
    assert_close(functx.vmap(functx.grad(f))(x.expand(3, 2)), ones.expand(3, 2))
    shape_of_a_dual = lambda x: torch.ones(6, dtype=x.dtype).resize_as_(x) * x
    assert_close(functx.jvp(shape_of_a_dual, (x,), (x,)), (x, x))


def test_an_empty_result_takes_the_shape_it_needs():
    x = randn(4, 3, 3)
    f = lambda x: torch.linalg.inv_ex(x, out=(x.new_empty(0), x.new_empty(0, dtype=torch.int32)))[0]
    assert_close(functx.vmap(f)(x), torch.linalg.inv(x))
