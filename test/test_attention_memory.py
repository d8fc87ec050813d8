"""Derivatives of fused attention without a score matrix."""

import pytest
import torch
import torch.nn.functional as F
from _attention import attend
from _attention_cases import INPUTS, Functx, loss_of

import functx
from benchmarks.memory import peak_bytes

pytestmark = pytest.mark.filterwarnings("error:.*functx.vmap.*loop")

# With the length to look at: at 8192, the score matrix of one head is 256 MiB, query, key and value
# have half a MiB each.
COMPOSITIONS = {
    "jvp": (8192, lambda f, x: functx.jvp(f, x, x)),
    "jvp grad": (
        8192,
        lambda f, x: functx.jvp(functx.grad(loss_of(f), argnums=INPUTS), x, x),
    ),
    "grad jvp": (
        8192,
        lambda f, x: functx.grad(
            lambda *a: Functx.jvp(f, a[:3], a[3:]).sin().sum(), argnums=tuple(range(6))
        )(*x, *x),
    ),
    "jvp jvp": (4096, lambda f, x: functx.jvp(lambda *y: Functx.jvp(f, y, y), x, x)),
    "vmap jvp": (
        4096,
        lambda f, x: functx.vmap(lambda *a: functx.jvp(f, a, a))(*(y[None] for y in x)),
    ),
    "grad vmap grad": (
        4096,
        lambda f, x: functx.grad(lambda *a: functx.vmap(functx.grad(loss_of(f)))(*a).sin().sum())(
            *(y[None] for y in x)
        ),
    ),
}


def attend_causally(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def peak_of(composition, f, length):
    """In score matrices of float32."""
    inputs = tuple(torch.randn(1, 1, length, 16) for _ in range(3))
    run = COMPOSITIONS[composition][1]
    return peak_bytes(lambda: run(f, inputs)) / (4 * length**2)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_memory_is_far_below_the_score_matrix(composition):
    length = COMPOSITIONS[composition][0]
    assert peak_of(composition, attend_causally, length) < (0.1 if length == 8192 else 0.25)


@pytest.mark.parametrize("composition", ["jvp", "jvp grad", "grad jvp"])
def test_the_reading_of_memory_sees_a_score_matrix(composition):
    def written(q, k, v):
        return attend(q, k, v, is_causal=True)

    assert peak_of(composition, written, 512) > 2
