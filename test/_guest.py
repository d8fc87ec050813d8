"""What there is of PyTorch that functx may touch, as a child process of test_guest.py sees it."""

import ctypes
import sys
import types

import torch
import torch.autograd.functional
import torch.library
import torch.utils.checkpoint
from torch import _vmap_internals
from torch._functorch.autograd_function import custom_function_call

TENSORS = (torch._C.TensorBase, torch.Tensor, torch.nn.Parameter)
CLASSES = (
    *TENSORS,
    type(torch.FloatTensor),
    torch.autograd.Function,
    *torch.autograd.Function.__mro__[1:-1],
    torch.autograd.graph.saved_tensors_hooks,
)
MODULES = (
    torch,
    torch._C,
    torch._C._autograd,
    torch._tensor,
    torch._tensor_str,
    torch.autograd,
    torch.autograd.functional,
    torch.autograd.function,
    torch.autograd.graph,
    torch.library,
    torch.overrides,
    torch.utils.checkpoint,
    _vmap_internals,
)

POINTER = ctypes.sizeof(ctypes.c_void_p)
# From CPython's headers: where a method, a built-in function and an attribute have what calls C.
DEFINITIONS = {
    types.MethodDescriptorType: 5,
    types.BuiltinFunctionType: 2,
    types.GetSetDescriptorType: 5,
}
ALLOCATOR = 38  # of a class, in pointers
MAPPING = 14


def word(address: int) -> int:
    return ctypes.c_void_p.from_address(address).value or 0


def words(address: int, count: int) -> tuple[int, ...]:
    return tuple(word(address + i * POINTER) for i in range(count)) if address else ()


def inside(value: object) -> object:
    """What an attribute does when it is called, besides what it is."""
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, types.FunctionType):
        return value.__code__, value.__defaults__
    if type(value) in DEFINITIONS:
        return words(word(id(value) + DEFINITIONS[type(value)] * POINTER), 3)
    if isinstance(value, types.WrapperDescriptorType):
        return word(id(value) + 6 * POINTER)
    return None


def attributes() -> dict[tuple[object, str], object]:
    return {
        (owner, name): value
        for owner in (*CLASSES, *MODULES)
        for name, value in vars(owner).items()
    }


def slots() -> list[object]:
    """Of the classes of tensors: what allocates objects, and what x[...] calls."""
    return [
        (word(id(each) + ALLOCATOR * POINTER), words(word(id(each) + MAPPING * POINTER), 3))
        for each in TENSORS
    ]


def insides() -> dict[tuple[object, str], object]:
    return {place: inside(value) for place, value in attributes().items()}


def others() -> list[object]:
    return [
        list(sys.meta_path),
        dict(custom_function_call.py_kernels),
        custom_function_call.non_fallthrough_keys.raw_repr(),
    ]


def changed(before: dict, after: dict) -> list[tuple[object, str]]:
    return [place for place, value in before.items() if after.get(place) is not value]
