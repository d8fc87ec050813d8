"""What vmap refuses and what it runs in a loop, with the reasons; the coverage page prints them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why there is an error, and what its message has to match."""

    why: str
    message: str


DATA = Reason("the shape of the result depends on the data", "data-dependent shape")
MEMORY = Reason(
    "a tensor under vmap has no memory of its own to resize",
    "cannot be resized",
)
STATISTICS = Reason(
    "running statistics that all examples share would be updated by each of them",
    "is the same for every example",
)
VALUE = Reason(
    "its Python code branches on the values of an argument",
    r"neither true nor false|calling \.item\(\) on a Tensor",
)
MOVING_VIEW = Reason("a view at another place in each example", "a view at a different place")
LAYOUT = Reason(
    "strides that fit an example of its own, and not one that is interleaved with others",
    "out of the memory of its example",
)

REFUSED = {
    "_batch_norm_with_update": STATISTICS,
    "_native_batch_norm_legit": STATISTICS,
    "addbmm": MEMORY,
    "as_strided": LAYOUT,
    "as_strided.partial_views": LAYOUT,
    "narrow": MOVING_VIEW,
    "native_batch_norm": STATISTICS,
    "nn.functional.batch_norm": STATISTICS,
    "nn.functional.gaussian_nll_loss": VALUE,
    "nn.functional.instance_norm": STATISTICS,
    "tensor_split": DATA,
    # These are right where all examples give one shape.
    "__getitem__": DATA,
    "argwhere": DATA,
    "index_put": DATA,
    "masked_select": DATA,
    "nn.functional.one_hot": DATA,
    "nonzero": DATA,
    "repeat_interleave": DATA,
    "unique": Reason(DATA.why, "results of different shapes"),
    "unique_consecutive": Reason(DATA.why, "results of different shapes"),
}

SAME_NUMBERS = (
    'under randomness="same", where a parameter differs between examples: each starts from the '
    "same state of the generator"
)
SETS = "a set for each example: there is no operator that sorts and counts in segments"
FREQUENCIES = (
    "with scale_grad_by_freq: PyTorch's kernel divides by the frequency of another row, as only "
    "the same call does"
)
ROUNDING = "of integers or half precision: the result depends on how PyTorch's kernel rounds"

# Operators of PyTorch, whatever the overload, that run once per example.
LOOPS = {
    "aten::_embedding_bag_dense_backward": FREQUENCIES,
    "aten::_unique2": SETS,
    "aten::bernoulli": SAME_NUMBERS,
    "aten::linspace": ROUNDING,
    "aten::logspace": ROUNDING,
    "aten::multinomial": SAME_NUMBERS,
    "aten::normal": SAME_NUMBERS,
    "aten::unique_consecutive": SETS,
    "aten::unique_dim": SETS,
}
