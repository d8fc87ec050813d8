"""Where derivatives are refused, or are not what differences say, with the reasons; the coverage
page prints them."""

from _op_exceptions import Reason

EMBEDDING = (
    "max_norm scales rows in place, by factors that are taken for constants; nothing reaches the "
    "row at padding_idx; with scale_grad_by_freq a row's part is divided by how often it is read"
)

# PyTorch defines a derivative that is not that of the function: both modes have to agree on it.
BY_DEFINITION = {
    "nn.functional.embedding": EMBEDDING,
    "nn.functional.embedding_bag": EMBEDDING,
    "normal": "a sample is a constant, and not mean + std * noise",
}

# Entries that raise: for all kinds of sweeps, and in addition for some.
CHUNKS = Reason(
    "a custom operator of PyTorch's own, which has no forward-mode formula",
    "has no forward-mode derivative|not been implemented",
)
REFUSED = {
    "nn.functional.linear_cross_entropy.chunked": CHUNKS,
    "nn.functional.linear_cross_entropy.chunked_none": CHUNKS,
    "to_sparse": Reason(
        "a sparse tensor of tangents: PyTorch has no forward-mode formula", "not been implemented"
    ),
}
REFUSED_IN = {}

# PyTorch's own gradient is wrong, and functx.vjp is PyTorch's autograd.
WRONG_IN_PYTORCH = {}
