"""Control flow that `torch.export` can see: PyTorch's own `cond` and `map`."""

from functorch.experimental.control_flow import cond, map

__all__ = ["cond", "map"]
