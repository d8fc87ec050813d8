"""Where derivatives are refused, or are not what differences say, with the reasons; the coverage
page prints them."""

from _op_exceptions import REFUSED as REFUSED_BY_VMAP
from _op_exceptions import Reason

EMBEDDING = (
    "max_norm scales rows in place, by factors that are taken for constants; nothing reaches the "
    "row at padding_idx; with scale_grad_by_freq a row's part is divided by how often it is read"
)

# PyTorch defines a derivative that is not that of the function: both modes have to agree on it. It
# can be differentiated again, unless what it takes for a constant is none.
BY_DEFINITION = {
    "nn.functional.embedding": EMBEDDING,
    "nn.functional.embedding_bag": EMBEDDING,
    "linalg.norm.subgradients_at_zero": "of a norm of zero, one of many subgradients",
    "normal": "a sample is a constant, and not mean + std * noise",
}

# Results, by their positions, that are constants to plain autograd and not to functx:
# test_silent_zeros.py checks them.
NOT_CONSTANT = {"linalg.lstsq": {3}}  # singular values

CONSTANT_FACTORS = "max_norm"

# Entries that raise, whatever the kind of sweep.
REFUSED = {
    "to_sparse": Reason(
        "a sparse tensor of tangents: PyTorch has no forward-mode formula, nor a batch of them",
        "not been implemented|SparseCPU|of layout Sparse",
    ),
}

# PyTorch's own gradient is not the derivative, and functx.vjp is PyTorch's autograd. That it is the
# same is checked.
UNPOOL = "where an index occurs twice, both values get the gradient of the one that is written last"
WRONG_ONCE = {
    "nn.functional.max_unpool1d": UNPOOL,
    "nn.functional.max_unpool2d": UNPOOL,
    "nn.functional.max_unpool3d": UNPOOL,
}

# The gradient is a constant to plain autograd, though it is none: differences decide.
GRADIENT_NOT_TRACKED = {
    "nn.functional.linear_cross_entropy.chunked",
    "nn.functional.linear_cross_entropy.chunked_none",
}

WRONG_IN_PYTORCH = {"vjp": WRONG_ONCE, "vjp(vmap)": WRONG_ONCE, "jacrev": WRONG_ONCE}


def reason_to_refuse(kind, name):
    """Why `name` may raise in sweeps of this kind, or None."""
    by_vmap = REFUSED_BY_VMAP if "vmap" in kind else {}
    return REFUSED.get(name) or by_vmap.get(name)
