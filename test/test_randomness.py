"""Random operators follow `randomness=`: "error" raises; "different" and "same" do as they say."""

import pytest
import torch
from _reference import randn
from torch.nn import functional as F
from torch.testing import assert_close

import functx

SIZE = 40  # large enough for two draws never to be equal by chance

# Operators that draw from a batched or unbatched tensor, or from nothing: f(x) with x of ones.
FACTORIES = {
    "rand": lambda x: torch.rand(SIZE),
    "randn": lambda x: torch.randn(2, SIZE),
    "randint": lambda x: torch.randint(0, 1000, (SIZE,)),
    "randint_low": lambda x: torch.randint(high=1000, size=(SIZE,)),
    "randperm": lambda x: torch.randperm(SIZE),
    "normal_sizes": lambda x: torch.normal(1.0, 2.0, (SIZE,)),
    "rand_float64": lambda x: torch.rand(SIZE, dtype=torch.float64),
    "empty_normal_": lambda x: torch.empty(SIZE).normal_(),
    "zeros_uniform_": lambda x: torch.zeros(SIZE).uniform_(),
}
FROM_TENSOR = {
    "new_empty_exponential_": lambda x: x.new_empty(SIZE).exponential_(),
    "rand_like": lambda x: torch.rand_like(x),
    "randn_like": lambda x: torch.randn_like(x),
    "randint_like": lambda x: torch.randint_like(x, 1000),
    "bernoulli": lambda x: torch.bernoulli(x * 0.5),
    "bernoulli_p": lambda x: torch.bernoulli(x, 0.5),
    "bernoulli_": lambda x: x.clone().bernoulli_(0.5),
    "bernoulli_tensor_": lambda x: x.clone().bernoulli_(x * 0.5),
    "normal_": lambda x: x.clone().normal_(),
    "uniform_": lambda x: x.clone().uniform_(2, 3),
    "exponential_": lambda x: x.clone().exponential_(),
    "random_": lambda x: x.clone().random_(0, 1000),
    "cauchy_": lambda x: x.clone().cauchy_(),
    "log_normal_": lambda x: x.clone().log_normal_(),
    "geometric_": lambda x: x.clone().geometric_(0.01),
    "normal_mean": lambda x: torch.normal(x, 2.0),
    "normal_std": lambda x: torch.normal(1.0, x),
    "normal_both": lambda x: torch.normal(x, x),
    "poisson": lambda x: torch.poisson(x * 50),
    "multinomial": lambda x: torch.multinomial(x, SIZE),
    "multinomial_replacement": lambda x: torch.multinomial(x, SIZE, replacement=True),
    "dropout": lambda x: F.dropout(x, 0.5),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, training=True),
    "dropout2d": lambda x: F.dropout2d(x[:, None, None, None].expand(SIZE, 1, 2, 2), 0.5),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x[:, None, None] + 1, 0.5, True),
    "rrelu": lambda x: F.rrelu(-x, 0.1, 0.9, training=True),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x),
    "dropout_module": lambda x: torch.nn.Dropout(0.5)(x),
}
ALL = FACTORIES | FROM_TENSOR
BATCH = 3


def draw(f, randomness, batched):
    """The draws of three examples, stacked. Without `batched` the operator sees a plain tensor."""
    ones = torch.ones(SIZE)
    if batched:
        return functx.vmap(f, randomness=randomness)(ones.expand(BATCH, SIZE))
    return functx.vmap(lambda _: f(ones), randomness=randomness)(torch.zeros(BATCH))


each = pytest.mark.parametrize("name", ALL)
batched_or_not = pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])


def fills_a_plain_tensor(name, batched):
    """Whether the operator writes into a tensor that all examples share: they cannot differ."""
    if name in FACTORIES:
        return name.endswith("_")
    return not batched and (name.endswith("_") or name == "gumbel_softmax")


@each
@batched_or_not
def test_error(name, batched):
    with pytest.raises(RuntimeError, match="random") as info:
        draw(ALL[name], "error", batched)
    assert "vmap" in str(info.value)
    assert "same" in str(info.value)
    assert "different" in str(info.value)


@each
def test_error_is_the_default(name):
    with pytest.raises(RuntimeError, match="random"):
        functx.vmap(ALL[name])(torch.ones(2, SIZE))


@each
@batched_or_not
def test_same(name, batched):
    draws = draw(ALL[name], "same", batched)
    expected_shape = ALL[name](torch.ones(SIZE)).shape
    assert draws.shape == (BATCH, *expected_shape)
    assert_close(draws, draws[:1].expand_as(draws), rtol=0, atol=0)
    assert draws[0].unique().numel() > 1


# Composed of other operators under vmap than outside.
COMPOSED = {
    "dropout": lambda x: F.dropout(x, 0.3),
    "dropout2d": lambda x: F.dropout2d(x[None], 0.3),
    "dropout_all": lambda x: F.dropout2d(x[None], 1.0),
    "dropout2d_": lambda x: F.dropout2d(x[None].clone(), 0.3, inplace=True),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "feature_alpha_dropout": lambda x: F.feature_alpha_dropout(x, 0.3, training=True),
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.9, training=True),
    "rrelu_": lambda x: F.rrelu(x.clone(), 0.1, 0.9, training=True, inplace=True),
    "rrelu_with_noise": lambda x: torch.ops.aten.rrelu_with_noise(
        x, torch.empty_like(x), 0.1, 0.9, True
    ),
    "rrelu_with_noise_functional": lambda x: torch.ops.aten.rrelu_with_noise_functional(
        x, torch.empty_like(x), 0.1, 0.9, True
    ),
    "rrelu_gradient": lambda x: functx.vjp(lambda y: F.rrelu(y, 0.1, 0.9, True), x)[1](x)[0],
}


@pytest.mark.parametrize("name", COMPOSED)
def test_same_is_what_a_loop_draws_that_is_seeded_anew(name):
    x = randn(BATCH, 6, 5, 4)
    examples = []
    for example in x:
        torch.manual_seed(3)
        examples.append(COMPOSED[name](example))
    torch.manual_seed(3)
    draws = functx.vmap(COMPOSED[name], randomness="same")(x)
    if isinstance(draws, tuple):
        examples = [torch.stack(column) for column in zip(*examples, strict=True)]
        assert_close(draws, tuple(examples))
    else:
        assert_close(draws, torch.stack(examples))


@each
@batched_or_not
def test_different(name, batched):
    if fills_a_plain_tensor(name, batched):
        with pytest.raises(RuntimeError, match="vmap"):
            draw(ALL[name], "different", batched)
        return
    draws = draw(ALL[name], "different", batched)
    assert draws.shape == (BATCH, *ALL[name](torch.ones(SIZE)).shape)
    assert draws.flatten(1).unique(dim=0).shape[0] == BATCH


@each
def test_dtype_and_support(name):
    """The draws come from the same set as those of a plain call."""
    plain = ALL[name](torch.ones(SIZE))
    draws = draw(ALL[name], "same", True)
    assert draws.dtype == plain.dtype
    if name in ("bernoulli", "bernoulli_", "bernoulli_p", "bernoulli_tensor_", "dropout"):
        assert set(draws.unique().tolist()) == set(plain.unique().tolist())
    if name in ("randperm", "multinomial"):
        assert_close(draws.sort(-1).values, torch.arange(SIZE).expand(BATCH, SIZE))


@pytest.mark.parametrize("name", ["rand", "randn_like", "bernoulli", "multinomial", "dropout"])
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_a_seed_repeats_the_draws(name, randomness):
    torch.manual_seed(7)
    first = draw(ALL[name], randomness, True)
    torch.manual_seed(7)
    assert_close(draw(ALL[name], randomness, True), first, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["rand", "randperm", "rand_like", "dropout", "bernoulli"])
@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
def test_nested(name, outer, inner):
    x = torch.ones(2, BATCH, SIZE)
    f = functx.vmap(functx.vmap(ALL[name], randomness=inner), randomness=outer)
    draws = f(x).reshape(2, BATCH, -1)
    if inner == "same":
        assert_close(draws, draws[:, :1].expand_as(draws), rtol=0, atol=0)
    else:
        assert all(row.unique(dim=0).shape[0] == BATCH for row in draws)
    if outer == "same":
        assert_close(draws, draws[:1].expand_as(draws), rtol=0, atol=0)
    else:
        assert not torch.equal(draws[0], draws[1])


@pytest.mark.parametrize("levels", [("error", "same"), ("same", "error"), ("different", "error")])
def test_an_error_level_anywhere_raises(levels):
    outer, inner = levels
    f = functx.vmap(functx.vmap(torch.rand_like, randomness=inner), randomness=outer)
    with pytest.raises(RuntimeError, match="random"):
        f(torch.ones(2, 3, 4))


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_under_grad_and_jvp(randomness):
    """d/dx of dropout(x) * x at the mask that was drawn."""
    x = randn(BATCH, SIZE)

    def f(x):
        y = F.dropout(x, 0.5)
        return (y * x).sum(), y

    gradients, y = functx.vmap(functx.grad(f, has_aux=True), randomness=randomness)(x)
    assert_close(gradients, 2 * y)
    assert (y == 0).flatten(1).unique(dim=0).shape[0] == (1 if randomness == "same" else BATCH)

    def g(x):
        return functx.jvp(lambda x: F.dropout(x, 0.5), (x,), (x,))

    y, tangent = functx.vmap(g, randomness=randomness)(x)
    assert_close(tangent, y)


def test_reparametrised_samples_have_gradients():
    mean, std = randn(BATCH), randn(BATCH).exp()

    def f(mean, std):
        noise = torch.randn(SIZE, dtype=torch.float64)
        return (mean + std * noise).sum(), noise

    (by_mean, by_std), noise = functx.vmap(
        functx.grad(f, argnums=(0, 1), has_aux=True), randomness="different"
    )(mean, std)
    assert_close(by_mean, torch.full((BATCH,), float(SIZE), dtype=torch.float64))
    assert_close(by_std, noise.sum(1))


def test_random_operators_outside_vmap_are_free():
    def f(x):
        return (x * torch.rand(3, dtype=x.dtype)).sum()

    x = randn(3)
    assert functx.grad(f)(x).shape == (3,)
    assert functx.jvp(f, (x,), (x,))[1].shape == ()
    assert functx.jacrev(lambda x: x * torch.rand(3, dtype=x.dtype))(x).shape == (3, 3)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_chunks(randomness):
    draws = functx.vmap(torch.rand_like, randomness=randomness, chunk_size=2)(torch.zeros(5, SIZE))
    assert draws.unique(dim=0).shape[0] == (1 if randomness == "same" else 5)


def test_a_generator():
    def f(x):
        generator = torch.Generator().manual_seed(3)
        return x + torch.rand(SIZE, generator=generator)

    expected = torch.rand(SIZE, generator=torch.Generator().manual_seed(3))
    draws = functx.vmap(f, randomness="same")(torch.zeros(BATCH))
    assert_close(draws, expected.expand(BATCH, SIZE))


LEAKS = {
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.9, training=True),
    "rrelu_": lambda x: F.rrelu_(x.clone(), 0.1, 0.9, training=True),
    "rrelu_with_noise_functional": lambda x: torch.ops.aten.rrelu_with_noise_functional(
        x, torch.empty_like(x), 0.1, 0.9, True
    )[0],
}


@pytest.mark.parametrize("name", LEAKS)
def test_the_leaks_of_rrelu_are_its_derivatives(name):
    """Linear between the signs: the tangent is what the same draws make of the input's tangent."""

    def seeded(x):
        torch.manual_seed(3)
        return LEAKS[name](x)

    x, t = randn(4, 5), randn(4, 5)
    slopes = seeded(x) / x
    assert_close(functx.jvp(seeded, (x,), (t,)), (slopes * x, slopes * t))
    if name != "rrelu_with_noise_functional":  # PyTorch's gradient is that of the old noise
        of_square = functx.grad(lambda x: seeded(x).square().sum())
        assert_close(functx.jvp(of_square, (x,), (t,)), (2 * slopes**2 * x, 2 * slopes**2 * t))
    torch.manual_seed(3)
    per_example = functx.vmap(
        lambda x, t: functx.jvp(LEAKS[name], (x,), (t,)), randomness="different"
    )(x, t)
    assert_close(per_example[1], per_example[0] / x * t)


def test_a_tangent_of_the_noise_is_overwritten():
    def f(x):
        noise = x.clone()
        torch.ops.aten.rrelu_with_noise_(x.clone(), noise, 0.1, 0.9, True)
        return noise

    x = randn(6)
    noise, tangent = functx.jvp(f, (x,), (x,))
    assert_close(noise[x > 0], torch.ones_like(noise[x > 0]))
    assert_close(tangent, torch.zeros_like(x))
