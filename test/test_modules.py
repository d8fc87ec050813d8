"""torch.nn.Module inside transforms: tied weights, buffers, batch normalisation in training."""

import copy

import pytest
import torch
from _reference import autograd_grad, forward_ad_jvp, randn, stack_trees
from torch.testing import assert_close

import functx

# ---- parameters and buffers ---------------------------------------------------------------------


class Tied(torch.nn.Module):
    """The same weight in two places, and a buffer."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.second = torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return self.second(self.first(x).tanh()) * self.scale


@pytest.fixture
def tied():
    return Tied().double()


def tied_loss(first, second, model, x):
    """With the two weights as two variables."""
    hidden = torch.tanh(first @ x + model.first.bias)
    return ((second @ hidden + model.second.bias) * model.scale).square().sum()


@pytest.mark.parametrize("tie_weights", [True, False])
def test_tied_weights(tied, tie_weights):
    weight, xs = tied.first.weight.detach().clone(), randn(4, 3)

    def loss(weight, x):
        parameters = {"first.weight": weight}
        y = functx.functional_call(tied, parameters, (x,), tie_weights=tie_weights)
        return y.square().sum()

    def expected(x):
        uses = autograd_grad(lambda a, b: tied_loss(a, b, tied, x), weight, weight)
        return uses[0] + uses[1] if tie_weights else uses[0]

    gradient = functx.grad(loss)
    assert_close(gradient(weight, xs[0]).detach(), expected(xs[0]))
    batched = functx.vmap(gradient, (None, 0))(weight, xs)
    assert_close(batched.detach(), torch.stack([expected(x) for x in xs]))
    _, slope = functx.jvp(lambda w: loss(w, xs[0]), (weight,), (xs[:3],))
    assert_close(slope.detach(), (expected(xs[0]) * xs[:3]).sum())


def test_an_ensemble_of_tied_modules():
    models = [Tied().double() for _ in range(3)]
    parameters, buffers = functx.stack_module_state(models)
    assert "second.weight" not in parameters  # one entry for both
    x = randn(5, 3)

    def gradient(parameters, buffers, x):
        def loss(parameters):
            return functx.functional_call(models[0], (parameters, buffers), (x,)).square().sum()

        return functx.grad(loss)(parameters)

    actual = functx.vmap(gradient, (0, 0, None))(parameters, buffers, x)
    for index, model in enumerate(models):
        names, values = zip(*model.named_parameters(), strict=True)
        expected = torch.autograd.grad(model(x).square().sum(), values)
        for name, value in zip(names, expected, strict=True):
            assert_close(actual[name][index].detach(), value)


def test_parameters_of_a_module_are_constants_of_a_gradient_in_its_input():
    model, x = torch.nn.Linear(3, 1).double(), randn(4, 3)
    gradient = functx.vmap(functx.grad(lambda x: model(x).square().sum()))(x)
    gradient.sum().backward()
    by_hand = copy.deepcopy(model)
    by_hand.zero_grad()
    (2 * by_hand(x) * by_hand.weight).sum().backward()
    assert_close(model.weight.grad, by_hand.weight.grad)
    assert_close(model.bias.grad, by_hand.bias.grad)


# ---- batch normalisation ------------------------------------------------------------------------

# With running statistics and without: a layer for minibatches of the shape.
NORMS = {
    "BatchNorm1d": ((6, 3), lambda **options: torch.nn.BatchNorm1d(3, **options)),
    "BatchNorm2d": ((2, 3, 4, 4), lambda **options: torch.nn.BatchNorm2d(3, **options)),
    "BatchNorm3d": ((2, 3, 2, 2, 2), lambda **options: torch.nn.BatchNorm3d(3, **options)),
    "cumulative": ((6, 3), lambda **o: torch.nn.BatchNorm1d(3, momentum=None, **o)),
    "not-affine": ((6, 3), lambda **o: torch.nn.BatchNorm1d(3, affine=False, **o)),
    "InstanceNorm1d": (
        (2, 3, 4),
        lambda track_running_stats=True: torch.nn.InstanceNorm1d(
            3, affine=True, track_running_stats=track_running_stats
        ),
    ),
}
each = pytest.mark.parametrize("name", NORMS)


def per_example(model, xs):
    """Outputs and gradients of the inputs, by a loop; and nothing is written to the model."""
    model = copy.deepcopy(model)
    outputs = [model(x).detach() for x in xs]
    gradients = [autograd_grad(lambda x: model(x).pow(3).sum(), x)[0] for x in xs]
    return torch.stack(outputs), torch.stack(gradients)


def check_per_example(model, xs):
    outputs, gradients = per_example(model, xs)
    assert_close(functx.vmap(model)(xs).detach(), outputs)
    gradient = functx.vmap(functx.grad(lambda x: model(x).pow(3).sum()))
    assert_close(gradient(xs).detach(), gradients)


@each
def test_training_under_vmap_says_what_to_do(name):
    shape, make = NORMS[name]
    norm, xs = make().double(), randn(4, *shape)
    for f in (norm, functx.grad(lambda x: norm(x).sum())):
        with pytest.raises(RuntimeError, match=r"functx\.vmap: batch_norm") as error:
            functx.vmap(f)(xs)
        for remedy in ("GroupNorm", "track_running_stats=False", "replace_all_batch_norm_modules_"):
            assert remedy in str(error.value)


@each
def test_remedy_no_running_statistics(name):
    shape, make = NORMS[name]
    check_per_example(make(track_running_stats=False).double(), randn(4, *shape))


@pytest.mark.parametrize("name", [name for name in NORMS if name != "InstanceNorm1d"])
def test_remedy_replace_all_batch_norm_modules(name):
    shape, make = NORMS[name]
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Sequential(make())).double()
    assert functx.experimental.replace_all_batch_norm_modules_(model) is model
    check_per_example(model, randn(4, *shape))


def test_remedy_group_norm():
    check_per_example(torch.nn.GroupNorm(3, 6).double(), randn(4, 2, 6, 5))


@each
def test_evaluation(name):
    shape, make = NORMS[name]
    norm = make().double()
    norm(randn(*shape))  # statistics that are not zero and one
    check_per_example(norm.eval(), randn(4, *shape))


@each
def test_training_without_vmap_is_that_of_pytorch(name):
    """And updates the running statistics, which torch.func refuses."""
    shape, make = NORMS[name]
    x, tangent = randn(*shape), randn(*shape)
    cube = lambda norm: lambda x: norm(x).pow(3).sum()
    programs = [
        (lambda n: functx.grad(cube(n))(x), lambda n: autograd_grad(cube(n), x)[0]),
        (
            lambda n: functx.jvp(cube(n), (x,), (tangent,)),
            lambda n: forward_ad_jvp(cube(n), (x,), (tangent,)),
        ),
    ]
    for program, reference in programs:
        norm = make().double()
        plain = copy.deepcopy(norm)
        actual, expected = program(norm), reference(plain)
        assert_close(actual, expected)
        for own, theirs in zip(norm.buffers(), plain.buffers(), strict=True):
            assert_close(own, theirs)
            assert not own.requires_grad
            assert not functx._C.is_wrapper(own)


def test_an_ensemble_in_training_updates_the_statistics_of_each():
    models = [
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
        for _ in range(3)
    ]
    parameters, buffers = functx.stack_module_state(models)
    x = randn(6, 3)

    def gradient(parameters, buffers):
        def loss(parameters):
            y = functx.functional_call(models[0], (parameters, buffers), (x,))
            return y.pow(3).sum(), y

        return functx.grad(loss, has_aux=True)(parameters)

    gradients, outputs = functx.vmap(gradient)(parameters, buffers)
    assert_close(outputs, torch.stack([model(x) for model in models]))
    expected = []
    for model in models:
        fresh = copy.deepcopy(model)
        names, values = zip(*fresh.named_parameters(), strict=True)
        slopes = torch.autograd.grad(fresh(x).pow(3).sum(), values)
        expected.append(dict(zip(names, slopes, strict=True)))
    for name, value in stack_trees(expected).items():
        assert_close(gradients[name].detach(), value)
    for name, buffer in buffers.items():
        assert_close(buffer, torch.stack([dict(m.named_buffers())[name] for m in models]))
