"""Modules of PyTorch's own that are models by themselves."""

import torch
from _model import EXAMPLES, Entry, numbers
from torch import nn


def sequences(length=4, width=4):
    return numbers((EXAMPLES, length, width), 0.4, torch.float64)


def module(make, *shape, call=None):
    return lambda: Entry(
        make(),
        numbers((EXAMPLES, *shape), 0.4, torch.float64),
        (),
        call or (lambda m, x: m(x.unsqueeze(0))),
    )


def attends(m, x):
    return m(x.unsqueeze(0), x.unsqueeze(0), x.unsqueeze(0))


def causal(m, x):
    mask = nn.Transformer.generate_square_subsequent_mask(x.shape[0], dtype=x.dtype)
    return m(x.unsqueeze(0), src_mask=mask, is_causal=True)


def decodes(m, x):
    return m(x[:2].unsqueeze(0), x.unsqueeze(0))


def layer(**options):
    return nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True, **options)


class BatchNorms(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6, **options)

    def forward(self, x):
        return self.norm(self.conv(x).tanh())


def spectral():
    m = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    return m.eval()


def weight_norm():
    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))


def orthogonal():
    return nn.utils.parametrizations.orthogonal(nn.Linear(4, 3))


MODELS = {
    "lstm": module(lambda: nn.LSTM(4, 3, batch_first=True), 4, 4),
    "lstm bidirectional": module(
        lambda: nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), 4, 4
    ),
    "lstm projection": module(lambda: nn.LSTM(4, 3, proj_size=2, batch_first=True), 4, 4),
    "gru": module(lambda: nn.GRU(4, 3, batch_first=True), 4, 4),
    "gru bidirectional": module(
        lambda: nn.GRU(4, 3, 2, batch_first=True, bidirectional=True), 4, 4
    ),
    "rnn": module(lambda: nn.RNN(4, 3, batch_first=True), 4, 4),
    "rnn relu": module(lambda: nn.RNN(4, 3, nonlinearity="relu", batch_first=True), 4, 4),
    "lstm cell": module(lambda: nn.LSTMCell(4, 3), 4),
    "gru cell": module(lambda: nn.GRUCell(4, 3), 4),
    "attention": module(lambda: nn.MultiheadAttention(4, 2, batch_first=True), 4, 4, call=attends),
    "attention eval": module(
        lambda: nn.MultiheadAttention(4, 2, batch_first=True).eval(), 4, 4, call=attends
    ),
    "attention no weights": module(
        lambda: nn.MultiheadAttention(4, 2, batch_first=True),
        4,
        4,
        call=lambda m, x: m(x.unsqueeze(0), x.unsqueeze(0), x.unsqueeze(0), need_weights=False)[0],
    ),
    "attention kv bias": module(
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True),
        4,
        4,
        call=attends,
    ),
    "encoder layer": module(layer, 4, 4),
    "encoder layer eval": module(lambda: layer().eval(), 4, 4),
    "encoder layer gelu": module(lambda: layer(norm_first=True, activation="gelu").eval(), 4, 4),
    "encoder layer causal": module(lambda: layer().eval(), 4, 4, call=causal),
    "encoder": module(lambda: nn.TransformerEncoder(layer(), 2).eval(), 4, 4),
    "decoder layer": module(
        lambda: nn.TransformerDecoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
        4,
        4,
        call=decodes,
    ),
    "transformer": module(
        lambda: nn.Transformer(4, 2, 1, 1, 6, dropout=0.0, batch_first=True).eval(),
        4,
        4,
        call=decodes,
    ),
    "batch norm train": module(lambda: BatchNorms(track_running_stats=False), 4, 5),
    "batch norm eval": module(lambda: BatchNorms().eval(), 4, 5),
    "spectral norm": module(spectral, 4),
    "weight norm": module(weight_norm, 4),
    "orthogonal": module(orthogonal, 4),
    "adaptive softmax": module(
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 9, [3, 6]),
        2,
        4,
        call=lambda m, x: m(x, torch.tensor([1, 7]))[1],
    ),
    "embedding bag": module(
        lambda: nn.EmbeddingBag(5, 4, mode="sum"),
        3,
        call=lambda m, x: m(torch.tensor([[1, 2, 4]]), per_sample_weights=x.unsqueeze(0)),
    ),
    "bilinear": module(lambda: nn.Bilinear(3, 3, 2), 3, call=lambda m, x: m(x, x.sin())),
}
