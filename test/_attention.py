"""Attention written out, and stand-ins for the fused kernels of accelerators made of it."""

import contextlib

import torch

HIDDEN = float("-inf")


def scores_of(query, key, mask=None, is_causal=False, scale=None, from_end=False):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.mT * scale
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, HIDDEN)
    elif mask is not None:
        scores = scores + mask
    if is_causal:
        diagonal = key.shape[-2] - query.shape[-2] if from_end else 0
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(diagonal)
        scores = scores.masked_fill(~seen, HIDDEN)
    return scores


def logsumexp_of(scores):
    """Zero where nothing is seen, where it is -inf: of no use, and its derivative is NaN."""
    blind = (scores == HIDDEN).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0).logsumexp(-1, keepdim=True)


def attend(query, key, value, mask=None, *, is_causal=False, scale=None, from_end=False):
    """A query that sees no key gets zeros, as from the fused kernels."""
    key, value = (of_query_heads(x, query) for x in (key, value))
    scores = scores_of(query, key, mask, is_causal, scale, from_end)
    return (scores - logsumexp_of(scores)).exp() @ value


def of_query_heads(x, query):
    """Keys and values of a group of heads, for each head of the group."""
    if x.dim() < 3 or x.shape[-3] == query.shape[-3]:
        return x
    return x.repeat_interleave(query.shape[-3] // x.shape[-3], -3)


# ---- stand-ins for kernels ---------------------------------------------------------------------


def forward_kernel(query, key, value, **options):
    """Output and logsumexp [N, heads, queries]."""
    key, value = (of_query_heads(x, query) for x in (key, value))
    scores = scores_of(query, key, **options)
    logsumexp = logsumexp_of(scores)
    return (scores - logsumexp).exp() @ value, logsumexp[..., 0]


def backward_kernel(grad, query, key, value, output, **options):
    """Gradients of query, key, value and of what is added to the scores.

    Autograd calls it without a gradient, too."""
    if grad is None:
        return None, None, None, None
    own_key, own_value = (of_query_heads(x, query) for x in (key, value))
    scores = scores_of(query, own_key, **options)
    p = (scores - logsumexp_of(scores)).exp()
    ds = p * (grad @ own_value.mT - (grad * output).sum(-1, keepdim=True))
    scale = options.get("scale")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    grad_key, grad_value = (
        x.unflatten(1, (key.shape[1], -1)).sum(2) for x in (ds.mT @ query * scale, p.mT @ grad)
    )
    return ds @ own_key * scale, grad_key, grad_value, ds


def flash(query, key, value, dropout_p=0.0, is_causal=False, debug=False, *, scale=None):
    results = forward_kernel(query, key, value, is_causal=is_causal, scale=scale, from_end=True)
    return (*results, *no_more_results(query, key))


def flash_backward(
    grad, query, key, value, output, logsumexp, _a, _b, _c, _d, _p, is_causal, _s, _o, *, scale=None
):
    options = {"is_causal": is_causal, "scale": scale, "from_end": True}
    return backward_kernel(grad, query, key, value, output, **options)[:3]


PADDING = 3


def efficient(q, k, v, bias, compute_logsumexp, dropout_p=0.0, is_causal=False, *, scale=None):
    """Its logsumexp is padded, or empty if nobody asks for it."""
    output, logsumexp = forward_kernel(q, k, v, mask=bias, is_causal=is_causal, scale=scale)
    padded = torch.nn.functional.pad(logsumexp, (0, PADDING), value=float("inf"))
    seed = torch.zeros((), dtype=torch.int64)
    return output, padded if compute_logsumexp else padded[..., :0], seed, seed.clone()


def efficient_backward(
    grad, q, k, v, bias, output, logsumexp, _s, _o, _p, wanted, is_causal=False, *, scale=None
):
    options = {"mask": bias, "is_causal": is_causal, "scale": scale}
    *gradients, ds = backward_kernel(grad, q, k, v, output, **options)
    return (*gradients, ds.sum_to_size(bias.shape) if wanted[3] and ds is not None else None)


def cudnn(
    q, k, v, bias, compute_logsumexp, dropout_p=0.0, is_causal=False, debug=False, *, scale=None
):
    """Its logsumexp has a last dimension of one."""
    output, logsumexp = forward_kernel(q, k, v, mask=bias, is_causal=is_causal, scale=scale)
    return (output, logsumexp[..., None], *no_more_results(q, k))


def cudnn_backward(
    grad, q, k, v, output, logsumexp, _s, _o, bias, _a, _b, _c, _d, _p, is_causal, *, scale=None
):
    options = {"mask": bias, "is_causal": is_causal, "scale": scale}
    return backward_kernel(grad, q, k, v, output, **options)[:3]


def overrideable(q, k, v, bias=None, dropout_p=0.0, is_causal=False, debug=False, *, scale=None):
    results = forward_kernel(q, k, v, mask=bias, is_causal=is_causal, scale=scale)
    return (*results, *no_more_results(q, k))


def overrideable_backward(
    grad, q, k, v, bias, wanted, output, lse, _a, _b, _c, _d, _p, is_causal, _s, _o, *, scale=None
):
    options = {"mask": bias, "is_causal": is_causal, "scale": scale}
    *gradients, ds = backward_kernel(grad, q, k, v, output, **options)
    return (*gradients, ds.sum_to_size(bias.shape) if wanted[3] and ds is not None else None)


def no_more_results(query, key):
    """cum_seq_q, cum_seq_k, max_q, max_k, two of random state, debug mask."""
    empty = torch.zeros(0, dtype=torch.int64)
    return (
        empty, empty.clone(), query.shape[2], key.shape[2],
        empty.clone(), empty.clone(), query.new_zeros(0),
    )  # fmt: skip


KERNELS = {
    "_scaled_dot_product_flash_attention": flash,
    "_scaled_dot_product_flash_attention_backward": flash_backward,
    "_scaled_dot_product_efficient_attention": efficient,
    "_scaled_dot_product_efficient_attention_backward": efficient_backward,
    "_scaled_dot_product_cudnn_attention": cudnn,
    "_scaled_dot_product_cudnn_attention_backward": cudnn_backward,
    "_scaled_dot_product_fused_attention_overrideable": overrideable,
    "_scaled_dot_product_fused_attention_overrideable_backward": overrideable_backward,
}


@contextlib.contextmanager
def accelerator_kernels_on_cpu():
    """The operators of the accelerators' kernels run on CPU tensors, for a while."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name, kernel in KERNELS.items():
            library.impl(name, kernel, "CPU")
        yield


def call_flash(q, k, v, bias, **options):
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, **options)[0]


def call_efficient(q, k, v, bias, **options):
    tracked = any(x.requires_grad for x in (q, k, v))
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, tracked, **options
    )[0]


def call_cudnn(q, k, v, bias, **options):
    tracked = any(x.requires_grad for x in (q, k, v))
    return torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, bias, tracked, **options)[0]


def call_overrideable(q, k, v, bias, **options):
    return torch.ops.aten._scaled_dot_product_fused_attention_overrideable(
        q, k, v, bias, **options
    )[0]


ACCELERATORS = {
    "flash": call_flash,
    "efficient": call_efficient,
    "cudnn": call_cudnn,
    "overrideable": call_overrideable,
}
