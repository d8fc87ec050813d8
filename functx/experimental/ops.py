"""`HigherOrderOperator`, the class of operators that take functions: PyTorch's own."""

from torch._ops import HigherOrderOperator

__all__ = ["HigherOrderOperator"]
