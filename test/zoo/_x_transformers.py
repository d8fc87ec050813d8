"""Models of x-transformers."""

import torch
import x_transformers as xt
from _model import EXAMPLES, Entry, numbers

DIM = {"dim": 8, "depth": 1, "heads": 2, "attn_dim_head": 4}


def tokens(length=5):
    return (torch.arange(EXAMPLES * length) * 5 % 11).reshape(EXAMPLES, length)


def scaled(model, x, ids):
    """The tokens' embeddings, moved by `x`."""
    return model(ids.unsqueeze(0), sum_embeds=x.unsqueeze(0))


def wrapped(layers, wrapper=None, call=scaled, **options):
    def build():
        model = xt.TransformerWrapper(
            num_tokens=11, max_seq_len=8, attn_layers=layers(**(DIM | options)), **(wrapper or {})
        )
        xs = 0.3 * numbers((EXAMPLES, 5, 8), 0.4, torch.float64)
        return Entry(model.eval(), xs, (tokens(),), call)

    return build


def continuous(layers=xt.Decoder, **options):
    def build():
        model = xt.ContinuousTransformerWrapper(
            dim_in=3, dim_out=2, max_seq_len=8, attn_layers=layers(**(DIM | options))
        )
        return Entry(model.eval(), numbers((EXAMPLES, 5, 3), 0.4, torch.float64))

    return build


def vit():
    model = xt.ViTransformerWrapper(
        image_size=8, patch_size=4, num_classes=3, attn_layers=xt.Encoder(**DIM)
    )
    return Entry(model.eval(), numbers((EXAMPLES, 3, 8, 8), 0.4, torch.float64))


def cross():
    encoder = xt.ContinuousTransformerWrapper(
        dim_in=3, dim_out=None, max_seq_len=8, attn_layers=xt.Encoder(**DIM)
    )
    decoder = xt.TransformerWrapper(
        num_tokens=11, max_seq_len=8, attn_layers=xt.Decoder(**DIM, cross_attend=True)
    )
    model = torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder}).eval()

    def call(m, x, ids):
        return m["decoder"](
            ids.unsqueeze(0), context=m["encoder"](x.unsqueeze(0), return_embeddings=True)
        )

    return Entry(model, numbers((EXAMPLES, 4, 3), 0.4, torch.float64), (tokens(),), call)


MODELS = {
    "xt decoder": wrapped(xt.Decoder),
    "xt encoder": wrapped(xt.Encoder),
    "xt flash": wrapped(xt.Decoder, attn_flash=True),
    "xt rotary": wrapped(xt.Decoder, rotary_pos_emb=True, rotary_emb_dim=4),
    "xt xpos": wrapped(xt.Decoder, rotary_xpos=True, rotary_emb_dim=4),
    "xt alibi": wrapped(xt.Decoder, alibi_pos_bias=True),
    "xt t5 bias": wrapped(xt.Decoder, rel_pos_bias=True),
    "xt glu": wrapped(xt.Decoder, ff_glu=True, ff_swish=True, use_rmsnorm=True),
    "xt scalenorm": wrapped(xt.Encoder, use_scalenorm=True),
    "xt simple rmsnorm": wrapped(xt.Encoder, use_simple_rmsnorm=True, sandwich_norm=True),
    "xt macaron": wrapped(xt.Encoder, macaron=True),
    "xt gate residual": wrapped(xt.Encoder, gate_residual=True),
    "xt shift tokens": wrapped(xt.Decoder, shift_tokens=1),
    "xt qk norm": wrapped(xt.Decoder, attn_qk_norm=True, attn_qk_norm_dim_scale=True),
    "xt talking heads": wrapped(
        xt.Decoder, attn_pre_talking_heads=True, attn_post_talking_heads=True
    ),
    "xt one kv": wrapped(xt.Decoder, attn_one_kv_head=True),
    "xt gate values": wrapped(xt.Decoder, attn_gate_values=True, attn_head_scale=True),
    "xt sparse topk": wrapped(xt.Decoder, attn_sparse_topk=2),
    "xt memory kv": wrapped(xt.Decoder, attn_num_mem_kv=2),
    "xt memory tokens": wrapped(xt.Encoder, {"num_memory_tokens": 2}),
    "xt on attn": wrapped(xt.Decoder, attn_on_attn=True),
    "xt softclamp": wrapped(xt.Decoder, attn_softclamp_logits=True),
    "xt selective": wrapped(xt.Decoder, attn_selective=True),
    "xt residual attn": wrapped(xt.Encoder, residual_attn=True, depth=2),
    "xt hyper connections": wrapped(xt.Decoder, num_residual_streams=2),
    "xt value residual": wrapped(xt.Decoder, add_value_residual=True, depth=2),
    "xt laser": wrapped(xt.Decoder, attn_laser=True),
    "xt continuous": continuous(),
    "xt continuous encoder": continuous(xt.Encoder, rotary_pos_emb=True, rotary_emb_dim=4),
    "xt vit": vit,
    "xt cross": cross,
}
