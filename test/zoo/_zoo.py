"""All models, by name, and those that `make test-zoo` takes."""

import _flows
import _graphs
import _timm
import _torch_modules
import _transformers_media
import _transformers_text
import _x_transformers

FAMILIES = (
    _transformers_text,
    _transformers_media,
    _timm,
    _graphs,
    _flows,
    _x_transformers,
    _torch_modules,
)
MODELS = {name: build for family in FAMILIES for name, build in family.MODELS.items()}
QUICK = {
    *("bert", "albert", "distilbert", "electra", "deberta v2", "longformer", "bigbird", "reformer"),
    *("gpt2", "llama", "llama eager", "mixtral", "mamba", "rwkv", "t5", "bart"),
    *("vit", "deit", "beit", "swin", "convnext", "segformer", "resnet", "regnet"),
    *("clip", "perceiver", "wav2vec2", "whisper", "patchtst"),
    *("timm mixer", "timm xcit", "timm levit", "timm convnext v2", "timm densenet", "timm resnet"),
    *("gcn", "gat", "graph sage", "gin", "pna", "schnet", "graph transformer", "set2set"),
    *("zuko nsf", "zuko maf", "zuko cnf", "zuko unaf", "odeint dopri5", "odeint adjoint rk4"),
    *("e3nn convolution", "xt decoder", "xt flash", "xt vit"),
    *("lstm", "gru", "attention no weights", "encoder layer gelu", "transformer", "weight norm"),
}
