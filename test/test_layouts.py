"""Tensors that PyTorch has no views of: of mkldnn, quantized per channel, masked."""

import pytest
import torch
from _reference import randn
from torch.masked import masked_tensor
from torch.testing import assert_close

import functx

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
X = torch.tensor([[1.5, -0.25], [-2.0, 0.5], [-1.0, 3.0]])


def test_mkldnn_tensors_are_mapped_in_front():
    mkldnn = X.to_mkldnn()
    dense = functx.vmap(lambda x: x.to_dense() * 2)(mkldnn)
    assert dense.layout == torch.strided
    assert_close(dense, 2 * X)
    assert_close(functx.vmap(lambda x: x * 2)(mkldnn).to_dense(), 2 * X)
    with pytest.raises(
        NotImplementedError, match=r"functx\.vmap: a tensor of the layout of mkldnn"
    ):
        functx.vmap(lambda x: x * 2, in_dims=1)(mkldnn)


def test_mkldnn_tensors_are_not_made_inside():
    with pytest.raises(NotImplementedError, match=r"to_mkldnn returns tensors of the layout"):
        functx.vmap(lambda x: x.to_mkldnn())(X)


@pytest.mark.parametrize("axis", [0, 1])
def test_tensors_quantized_per_channel_are_mapped_in_front(axis):
    count = X.shape[axis]
    scales, zeros = torch.linspace(0.1, 0.2, count), torch.zeros(count, dtype=torch.long)
    quantized = torch.quantize_per_channel(X, scales, zeros, axis, torch.qint8)
    expected = torch.stack([quantized[i].dequantize() for i in range(3)])
    assert_close(functx.vmap(lambda x: x.dequantize().square())(quantized), expected**2)
    assert_close(functx.vmap(lambda x: x.int_repr())(quantized), quantized.int_repr())
    with pytest.raises(NotImplementedError, match="quantized per channel can only be mapped in"):
        functx.vmap(lambda x: x.dequantize(), in_dims=1)(quantized)


def test_masked_tensors_are_mapped_in_front():
    masked = masked_tensor(X, X > 0)
    sums = functx.vmap(torch.sum)(masked)
    expected = [masked_tensor(x, x > 0).sum() for x in X]
    assert_close(sums.get_data(), torch.stack([each.get_data() for each in expected]))
    assert_close(sums.get_mask(), torch.stack([each.get_mask() for each in expected]))
    doubled = functx.vmap(lambda x: 2 * x)(masked)
    assert_close(doubled.to_tensor(0), 2 * X.clamp(min=0))


@pytest.mark.parametrize(
    "x",
    [
        torch._neg_view(X),
        X.to(torch.float8_e4m3fn),
        X.to(torch.float8_e5m2),
        randn(2, 3).cfloat().conj(),
    ],
    ids=["neg", "float8_e4m3fn", "float8_e5m2", "conj"],
)
def test_printing_under_every_transform(x):
    seen = []

    def look(x):
        seen.append(repr(x))
        return x.abs().sum() if x.dtype.itemsize > 1 else x.float().sum()

    functx.jvp(look, (x,), (x,))
    functx.vmap(look)(x)
    functx.grad(look)(x)
    value = repr(x).splitlines()[0].split("[")[-1].split(",")[0]
    assert all(value in shown for shown in seen)
