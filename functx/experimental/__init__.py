"""What `functorch.experimental` has: transforms that have long left it, and control flow.

`cond` and `map` are in `functx.experimental.control_flow`, as they are in functorch.
"""

from torch.func import replace_all_batch_norm_modules_

from ..functionalize import functionalize
from ..hessian import hessian
from ..jacfwd import jacfwd
from ..jvp import jvp
from ._chunk_vmap import chunk_vmap

__all__ = [
    "chunk_vmap",
    "functionalize",
    "hessian",
    "jacfwd",
    "jvp",
    "replace_all_batch_norm_modules_",
]
