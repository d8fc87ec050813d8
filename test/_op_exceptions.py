"""What vmap refuses and what it runs in a loop, with the reasons; the coverage page prints them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why there is an error, and what its message has to match."""

    why: str
    message: str


DATA = Reason("the shape of the result depends on the data", "data-dependent shape")
MEMORY = Reason("a tensor under vmap has no memory of its own to resize", "replaces the memory")
STATISTICS = Reason(
    "running statistics that all examples share would be updated by each of them",
    "running statistics that are the same for every example|is the same for every example",
)
SHARED = Reason("writes to a tensor that all examples share", "is the same for every example")
VALUE = Reason(
    "its Python code branches on the values of an argument", r"\.item\(\) was called on a tensor"
)
MOVING_VIEW = Reason(
    "a view at another place in each example", "a view at a different place for each"
)
LAYOUT = Reason(
    "strides that fit an example of its own, and not one that is interleaved with others",
    "contiguous",
)

REFUSED = {
    "__getitem__": DATA,
    "_batch_norm_with_update": STATISTICS,
    "_native_batch_norm_legit": STATISTICS,
    "addbmm": MEMORY,
    "argwhere": DATA,
    "as_strided": LAYOUT,
    "as_strided.partial_views": LAYOUT,
    "masked_select": DATA,
    "narrow": MOVING_VIEW,
    "native_batch_norm": STATISTICS,
    "nn.functional.batch_norm": STATISTICS,
    "nn.functional.gaussian_nll_loss": VALUE,
    "nn.functional.instance_norm": STATISTICS,
    "nonzero": DATA,
    "repeat_interleave": DATA,
    "resize_": MEMORY,
    "resize_as_": MEMORY,
    "tensor_split": DATA,
    "unique": DATA,
    "unique_consecutive": DATA,
}

# Operators of PyTorch that run once per example.
LOOPS = {}
