"""vmap over a batch of no examples: what one example returns, with a dimension of size 0 more."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from functx import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap


def none(*shape, dtype=torch.float32):
    return torch.empty(0, *shape, dtype=dtype)


IMAGE = (2, 3, 8, 8)
WEIGHT = torch.rand(4, 3, 3, 3)

# Functions of one example, and its shape.
FUNCTIONS = {
    "convolution": (lambda x: F.conv2d(x, WEIGHT), IMAGE),
    "transposed convolution": (lambda x: F.conv_transpose2d(x, WEIGHT.transpose(0, 1)), IMAGE),
    "pooling": (lambda x: F.max_pool2d(x, 2), IMAGE),
    "pooling of one": (lambda x: F.adaptive_avg_pool2d(x, 3), IMAGE[1:]),
    "interpolation": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
    "group norm": (lambda x: F.group_norm(x, 3), IMAGE),
    "batch norm": (lambda x: F.batch_norm(x, None, None, training=True), IMAGE),
    "layer norm": (lambda x: F.layer_norm(x, (8,)), IMAGE),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), IMAGE),
    "grid sample": (lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1)), IMAGE),
    "patches": (lambda x: F.unfold(x, 2), IMAGE),
    "renorm": (lambda x: x.renorm(2, 1, 0.5), IMAGE),
    "ravel": (lambda x: x.ravel(), IMAGE),
    "view": (lambda x: x.view(-1, 8), IMAGE),
    "meshgrid": (lambda x: torch.meshgrid(x, x, indexing="ij"), (3,)),
    "Fourier transform": (torch.fft.fft2, (3, 4)),
    "short-time Fourier transform": (
        lambda x: torch.stft(x, 8, window=torch.ones(8), return_complex=True),
        (32,),
    ),
    "cross entropy": (lambda x: F.cross_entropy(x, torch.tensor([1, 0])), (2, 3)),
    "determinant": (torch.linalg.det, (3, 3)),
    "inverse": (torch.linalg.inv, (3, 3)),
    "cholesky": (torch.linalg.cholesky, (3, 3)),
    "solve": (lambda x: torch.linalg.solve(x, torch.ones(3)), (3, 3)),
    "max": (lambda x: x.max(0), (3,)),
    "median": (torch.median, (3,)),
    "empty example": (lambda x: x.sum(), (0,)),
    "cdist": (lambda x: torch.cdist(x, x), (3, 4)),
    "lstm": (torch.nn.LSTM(4, 5), (6, 2, 4)),
    "encoder": (torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0), (3, 2, 4)),
}


def leaves(result):
    return torch.utils._pytree.tree_flatten(result)[0]


def check_like(actual, example):
    """`actual` is the result over none for a function that gives `example` for one."""
    for a, e in zip(leaves(actual), leaves(example), strict=True):
        assert a.shape == (0, *e.shape)
        assert a.dtype == e.dtype


def well_conditioned(shape):
    if len(shape) == 2 and shape[0] == shape[1]:
        return torch.eye(shape[0]) + 0.1
    return torch.rand(shape)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_result_has_the_shape_of_one_example(name):
    function, shape = FUNCTIONS[name]
    example = function(well_conditioned(shape))
    check_like(vmap(function)(none(*shape)), example)
    moved = vmap(function, in_dims=-1, out_dims=-1)(none(*shape).movedim(0, -1))
    for y, e in zip(leaves(moved), leaves(example), strict=True):
        assert y.shape == (*e.shape, 0)
    for outer, inner in (0, 2), (2, 0), (0, 0):
        nested = vmap(vmap(function))(torch.empty(outer, inner, *shape))
        for y, e in zip(leaves(nested), leaves(example), strict=True):
            assert y.shape == (outer, inner, *e.shape)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_have_the_shape_of_one_example(name):
    function, shape = FUNCTIONS[name]

    def total(x):
        outputs = [
            y.abs() for y in leaves(function(x)) if y.dtype.is_floating_point or y.is_complex()
        ]
        return sum(y.sum() for y in outputs)

    x, xs = well_conditioned(shape), none(*shape)
    check_like(vmap(grad(total))(xs), x)
    check_like(vmap(lambda x: vjp(total, x)[1](torch.ones(())))(xs), (x,))
    check_like(vmap(lambda x: jvp(total, (x,), (x,))[1])(xs), total(x))
    assert not grad(lambda xs: vmap(total)(xs).sum())(xs).any()
    out, tangent = jvp(lambda xs: vmap(total)(xs), (xs,), (xs,))
    assert out.shape == tangent.shape == (0,)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd, hessian])
def test_jacobians(jacobian):
    function = lambda x: F.avg_pool1d(x.sin()[None], 2)[0]
    example = jacobian(function)(torch.rand(4))
    check_like(vmap(jacobian(function))(none(4)), example)


# ---- what all examples share ---------------------------------------------------------------------


def shared_gradients(function, *shared):
    """By plain autograd and by vjp, of a function of no examples and of what they share."""
    tracked = [w.clone().requires_grad_() for w in shared]
    output = vmap(function, in_dims=(0, *(None,) * len(shared)))(none(*IMAGE), *tracked)
    assert output.requires_grad
    plain = torch.autograd.grad(output.sum(), tracked)
    _, pullback = vjp(lambda *ws: vmap(lambda x: function(x, *ws))(none(*IMAGE)), *shared)
    return zip(plain, pullback(torch.zeros_like(output)), strict=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: F.conv2d(x, w),
        lambda x, w: F.conv2d(F.max_pool2d(x, 2), w),
        lambda x, w: F.linear(x, w.flatten(1)[:, :8]),
        lambda x, w: F.group_norm(x, 3, w.flatten()[:3]),
        lambda x, w: F.prelu(x, w.flatten()[:3]),
    ],
)
def test_gradient_of_what_is_shared_is_zero(function):
    for weight in WEIGHT, torch.zeros_like(WEIGHT):
        for by_autograd, by_vjp in shared_gradients(function, weight):
            assert_close(by_autograd, torch.zeros_like(weight))
            assert_close(by_vjp, torch.zeros_like(weight))


def test_an_infinite_derivative_times_nothing_is_zero(namespace):
    """The operator refuses a batch of none, and its derivative by the shared tensor is infinite."""

    @torch.library.custom_op(f"{namespace}::root", mutates_args=())
    def root(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        assert x.numel() > 0
        return x * scale.sqrt()

    root.register_autograd(
        lambda ctx, g: (g * ctx.saved_tensors[1].sqrt(), (g * ctx.saved_tensors[0]).sum() / 0.0),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    scale = torch.zeros((), requires_grad=True)
    output = vmap(root, in_dims=(0, None))(none(3), scale)
    assert output.shape == (0, 3)
    (gradient,) = torch.autograd.grad(output.sum(), scale)
    assert gradient.item() == 0


def test_results_that_no_example_touches_are_what_they_are():
    shared = torch.rand(3)
    batched, alone = vmap(
        lambda x, y: (F.conv1d(x[None], y[None, None]), y.exp()),
        in_dims=(0, None),
        out_dims=(0, None),
    )(none(5), shared)
    assert batched.shape == (0, 1, 3)
    assert_close(alone, shared.exp())


# ---- other ways in and out -----------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_chunks(chunk_size):
    assert vmap(torch.sin, chunk_size=chunk_size)(none(2)).shape == (0, 2)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_random_numbers(randomness):
    def function(x):
        return torch.rand(2) + x, F.dropout(x), torch.randn_like(x), torch.normal(x, 1.0)

    results = vmap(function, randomness=randomness)(none(2))
    assert [y.shape for y in results] == [(0, 2)] * 4


def test_random_numbers_are_refused_as_with_examples():
    for operator in F.dropout, torch.rand_like, torch.bernoulli:
        with pytest.raises(RuntimeError, match="randomness"):
            vmap(operator)(none(2))


def test_writes():
    def function(x):
        y = x.clone()
        y.add_(1).mul_(x)
        y[0] = 2
        y[1:].copy_(x[1:])
        z = x.new_zeros(3)
        z.index_put_((torch.tensor([0, 1]),), x[:2])
        torch.sin(x, out=y)
        return y, z, y.T.unsqueeze_(0)

    results = vmap(function)(none(3))
    assert [y.shape for y in results] == [(0, 3), (0, 3), (0, 1, 3)]


def test_writes_into_what_is_shared_are_refused_as_with_examples():
    for write in torch.Tensor.add_, torch.Tensor.copy_, torch.Tensor.bernoulli_:
        with pytest.raises(RuntimeError, match="same for every example"):
            vmap(lambda x, write=write: write(torch.zeros(3), x), randomness="same")(none(3))


def test_data_dependent_results():
    assert vmap(torch.nonzero)(none(3)).shape == (0, 0, 1)
    assert vmap(lambda x: x[x > 0])(none(3)).shape[0] == 0
    for call in lambda x: x.sum().item(), lambda x: bool(x.sum() > 0):
        with pytest.raises(RuntimeError, match=r"differs between|data-dependent"):
            vmap(lambda x, call=call: x * call(x))(none(3))


def test_errors_are_those_of_one_example():
    for function, shape in (
        (lambda x: F.conv2d(x, WEIGHT), (2, 5, 8, 8)),
        (lambda x: x.view(7, -1), (2, 3)),
        (lambda x: F.max_pool2d(x, 9), IMAGE),
        (lambda x: torch.fft.fft(x, 0), (3,)),
    ):
        with pytest.raises(RuntimeError) as of_one:
            function(torch.rand(shape))
        with pytest.raises(RuntimeError) as of_none:
            vmap(function)(none(*shape))
        assert type(of_none.value) is type(of_one.value)


def test_views_stay_views():
    def function(x):
        y = x.clone()
        for view in y.view(-1), y.reshape(2, -1), y.flatten(), y.unflatten(0, (-1, 1)), y.ravel():
            assert view is y or view._base is y
        return y.sum()

    assert vmap(grad(function))(none(4)).shape == (0, 4)


# ---- operators and Functions of the user's -------------------------------------------------------


def test_an_operator_without_a_rule_runs_on_one_made_up_example(namespace):
    seen = []

    @torch.library.custom_op(f"{namespace}::pairs", mutates_args=())
    def pairs(x: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((x.shape, at.tolist()))
        return torch.outer(x, x), at + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        products, places = vmap(pairs)(none(3), none(2, dtype=torch.int64))
    assert seen == [((3,), [0, 0])]
    assert products.shape == (0, 3, 3)
    assert places.shape == (0, 2)
    assert places.dtype == torch.int64


def test_a_rule_of_the_users_gets_the_batch_as_it_is(namespace):
    @torch.library.custom_op(f"{namespace}::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @twice.register_vmap
    def rule(info, in_dims, x):
        assert info.batch_size == x.size(in_dims[0]) == 0
        return 2 * x, in_dims[0]

    assert vmap(twice)(none(3)).shape == (0, 3)


class Cube(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


def test_autograd_function():
    assert vmap(Cube.apply)(none(3)).shape == (0, 3)
    assert vmap(grad(lambda x: Cube.apply(x).sum()))(none(3)).shape == (0, 3)
    assert vmap(hessian(lambda x: Cube.apply(x).sum()))(none(3)).shape == (0, 3, 3)


# ---- inputs and outputs without elements -------------------------------------------------------


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobian_by_no_elements(jacobian):
    assert jacobian(torch.linalg.det)(torch.empty(0, 0)).shape == (0, 0)
    assert jacobian(torch.sin)(torch.empty(2, 0)).shape == (2, 0, 2, 0)
    assert jacobian(lambda x: x[:0])(torch.rand(3)).shape == (0, 3)
    assert jacobian(lambda x: x.sum().expand(2))(torch.empty(0)).shape == (2, 0)
    blocks = jacobian(lambda x, y: x.sum() * y, argnums=(0, 1))(torch.empty(0, 4), torch.rand(2))
    assert [block.shape for block in blocks] == [(2, 0, 4), (2, 2)]
    value, aux = jacobian(lambda x: (x.sum(), x.shape[0] + x.sum()), has_aux=True)(torch.empty(0))
    assert value.shape == (0,)
    assert aux.item() == 0


def test_jacfwd_draws_by_no_elements():
    function = lambda x: (x.sum() + torch.rand(2), torch.rand(3))
    value, aux = jacfwd(function, has_aux=True, randomness="different")(torch.empty(0))
    assert value.shape == (2, 0)
    assert aux.shape == (3,)


def test_hessian_by_no_elements():
    assert hessian(torch.sum)(torch.empty(0)).shape == (0, 0)
    assert hessian(torch.linalg.det)(torch.empty(0, 0)).shape == (0, 0, 0, 0)
