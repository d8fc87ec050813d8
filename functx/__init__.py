"""functx: composable function transforms for PyTorch, as a plugin of its dispatcher.

The names and the meaning are those of `torch.func`:

- `vmap` maps a function over a dimension of its inputs;
- `grad`, `grad_and_value` and `vjp` differentiate in reverse mode, `jvp` in forward mode;
- `jacrev`, `jacfwd` and `hessian` put them together.

`register_batching_rule` tells `vmap` about an operator.

All of them nest and compose. `functional_call`, `stack_module_state` and `make_fx` are PyTorch's
own: they hold no transform, and work with these.

    >>> import torch
    >>> from functx import grad, vmap
    >>> vmap(grad(torch.sin))(torch.zeros(3))
    tensor([1., 1., 1.])
"""

# `import torch` loads both of these modules already.
from torch.func import functional_call, stack_module_state
from torch.fx.experimental.proxy_tensor import make_fx

from . import _autograd_function, _indexing, _inspection, batching_rules
from ._inspection import debug_unwrap
from .batching_rules import BatchingRule, register_batching_rule
from .grad import grad, grad_and_value
from .hessian import hessian
from .jacfwd import jacfwd
from .jacrev import jacrev
from .jvp import jvp
from .vjp import vjp
from .vmap import vmap

__all__ = [
    "BatchingRule",
    "debug_unwrap",
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "make_fx",
    "register_batching_rule",
    "stack_module_state",
    "vjp",
    "vmap",
]

__version__ = "0.1.0"

_indexing.install()
_inspection.install()
batching_rules.install()
_autograd_function.install()
