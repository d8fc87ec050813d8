"""Control flow that `torch.export` can see, as in `functorch.experimental.control_flow`."""

from functorch.experimental.control_flow import map

from .._control_flow import cond

__all__ = ["cond", "map"]
