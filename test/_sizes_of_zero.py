"""Calls under vmap and jvp that divide by an argument which is zero. Run as a script: for each name
on stdin it says what became of the call, so that the parent can tell the one that ended the
process."""

import itertools
import sys

import torch
import torch.nn.functional as F

from functx import grad, jvp, vmap

aten = torch.ops.aten
rand = torch.rand


def mapped(function, *args, in_dims):
    args = [x if d is None else torch.stack([x, x]) for x, d in zip(args, in_dims, strict=True)]
    return vmap(function, in_dims=in_dims)(*args)


def pushed(function, *args):
    return jvp(function, args, tuple(map(torch.ones_like, args)))


def under_all(name, function, *args):
    """The call under vmap, with each choice of what is batched, and jvp; and both."""
    for in_dims in itertools.product((0, None), repeat=len(args)):
        if any(d == 0 for d in in_dims):
            yield f"{name}, vmap of {in_dims}", lambda d=in_dims: mapped(function, *args, in_dims=d)
    yield f"{name}, jvp", lambda: pushed(function, *args)
    yield (
        f"{name}, vmap(jvp)",
        lambda: mapped(lambda *xs: pushed(function, *xs), *args, in_dims=(0,) * len(args)),
    )
    yield f"{name}, jvp(vmap)", lambda: pushed(vmap(function), *(torch.stack([x, x]) for x in args))


def convolutions():
    for rank in 1, 2, 3:
        x, grad_output = rand(2, 4, *[5] * rank), rand(2, 4, *[3] * rank)
        weight = rand(4, 4, *[3] * rank)
        by_rank = [1] * rank, [0] * rank, [1] * rank
        for kind, is_transposed in ("conv", False), ("conv_transpose", True):
            function = getattr(F, f"{kind}{rank}d")
            none = rand(*((4, 0) if is_transposed else (0, 4)), *[3] * rank)
            yield from under_all(
                f"{kind}{rank}d of no groups", lambda x, w, f=function: f(x, w, groups=0), x, weight
            )
            yield from under_all(f"{kind}{rank}d of no outputs", function, x, none)
        for what, g, w, groups in (
            ("no groups", grad_output, weight, 0),
            ("no outputs", grad_output[:, :0], weight[:0], 1),
        ):
            backward = lambda g, x, w, by=by_rank, groups=groups, rank=rank: (
                aten.convolution_backward(
                    g, x, w, None, *by, False, [0] * rank, groups, [True, True, False]
                )
            )
            yield from under_all(f"convolution_backward{rank} of {what}", backward, g, x, w)


def layers():
    width = 4
    weights = rand(3 * width, width), rand(3 * width), rand(width, width), rand(width)
    norm = rand(width), rand(width)
    fed = rand(width, width), rand(width), rand(width, width), rand(width)

    def attention(x):
        return aten._native_multi_head_attention(x, x, x, width, 0, *weights)[0]

    def encoder(x):
        return aten._transformer_encoder_layer_fwd(
            x, width, 0, *weights, False, False, 1e-5, *norm, *norm, *fed
        )

    yield from under_all("_native_multi_head_attention of no heads", attention, rand(2, 3, width))
    yield from under_all("_transformer_encoder_layer_fwd of no heads", encoder, rand(2, 3, width))


def attentions():
    flash = lambda q, k: aten._scaled_dot_product_flash_attention_for_cpu(q, k, k)[0]
    for what, query, key in (
        ("no keys", (2, 2, 3, 4), (2, 2, 0, 4)),
        ("no heads", (2, 0, 3, 4), (2, 0, 3, 4)),
        ("no heads of keys", (2, 2, 3, 4), (2, 0, 3, 4)),
        ("no queries", (2, 2, 0, 4), (2, 2, 3, 4)),
    ):
        q, k = rand(query), rand(key)

        def backward(q, k, output=q, lse=q[..., 0]):
            return aten._scaled_dot_product_flash_attention_for_cpu_backward(
                output, q, k, k, output, lse, 0.0, False
            )

        yield from under_all(f"flash attention of {what}", flash, q, k)
        yield from under_all(f"backward of flash attention of {what}", backward, q, k)
        yield from under_all(f"attention of {what}", F.scaled_dot_product_attention, q, k)
        yield (
            f"attention of {what}, vmap(grad)",
            lambda q=q, k=k: vmap(
                grad(lambda q, k: F.scaled_dot_product_attention(q, k, k).sum()), (0, None)
            )(torch.stack([q, q]), k),
        )


def others():
    images = rand(2, 4, 4, 4)
    yield from under_all("group norm", lambda x: F.group_norm(x, 0), images)
    yield from under_all(
        "native_group_norm",
        lambda x: aten.native_group_norm(x, None, None, 2, 4, 16, 0, 1e-5)[0],
        images,
    )
    yield from under_all("channel_shuffle", lambda x: aten.channel_shuffle(x, 0), images)
    yield from under_all(
        "native_channel_shuffle", lambda x: aten.native_channel_shuffle(x, 0), images
    )
    yield from under_all("pixel_shuffle", lambda x: F.pixel_shuffle(x, 0), images)
    yield from under_all("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 0), images)
    yield from under_all("avg_pool2d of no kernel", lambda x: F.avg_pool2d(x, 0), images)
    yield from under_all("max_pool2d of no kernel", lambda x: F.max_pool2d(x, 0), images)
    yield from under_all("unfold", lambda x: F.unfold(x, 2, stride=0), images)
    yield from under_all("split", lambda x: x.split(0), images)
    yield from under_all("histogramdd", lambda x: torch.histogramdd(x, [])[0], rand(3, 0))


CASES = dict(itertools.chain(convolutions(), layers(), attentions(), others()))


def outcome(call):
    try:
        call()
    except Exception as error:
        return f"raises {' '.join(str(error).split())[:300]}"
    return "returns"


if __name__ == "__main__":
    for name in sys.stdin.read().splitlines():
        print("at", name, flush=True)
        print(outcome(CASES[name]), flush=True)
