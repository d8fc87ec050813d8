"""Modules that contain attention, under jvp."""

import pytest
import torch
from _attention_cases import Functx, like, loss_of, written_gradient_jvp
from _reference import assert_equal_trees, autograd_grad, directional_derivative
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

import functx

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")

WIDTH, HEADS = 8, 2


def attention_layer(module, **options):
    def run(params, x):
        return functional_call(module, params, (x, x, x), options)[0]

    return run


def encoder_layer(module, **options):
    return lambda params, x: functional_call(module, params, (x,), options)


MODULES = {
    "attention": (
        lambda: nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64),
        attention_layer,
        [
            {"need_weights": False},
            {"need_weights": True},
            {"need_weights": True, "average_attn_weights": False},
            {"need_weights": False, "key_padding_mask": True},
            {"need_weights": True, "key_padding_mask": True, "attn_mask": True},
            {"need_weights": False, "attn_mask": True},
        ],
    ),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(
            WIDTH, HEADS, 16, dropout=0.0, batch_first=True, dtype=torch.float64
        ),
        encoder_layer,
        [{}, {"src_key_padding_mask": True}, {"src_mask": True}],
    ),
    "encoder, norm first": (
        lambda: nn.TransformerEncoderLayer(
            WIDTH,
            HEADS,
            16,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            dtype=torch.float64,
        ),
        encoder_layer,
        [{}],
    ),
}
RUNS = [(name, options) for name, (_, _, runs) in MODULES.items() for options in runs]


def with_masks(options, length):
    padding = torch.zeros(2, length, dtype=torch.bool)
    padding[1, -2:] = True
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    return {
        name: (padding if "padding" in name else future) if name.endswith("mask") else value
        for name, value in options.items()
    }


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "options"), RUNS, ids=str)
def test_modules(name, options, training):
    """In eval mode PyTorch runs operators of their own for these, which have no derivatives."""
    torch.manual_seed(0)
    build, runner, _ = MODULES[name]
    module = build().train(training)
    params = {name: p.detach() for name, p in module.named_parameters()}
    names = list(params)
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    run = runner(module, **with_masks(options, x.shape[1]))

    def f(x, *values):
        return run(dict(zip(names, values, strict=True)), x)

    args = (x, *params.values())
    # Small, so that differences do not step over a kink of relu.
    tangents = tuple(0.01 * t for t in like(args))

    def gradients(*args):
        return functx.grad(loss_of(f), argnums=tuple(range(len(args))))(*args)

    # Plain calls of the same module: of what PyTorch chooses, in plain double precision.
    moved = functx.jvp(f, args, tangents)
    assert_close(moved[0], f(*args))
    assert_close(moved[1], directional_derivative(f, args, tangents))
    actual = functx.jvp(gradients, args, tangents)[1]
    assert_equal_trees(actual, written_gradient_jvp(f, args, tangents))
    many = torch.stack([x, x.flip(1)])
    actual = functx.vmap(lambda x: Functx.jvp(f, (x, *args[1:]), tangents))(many)
    expected = [directional_derivative(f, (y, *args[1:]), tangents) for y in many]
    assert_close(actual, torch.stack(expected))
    actual = functx.vmap(lambda x: f(x, *args[1:]))(many)
    assert_close(actual, torch.stack([f(y, *args[1:]) for y in many]))
    # Reverse over forward is the transpose of forward over reverse.
    actual = functx.grad(lambda *a: Functx.jvp(f, a, tangents).sum(), argnums=(0,))(*args)
    expected = directional_derivative(
        lambda *a: autograd_grad(lambda *b: f(*b).sum(), *a)[0], args, tangents
    )
    assert_close(actual[0], expected)
