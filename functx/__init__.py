"""functx: composable function transforms for PyTorch, as a plugin of its dispatcher.

The names and the meaning are those of `torch.func`:

- `vmap` maps a function over a dimension of its inputs;
- `grad`, `grad_and_value` and `vjp` differentiate in reverse mode, `jvp` in forward mode;
- `linearize` keeps the derivative at a point as a linear map;
- `jacrev`, `jacfwd` and `hessian` put them together.

`register_batching_rule` tells `vmap` about an operator, `register_jvp_rule` tells `jvp`.

All of them nest and compose. `functional_call` calls a module with parameters of yours.
`make_functional`, `make_fx` and their like are PyTorch's own: they hold no transform, and work with
these. The names of `functorch.experimental`,
`functorch.compile` and `functorch.einops` are in modules called the same, and `functx.dropin` makes
programs that import functorch or torch.func use functx.

    >>> import torch
    >>> from functx import grad, vmap
    >>> vmap(grad(torch.sin))(torch.zeros(3))
    tensor([1., 1., 1.])
"""

import importlib
from typing import Any

# None of these modules takes long: `import torch` loads all that is heavy in them.
from torch._functorch.make_functional import (
    FunctionalModule,
    FunctionalModuleWithBuffers,
    combine_state_for_ensemble,
    make_functional,
    make_functional_with_buffers,
)
from torch.func import replace_all_batch_norm_modules_, stack_module_state
from torch.fx.experimental.proxy_tensor import make_fx

from . import _first_use
from ._inspection import debug_unwrap
from .batching_rules import BatchingRule, register_batching_rule
from .einops import rearrange
from .functional_call import functional_call
from .functionalize import functionalize
from .grad import grad, grad_and_value
from .hessian import hessian
from .jacfwd import jacfwd
from .jacrev import jacrev
from .jvp import jvp
from .jvp_rules import JvpRule, register_jvp_rule
from .linearize import linearize
from .vjp import vjp
from .vmap import vmap

__all__ = [
    "BatchingRule",
    "FunctionalModule",
    "FunctionalModuleWithBuffers",
    "JvpRule",
    "combine_state_for_ensemble",
    "debug_unwrap",
    "functional_call",
    "functionalize",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "make_functional",
    "make_functional_with_buffers",
    "make_fx",
    "rearrange",
    "register_batching_rule",
    "register_jvp_rule",
    "replace_all_batch_norm_modules_",
    "stack_module_state",
    "vjp",
    "vmap",
]

__version__ = "0.1.0"

_first_use.wait_for_it()


def __getattr__(name: str) -> Any:
    if name in ("compile", "dropin", "experimental"):  # on demand: they take a while
        return importlib.import_module(f"functx.{name}")
    raise AttributeError(f"module 'functx' has no attribute {name!r}")
