"""What the user documentation of torch.func promises, and what it warns of.

Each behaviour is checked with the functions of functx, and with those that programs get from
torch.func, functorch and torch while `functx.dropin` is installed.
"""

import importlib
import types

import pytest
import torch
from _reference import autograd_hessian, randn
from torch.testing import assert_close

import functx
from functx import dropin

NAMES = """vmap grad grad_and_value vjp jvp jacrev jacfwd hessian linearize functionalize
functional_call stack_module_state replace_all_batch_norm_modules_ rearrange debug_unwrap"""


@pytest.fixture(params=["functx", "torch.func", "functorch"])
def F(request):
    if request.param == "functx":
        yield functx
        return
    with dropin.installed():
        names = types.SimpleNamespace()
        for name in NAMES.split():
            # functorch lacks the newer ones; torch.func of PyTorch 2.11, rearrange.
            owners = (request.param, "torch.func", "functorch.einops")
            owner = next(o for o in owners if hasattr(importlib.import_module(o), name))
            exec(f"from {owner} import {name}", vars(names))
        names.vmap = torch.vmap if request.param == "torch.func" else names.vmap
        yield names


def total(x):
    return x.sin().sum()


# ---- grad ---------------------------------------------------------------------------------------


def test_grad_is_of_the_first_argument(F):
    x, y = randn(3), randn(3)
    f = lambda x, y: (x * y.exp()).sum()
    assert_close(F.grad(f)(x, y), y.exp())
    assert_close(F.grad(f, argnums=1)(x, y), x * y.exp())
    assert_close(F.grad(f, argnums=-1)(x, y), x * y.exp())
    assert_close(F.grad(f, argnums=(0, 1))(x, y), (y.exp(), x * y.exp()))
    assert_close(F.grad(f, argnums=(1, 0))(x, y), (x * y.exp(), y.exp()))
    assert_close(F.grad(f, argnums=(0,))(x, y), (y.exp(),))


def test_grad_of_grad(F):
    x = randn()
    assert_close(F.grad(F.grad(torch.sin))(x), -x.sin())
    assert_close(F.grad(F.grad(F.grad(torch.sin)))(x), -x.cos())


def test_grad_with_aux(F):
    x = randn(3)
    gradient, aux = F.grad(lambda x: (total(x), {"prediction": x * 2}), has_aux=True)(x)
    assert_close((gradient, aux), (x.cos(), {"prediction": 2 * x}))
    assert not aux["prediction"].requires_grad
    gradient, (value, aux) = F.grad_and_value(lambda x: (total(x), x), has_aux=True)(x)
    assert_close((gradient, value, aux), (x.cos(), total(x), x))


def test_grad_and_value(F):
    x = randn(3)
    gradient, value = F.grad_and_value(total)(x)
    assert_close((gradient, value), (x.cos(), total(x)))


def test_grad_passes_keywords_on(F):
    x = randn(3)
    f = lambda x, *, scale: (x * scale).sum()
    assert_close(F.grad(f)(x, scale=3.0), torch.full_like(x, 3))


def test_grad_of_pytrees(F):
    tree = {"w": randn(2), "rest": [randn(), (randn(3),)]}
    f = lambda t: total(t["w"]) + t["rest"][0] ** 2 + total(t["rest"][1][0])
    assert_close(
        F.grad(f)(tree),
        {"w": tree["w"].cos(), "rest": [2 * tree["rest"][0], (tree["rest"][1][0].cos(),)]},
    )


def test_grad_wants_one_number(F):
    with pytest.raises(RuntimeError, match="scalar"):
        F.grad(torch.sin)(randn(3))
    with pytest.raises(RuntimeError, match="Tensor"):
        F.grad(lambda x: (x.sum(),))(randn(3))
    with pytest.raises(RuntimeError, match="float"):
        F.grad(lambda x: x.sum())(torch.arange(3))


def test_no_grad_inside_has_its_effect_and_outside_none(F):
    x = randn()

    def f(x):
        with torch.no_grad():
            shift = x**2
        return x**2 - shift

    assert_close(F.grad(f)(x), 2 * x)
    with torch.no_grad():
        assert_close(F.grad(f)(x), 2 * x)
        assert_close(F.grad(F.grad(lambda x: x**3))(x), 6 * x)


def test_the_result_depends_on_what_requires_grad_outside(F):
    w = randn(3).requires_grad_()
    x = randn(3)
    gradient = F.grad(lambda x: (w * x.sin()).sum())(x)
    assert gradient.requires_grad
    assert_close(torch.autograd.grad(gradient.sum(), w)[0], x.cos())
    assert not F.grad(total)(x).requires_grad


# ---- vjp, jvp and the Jacobians -----------------------------------------------------------------


def test_vjp(F):
    x, y = randn(3), randn(3)
    output, vjp_fn = F.vjp(lambda x, y: (x * y, x.sum()), x, y)
    assert_close(output, (x * y, x.sum()))
    assert_close(vjp_fn((y, x[0])), (y * y + x[0], x * y))
    assert_close(vjp_fn((x, x[0])), (x * y + x[0], x * x))
    output, vjp_fn, aux = F.vjp(lambda x: (x.sin(), x), x, has_aux=True)
    assert_close((output, vjp_fn(y)[0], aux), (x.sin(), x.cos() * y, x))


def test_vjp_of_trees_and_its_checks(F):
    x = randn(3)
    _, vjp_fn = F.vjp(lambda x: {"a": x.sin(), "b": 2 * x}, x)
    assert_close(vjp_fn({"a": x, "b": x})[0], x * x.cos() + 2 * x)
    with pytest.raises(RuntimeError, match="structure"):
        vjp_fn((x, x))


def test_jvp(F):
    x, y, t = randn(3), randn(3), randn(3)
    assert_close(F.jvp(torch.sin, (x,), (t,)), (x.sin(), t * x.cos()))
    assert_close(F.jvp(torch.mul, (x, y), (t, x)), (x * y, t * y + x * x))
    result = F.jvp(lambda x: (x.sin(), x), (x,), (t,), has_aux=True)
    assert_close(result, (x.sin(), t * x.cos(), x))
    with pytest.raises(RuntimeError, match="tuple"):
        F.jvp(torch.sin, x, t)
    with pytest.raises(RuntimeError, match="structure"):
        F.jvp(torch.sin, (x,), (t, t))


def test_jvp_strict(F):
    x = randn(3)
    constant = lambda x: torch.ones(2)
    assert_close(F.jvp(constant, (x,), (x,)), (torch.ones(2), torch.zeros(2)))
    with pytest.raises(RuntimeError, match="independent"):
        F.jvp(constant, (x,), (x,), strict=True)


def test_hessian_vector_products(F):
    f = lambda x: (x.sin() * x.sum()).sum()
    x, v = randn(4), randn(4)
    expected = autograd_hessian(f, x) @ v
    assert_close(F.jvp(F.grad(f), (x,), (v,))[1], expected)
    assert_close(F.vjp(F.grad(f), x)[1](v)[0], expected)
    assert_close(F.linearize(F.grad(f), x)[1](v), expected)


@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
def test_jacobians(F, name):
    jacobian = getattr(F, name)
    x, y = randn(3), randn(2)
    f = lambda x, y: torch.outer(x.sin(), y)
    by_x = torch.einsum("ik,j->ijk", x.cos().diag(), y)
    by_y = torch.einsum("i,jk->ijk", x.sin(), torch.eye(2).double())
    assert_close(jacobian(f)(x, y), by_x)
    assert_close(jacobian(f, argnums=1)(x, y), by_y)
    assert_close(jacobian(f, argnums=(0, 1))(x, y), (by_x, by_y))
    result = jacobian(lambda x: (x.sin(), x), has_aux=True)(x)
    assert_close(result, (x.cos().diag(), x))
    trees = jacobian(lambda t: {"s": t["a"].sin(), "p": t["a"].sum()})({"a": x})
    assert_close(trees, {"s": {"a": x.cos().diag()}, "p": {"a": torch.ones_like(x)}})


def test_jacobians_by_hand(F):
    """The tour's way from a loop to vmap over vjp and jvp."""
    x = randn(3)
    f = lambda x: x.sin() * x.sum()
    _, vjp_fn = F.vjp(f, x)
    eye = torch.eye(3, dtype=x.dtype)
    rows = F.vmap(vjp_fn)(eye)[0]
    columns = F.vmap(lambda t: F.jvp(f, (x,), (t,))[1], out_dims=1)(eye)
    assert_close(rows, columns)
    assert_close(rows, F.jacrev(f)(x))
    for chunk_size in (1, 2, 7):
        assert_close(F.jacrev(f, chunk_size=chunk_size)(x), rows)


def test_hessian_by_every_order(F):
    f = lambda x: (x.sin() * x.prod()).sum()
    x = randn(3)
    expected = autograd_hessian(f, x)
    assert_close(F.hessian(f)(x), expected)
    for outer in (F.jacrev, F.jacfwd):
        for inner in (F.jacrev, F.jacfwd):
            assert_close(outer(inner(f))(x), expected)
    batch = randn(4, 3)
    assert_close(F.vmap(F.hessian(f))(batch), torch.stack([autograd_hessian(f, x) for x in batch]))


def test_linearize(F):
    x, t = randn(3, 3), randn(3, 3)
    output, jvp_fn = F.linearize(torch.sin, x)
    assert_close((output, jvp_fn(t), jvp_fn(2 * t)), (x.sin(), t * x.cos(), 2 * t * x.cos()))


# ---- vmap ---------------------------------------------------------------------------------------


def test_vmap_over_any_dimension(F):
    x, y = randn(2, 5), randn(5, 2)
    assert_close(F.vmap(torch.dot)(x, y.t()), (x * y.t()).sum(1))
    assert_close(F.vmap(torch.dot, in_dims=1)(x, y.t()), (x * y.t()).sum(0))
    assert_close(F.vmap(torch.dot, in_dims=(1, None))(x, x[:, 0]), x.t() @ x[:, 0])
    assert_close(F.vmap(torch.dot, in_dims=(-1, 0))(x, y), (x * y.t()).sum(0))
    batched = F.vmap(F.vmap(torch.dot))
    assert_close(batched(x[None, :], x[None, :]), (x * x).sum(1)[None])


def test_vmap_of_trees(F):
    x, y = randn(2, 5), randn(5)
    f = lambda d: torch.dot(d["x"], d["y"])
    assert_close(F.vmap(f, in_dims=({"x": 0, "y": None},))({"x": x, "y": y}), x @ y)
    outputs = F.vmap(lambda x: (x, {"s": x.sum()}), out_dims=(1, 0))(x)
    assert_close(outputs, (x.t(), {"s": x.sum(1)}))


def test_vmap_puts_outputs_where_it_is_told(F):
    x = randn(2, 5)
    assert_close(F.vmap(lambda x: x**2, out_dims=1)(x), (x**2).t())
    assert_close(F.vmap(lambda x: x**2, out_dims=-1)(x), (x**2).t())
    assert_close(F.vmap(lambda x, y: (x + y, y), (0, None), (0, None))(x, x[0]), (x + x[0], x[0]))


def test_vmap_passes_keywords_on_unmapped(F):
    x, y = randn(2, 5), randn(5)
    assert_close(F.vmap(lambda x, y=None: x @ y)(x, y=y), x @ y)


def test_vmap_in_chunks(F):
    x = randn(7, 3)
    sizes = []

    def f(x):
        sizes.append(F.debug_unwrap(x).shape[0])
        return x.sin()

    for chunk_size, expected in [(None, [7]), (3, [3, 3, 1]), (1, [1] * 7), (9, [7])]:
        sizes.clear()
        assert_close(F.vmap(f, chunk_size=chunk_size)(x), x.sin())
        assert sizes == expected
    with pytest.raises(ValueError, match="chunk_size"):
        F.vmap(f, chunk_size=0)


def test_vmap_maps_a_function_that_ignores_the_batch(F):
    x = randn(4)
    assert_close(F.vmap(lambda x: torch.tensor(2.0))(x), torch.full((4,), 2.0))


def test_vmap_checks_its_inputs(F):
    x = randn(2, 3)
    with pytest.raises(ValueError, match="same size"):
        F.vmap(torch.mul)(x, x.t())
    with pytest.raises(ValueError, match="no inputs"):
        F.vmap(torch.sin)()
    with pytest.raises(ValueError, match="in_dim=2"):
        F.vmap(torch.sin, 2)(x)
    with pytest.raises(ValueError, match="not compatible"):
        F.vmap(torch.mul, (0,))(x, x)
    with pytest.raises(ValueError, match="at least one Tensor"):
        F.vmap(torch.sin, (None,))(x)
    with pytest.raises(ValueError, match="only return Tensors"):
        F.vmap(lambda x: x.shape)(x)


def test_per_sample_gradients(F):
    model = torch.nn.Linear(5, 2).double()
    xs, ys = randn(6, 5), randn(6, 2)
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params, x, y):
        return (F.functional_call(model, params, (x,)) - y).square().mean()

    actual = F.vmap(F.grad(loss), in_dims=(None, 0, 0))(params, xs, ys)
    for index in range(6):
        value = (model(xs[index]) - ys[index]).square().mean()
        expected = torch.autograd.grad(value, list(model.parameters()))
        assert_close(tuple(g[index] for g in actual.values()), expected)


def test_ensembles(F):
    models = [torch.nn.Linear(5, 2).double() for _ in range(3)]
    params, buffers = F.stack_module_state(models)
    base = torch.nn.Linear(5, 2, device="meta")
    xs = randn(4, 5)
    call = lambda p, b, x: F.functional_call(base, (p, b), (x,))
    actual = F.vmap(call, (0, 0, None))(params, buffers, xs)
    assert_close(actual, torch.stack([model(xs) for model in models]))


# ---- Limits of the interface --------------------------------------------------------------------


def test_a_value_that_leaks_by_a_side_effect_is_of_no_use(F):
    kept = []

    def f(x):
        kept.append(x)
        return x.sum()

    F.vmap(f)(randn(3, 2))
    with pytest.raises(RuntimeError, match="vmap"):
        kept[0] + 1
    kept.clear()
    F.jvp(f, (randn(3),), (randn(3),))
    with pytest.raises(RuntimeError, match="jvp"):
        kept[0] + 1


def test_intermediates_are_returned_as_aux_instead(F):
    x = randn(3, 2)
    _, kept = F.vmap(F.grad(lambda x: (x.sum(), x * 2), has_aux=True))(x)
    assert_close(kept, 2 * x)


def test_autograd_inside_of_a_transform(F):
    x = randn(3)

    def f(x):
        return torch.autograd.grad(x.sin().sum(), x, create_graph=True)[0].sum()

    leaf = x.clone().requires_grad_()
    assert_close(f(leaf), x.cos().sum())
    assert_close(F.grad(f)(x), -x.sin())


def test_in_place_operators(F):
    x, y = randn(3), randn(4, 3)

    def allowed(x):
        result = x.clone()
        result.add_(1).mul_(x)
        result[0] = 2 * x[1]
        return result

    def expected(x):
        return torch.cat([2 * x[1:2], (x[1:] + 1) * x[1:]])

    assert_close(F.vmap(allowed)(y), torch.stack([expected(row) for row in y]))
    jacobian = torch.autograd.functional.jacobian(expected, x)
    assert_close(F.jacrev(allowed)(x), jacobian)
    assert_close(F.jacfwd(allowed)(x), jacobian)
    # The examples' values would have to go into one tensor.
    with pytest.raises(RuntimeError, match=r"(?s)vmap.*(in-place|inplace|writes)"):
        F.vmap(lambda x, y: x.add_(y), in_dims=(None, 0))(x.clone(), y)
    # The other way round is fine: every example has its own.
    assert_close(F.vmap(lambda y, x: y.add_(x), in_dims=(0, None))(y.clone(), x), y + x)


def test_mutating_a_batched_argument_changes_it(F):
    y = randn(4, 3)
    changed = y.clone()
    F.vmap(lambda y: y.mul_(2))(changed)
    assert_close(changed, 2 * y)


def test_factories_do_not_know_the_batch(F):
    x = randn(4, 3)

    def into_zeros(x):
        result = torch.zeros(3, dtype=x.dtype)
        result.add_(x)
        return result

    def into_new_zeros(x):
        result = x.new_zeros(3)
        result.add_(x)
        return result

    with pytest.raises(RuntimeError, match="vmap"):
        F.vmap(into_zeros)(x)
    assert_close(F.vmap(into_new_zeros)(x), x)
    assert_close(F.vmap(lambda x: torch.zeros_like(x).add_(x))(x), x)


def test_out_arguments(F):
    x = randn(4, 3)
    out = torch.empty(3, dtype=x.dtype)
    with pytest.raises(RuntimeError):
        F.vmap(lambda x: torch.sin(x, out=out))(x)
    assert_close(F.vmap(lambda x: torch.sin(x, out=torch.empty_like(x)))(x), x.sin())


@pytest.mark.parametrize(
    "read",
    [lambda x: x.item(), float, bool, lambda x: x if x > 0 else -x, lambda x: x.tolist()],
    ids=["item", "float", "bool", "if", "tolist"],
)
def test_values_of_a_batch_cannot_be_read(F, read):
    def f(x):
        read(x)
        return x

    with pytest.raises(RuntimeError, match="vmap"):
        F.vmap(f)(randn(3))


def test_where_takes_the_place_of_a_branch(F):
    x = randn(6)
    relu = F.vmap(lambda x: torch.where(x > 0, x, torch.zeros_like(x)))
    assert_close(relu(x), x.relu())


def test_branches_are_fine_without_vmap(F):
    f = lambda x: x.sin() if x > 0 else x.exp()
    for x in (torch.tensor(2.0), torch.tensor(-2.0)):
        expected = x.cos() if x > 0 else x.exp()
        assert_close(F.grad(f)(x), expected)
        assert_close(F.jvp(f, (x,), (torch.ones(()),))[1], expected)
        assert F.grad(lambda x: x * x.item())(x) == x


@pytest.mark.parametrize(
    "operator",
    [torch.nonzero, lambda x: x[x > 0], torch.unique, lambda x: x.masked_select(x > 0)],
    ids=["nonzero", "mask", "unique", "masked_select"],
)
def test_shapes_that_depend_on_data(F, operator):
    with pytest.raises(RuntimeError, match="vmap"):
        F.vmap(operator)(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]]))
    x = randn(3)
    assert_close(F.grad(lambda x: total(x) + operator(x.detach()).to(x.dtype).sum())(x), x.cos())


def test_random_operators(F):
    x = randn(5, 3)
    noisy = lambda x: x + torch.randn(3, dtype=x.dtype)
    with pytest.raises(RuntimeError, match="random"):
        F.vmap(noisy)(x)
    with pytest.raises(RuntimeError, match="random"):
        F.vmap(noisy, randomness="sometimes")
    same = F.vmap(noisy, randomness="same")(x) - x
    assert_close(same, same[:1].expand(5, 3))
    different = F.vmap(noisy, randomness="different")(x) - x
    assert len({tuple(row) for row in different.tolist()}) == 5
    # Only vmap asks: the others call the function once.
    torch.manual_seed(0)
    noise = torch.randn(3, dtype=x.dtype)
    torch.manual_seed(0)
    assert_close(F.grad(lambda x: (noisy(x) ** 2).sum())(x[0]), 2 * (x[0] + noise))


def test_dropout_and_the_other_forms_of_randomness(F):
    x = torch.ones(64, 32)
    drop = lambda x: torch.nn.functional.dropout(x, 0.5)
    with pytest.raises(RuntimeError, match="random"):
        F.vmap(drop)(x)
    same, different = (F.vmap(drop, randomness=r)(x) for r in ("same", "different"))
    assert (same == same[0]).all()
    assert not (different == different[0]).all()
    drawn = F.vmap(lambda x: torch.bernoulli(x / 2), randomness="different")(x)
    assert ((drawn == 0) | (drawn == 1)).all()
    in_jacfwd = F.jacfwd(lambda x: x * torch.rand(()), randomness="same")(x[0])
    assert_close(in_jacfwd, in_jacfwd[0, 0] * torch.eye(32))


def test_batch_norm_in_training_and_its_remedies(F):
    layers = torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)
    model = torch.nn.Sequential(*layers).double().train()
    x = randn(5, 6, 3)
    with pytest.raises(RuntimeError, match="vmap"):
        F.vmap(lambda x: model(x))(x)
    F.replace_all_batch_norm_modules_(model)
    assert_close(F.vmap(model)(x), torch.stack([model(each) for each in x]))
    without = torch.nn.BatchNorm1d(3, track_running_stats=False).double()
    assert_close(F.vmap(without)(x), torch.stack([without(each) for each in x]))
    grouped = torch.nn.GroupNorm(1, 3).double()
    assert_close(F.vmap(grouped)(x), torch.stack([grouped(each) for each in x]))


def test_printing_inside(F):
    seen = []

    def f(x):
        seen.append((repr(x), F.debug_unwrap(x)))
        return x.sum()

    x = randn(2, 3)
    F.vmap(f)(x)
    text, value = seen[0]
    assert "BatchedTensor" in text
    assert_close(value, x)


def test_everything_nests(F):
    x = randn(4, 3)
    f = lambda x: (x.sin() * x.prod()).sum()
    hessians = torch.stack([autograd_hessian(f, row) for row in x])
    assert_close(F.vmap(F.jacfwd(F.grad(f)))(x), hessians)
    trace = F.grad(lambda x: F.vmap(F.grad(f))(x).square().sum())(x)
    gradients = torch.stack([torch.autograd.functional.jacobian(f, row) for row in x])
    assert_close(trace, 2 * torch.einsum("bij,bj->bi", hessians, gradients))
    laplacians = F.vmap(lambda x: F.vmap(lambda v: v @ F.jvp(F.grad(f), (x,), (v,))[1])(EYE).sum())
    assert_close(laplacians(x), hessians.diagonal(dim1=1, dim2=2).sum(1))


EYE = torch.eye(3, dtype=torch.float64)
