"""Per-sample gradients, Jacobians and products with the Hessian through whole models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _models import PROBLEMS, make_cnn, make_mlp, make_transformer
from _reference import assert_equal_trees, autograd_grad, directional_derivative, randn, stack_trees
from torch.testing import assert_close
from torch.utils._pytree import tree_map

import functx

# No operator of these models may fall back to a loop over the examples.
pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")

each = pytest.mark.parametrize("name", PROBLEMS)


def loss_gradient(problem, x, y):
    """By plain autograd, for one example."""
    names, values = zip(*problem.params.items(), strict=True)
    gradients = autograd_grad(
        lambda *v: problem.loss(dict(zip(names, v, strict=True)), x, y), *values
    )
    return dict(zip(names, gradients, strict=True))


def loss_hessian_product(problem, x, y, tangents):
    """Reverse over reverse, by plain autograd."""
    names, values = zip(*problem.params.items(), strict=True)
    leaves = [v.clone().requires_grad_() for v in values]
    loss = problem.loss(dict(zip(names, leaves, strict=True)), x, y)
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    inner = sum((g * tangents[n]).sum() for g, n in zip(gradients, names, strict=True))
    products = torch.autograd.grad(inner, leaves, materialize_grads=True)
    return dict(zip(names, products, strict=True))


def tangents_like(params):
    return tree_map(lambda p: torch.linspace(-1, 1, p.numel(), dtype=p.dtype).view_as(p), params)


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_per_sample_gradients(name, dtype):
    problem = PROBLEMS[name](dtype)
    gradient = functx.vmap(functx.grad(problem.loss), in_dims=(None, 0, 0))
    actual = gradient(problem.params, problem.x, problem.y)
    expected = stack_trees(
        [loss_gradient(problem, x, y) for x, y in zip(problem.x, problem.y, strict=True)]
    )
    assert_equal_trees(actual, expected)


@each
def test_per_sample_gradients_in_chunks_with_value(name):
    problem = PROBLEMS[name]()
    gradient = functx.vmap(functx.grad_and_value(problem.loss), in_dims=(None, 0, 0), chunk_size=2)
    actual, losses = gradient(problem.params, problem.x, problem.y)
    pairs = list(zip(problem.x, problem.y, strict=True))
    assert_equal_trees(actual, stack_trees([loss_gradient(problem, x, y) for x, y in pairs]))
    assert_close(losses, torch.stack([problem.loss(problem.params, x, y) for x, y in pairs]))


@each
def test_gradient_of_a_batched_loss(name):
    """grad outside, vmap inside: the gradient of the sum over examples."""
    problem = PROBLEMS[name]()

    def total(params):
        losses = functx.vmap(problem.loss, in_dims=(None, 0, 0))(params, problem.x, problem.y)
        return losses.sum()

    expected = [loss_gradient(problem, x, y) for x, y in zip(problem.x, problem.y, strict=True)]
    summed = {key: sum(e[key] for e in expected) for key in expected[0]}
    assert_equal_trees(functx.grad(total)(problem.params), summed)


@each
def test_jvp_in_the_parameters(name):
    problem = PROBLEMS[name]()
    params, tangents = problem.params, tangents_like(problem.params)
    names = list(params)
    x = problem.x[0]

    def predict(*values):
        return problem.predict(dict(zip(names, values, strict=True)), x)

    output, tangent = functx.jvp(lambda p: problem.predict(p, x), (params,), (tangents,))
    assert_close(output, predict(*params.values()))
    # A smaller step: the kinks of relu and max_pool must stay outside the stencil.
    expected = directional_derivative(
        predict, tuple(params.values()), tuple(tangents.values()), step=1e-4
    )
    assert_close(tangent, expected)


@each
def test_vmap_of_jvp(name):
    problem = PROBLEMS[name]()
    tangents = tangents_like(problem.params)

    def derivative(x, y):
        return functx.jvp(lambda p: problem.loss(p, x, y), (problem.params,), (tangents,))[1]

    actual = functx.vmap(derivative)(problem.x, problem.y)
    expected = [
        sum((g * tangents[n]).sum() for n, g in loss_gradient(problem, x, y).items())
        for x, y in zip(problem.x, problem.y, strict=True)
    ]
    assert_close(actual, torch.stack(expected))


@each
@pytest.mark.parametrize("mode", ["forward-reverse", "reverse-reverse", "reverse-forward"])
def test_hessian_vector_product(name, mode):
    problem = PROBLEMS[name]()
    params, tangents = problem.params, tangents_like(problem.params)
    x, y = problem.x[0], problem.y[0]

    def loss(params):
        return problem.loss(params, x, y)

    if mode == "forward-reverse":
        actual = functx.jvp(functx.grad(loss), (params,), (tangents,))[1]
    elif mode == "reverse-reverse":
        actual = functx.vjp(functx.grad(loss), params)[1](tangents)[0]
    else:
        actual = functx.grad(lambda p: functx.jvp(loss, (p,), (tangents,))[1])(params)
    assert_equal_trees(actual, loss_hessian_product(problem, x, y, tangents))


@each
def test_batch_of_hessian_vector_products(name):
    problem = PROBLEMS[name]()
    params, tangents = problem.params, tangents_like(problem.params)

    def product(x, y):
        gradient = functx.grad(lambda p: problem.loss(p, x, y))
        return functx.jvp(gradient, (params,), (tangents,))[1]

    expected = [
        loss_hessian_product(problem, x, y, tangents)
        for x, y in zip(problem.x, problem.y, strict=True)
    ]
    assert_equal_trees(functx.vmap(product)(problem.x, problem.y), stack_trees(expected))


@each
@pytest.mark.parametrize("jacobian", [functx.jacrev, functx.jacfwd], ids=["jacrev", "jacfwd"])
def test_jacobian_of_the_prediction_in_the_last_bias(name, jacobian):
    """And of all parameters in reverse mode, row by row with plain autograd."""
    problem = PROBLEMS[name]()
    params = problem.params
    x = problem.x[0]
    chosen = list(params) if jacobian is functx.jacrev else list(params)[-1:]

    def predict(part):
        return problem.predict(params | part, x)

    actual = jacobian(predict)({n: params[n] for n in chosen})
    output = problem.predict(params, x)
    for row in range(0, output.numel(), max(1, output.numel() // 5)):
        gradients = autograd_grad(
            lambda *v, row=row: predict(dict(zip(chosen, v, strict=True))).flatten()[row],
            *(params[n] for n in chosen),
        )
        for n, gradient in zip(chosen, gradients, strict=True):
            assert_close(actual[n].flatten(0, output.dim() - 1)[row], gradient)


def test_jacobian_in_the_input_of_a_batch():
    problem = make_cnn()
    actual = functx.vmap(functx.jacrev(lambda x: problem.predict(problem.params, x)))(problem.x)
    for x, block in zip(problem.x, actual, strict=True):
        for row in range(3):
            (expected,) = autograd_grad(
                lambda x, row=row: problem.predict(problem.params, x)[row], x
            )
            assert_close(block[row], expected)


@pytest.mark.slow
def test_full_hessian_of_the_mlp():
    problem = make_mlp()
    params = {n: p for n, p in problem.params.items() if n.endswith("bias")}

    def loss(part):
        return problem.loss(problem.params | part, problem.x[0], problem.y[0])

    actual = functx.hessian(loss)(params)
    for name, p in params.items():
        for i in range(p.numel()):
            unit = {n: torch.zeros_like(q) for n, q in problem.params.items()}
            unit[name].view(-1)[i] = 1
            column = loss_hessian_product(problem, problem.x[0], problem.y[0], unit)
            for other in params:
                assert_close(actual[other][name][..., i], column[other])


def test_ensemble():
    models = [make_mlp().model for _ in range(3)]
    params, buffers = torch.func.stack_module_state(models)
    x = randn(4, 5)

    def predict(params, buffers, x):
        return torch.func.functional_call(models[0], (params, buffers), (x,))

    each_input = functx.vmap(predict, in_dims=(0, 0, None))(params, buffers, x)
    assert_close(each_input, torch.stack([m(x) for m in models]))
    own_input = functx.vmap(predict)(params, buffers, x[:3])
    assert_close(own_input, torch.stack([m(r) for m, r in zip(models, x[:3], strict=True)]))


def test_dropout_draws_another_mask_for_each_sample():
    problem = make_cnn(dropout=0.5)
    x, y = problem.x[:1].expand(8, -1, -1, -1), problem.y[:1].expand(8)
    gradient = functx.grad(problem.loss)
    params = problem.params
    different = functx.vmap(gradient, (None, 0, 0), randomness="different")(params, x, y)
    same = functx.vmap(gradient, (None, 0, 0), randomness="same")(params, x, y)
    assert different["head.weight"].flatten(1).unique(dim=0).shape[0] > 4
    assert_close(same["head.weight"], same["head.weight"][:1].expand(8, -1, -1))
    # A dropped feature has no gradient in the head.
    assert (different["head.weight"] == 0).all(1).any(1).all()
    with pytest.raises(RuntimeError, match="random"):
        functx.vmap(gradient, (None, 0, 0))(params, x, y)


def test_parameters_that_require_grad():
    """The usual way to call it: named_parameters as they are, and a backward through the result."""
    problem = make_transformer()
    params = dict(problem.model.named_parameters())
    gradients = functx.vmap(functx.grad(problem.loss), in_dims=(None, 0, 0))(
        params, problem.x, problem.y
    )
    norms = sum(g.square().sum() for g in gradients.values())
    norms.backward()
    expected = {n: torch.zeros_like(p) for n, p in problem.params.items()}
    for x, y in zip(problem.x, problem.y, strict=True):
        doubled = {n: 2 * g for n, g in loss_gradient(problem, x, y).items()}
        for n, product in loss_hessian_product(problem, x, y, doubled).items():
            expected[n] += product
    assert_equal_trees({n: p.grad for n, p in params.items()}, expected)


@pytest.mark.slow
def test_no_loop_in_a_fresh_process():
    """The warning comes once per operator and process: ask where no test has used it up."""
    here = Path(__file__)
    command = [sys.executable, "-W", "error:functx.vmap", "-m", "pytest", "-q", "-x", str(here)]
    command += ["-p", "no:cacheprovider", "-k", "not fresh_process and not hessian_of_the_mlp"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=here.parent.parent,
        env=environment,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-2000:]
    assert "loop over the examples" not in result.stdout + result.stderr
