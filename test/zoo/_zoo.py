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
QUICK = {"bert"}
