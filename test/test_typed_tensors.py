"""isinstance(x, torch.FloatTensor) and its like inside transforms: that of what x stands for."""

import subprocess
import sys

import pytest
import torch

import functx
from functx import grad, jacfwd, jvp, linearize, vjp, vmap

TYPES = {
    torch.float32: "FloatTensor",
    torch.float64: "DoubleTensor",
    torch.float16: "HalfTensor",
    torch.bfloat16: "BFloat16Tensor",
    torch.int64: "LongTensor",
    torch.int32: "IntTensor",
    torch.int16: "ShortTensor",
    torch.int8: "CharTensor",
    torch.uint8: "ByteTensor",
    torch.bool: "BoolTensor",
}

TRANSFORMS = {
    "vmap": lambda f, x: vmap(f)(x),
    "vmap(vmap)": lambda f, x: vmap(vmap(f))(x),
    "jvp": lambda f, x: jvp(f, (x,), (x,)),
    "jvp(jvp)": lambda f, x: jvp(lambda x: jvp(f, (x,), (x,)), (x,), (x,)),
    "vmap(jvp)": lambda f, x: vmap(lambda x: jvp(f, (x,), (x,)))(x),
    "jvp(vmap)": lambda f, x: jvp(vmap(f), (x,), (x,)),
    "vmap(grad)": lambda f, x: vmap(grad(lambda x: f(x).sum()))(x),
    "grad(vmap)": lambda f, x: grad(lambda x: vmap(f)(x).sum())(x),
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "linearize": lambda f, x: linearize(f, x),
    "vjp": lambda f, x: vjp(f, x),
    "torch.func.vmap(vmap)": lambda f, x: torch.func.vmap(vmap(f))(x),
    # Not vmap(torch.func.vmap): those tensors are of torch.func's class, which answers for them.
}


def facts(x):
    """All that a program may ask about the type of a tensor."""
    return {
        **{
            f"{module.__name__}.{name}": isinstance(x, getattr(module, name))
            for module in (torch, torch.sparse)
            for name in TYPES.values()
            if hasattr(module, name)
        },
        "type()": x.type(),
        "is_tensor": torch.is_tensor(x),
        "is_storage": torch.is_storage(x),
        "is_floating_point": torch.is_floating_point(x),
        "Tensor": isinstance(x, torch.Tensor),
        "Parameter": isinstance(x, torch.nn.Parameter),
        "converted": x.type(torch.DoubleTensor).dtype,
        "converted by name": x.type("torch.DoubleTensor").type(),
        "type_as": x.type_as(torch.ones(1).double()).dtype,
    }


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_inside_transforms(transform, dtype):
    seen = []

    def f(x):
        seen.append(facts(x))
        return x * 1

    TRANSFORMS[transform](f, torch.ones(2, 3, 4, dtype=dtype))
    assert seen
    assert all(each == facts(torch.ones(2, dtype=dtype)) for each in seen)
    assert seen[0][f"torch.{TYPES[dtype]}"]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type(dtype):
    seen = []
    vmap(lambda x: seen.append(facts(x)) or x)(torch.ones(2, 3).to(dtype))
    jvp(lambda t: seen.append(facts(t.to(dtype))) or t, (torch.ones(2),), (torch.ones(2),))
    assert seen == [facts(torch.ones(2).to(dtype))] * 2


def test_on_other_tensors_nothing_changes():
    for dtype, name in TYPES.items():
        x = torch.ones(2).to(dtype)
        for other in TYPES.values():
            assert isinstance(x, getattr(torch, other)) is (other == name)
    assert isinstance(torch.ones(2).requires_grad_(), torch.FloatTensor)
    assert isinstance(torch.ones(2).to_sparse(), torch.sparse.FloatTensor)
    assert not isinstance(torch.ones(2).to_sparse(), torch.FloatTensor)
    assert not isinstance(torch.ones(2, device="meta"), torch.FloatTensor)
    assert not isinstance(3.0, torch.FloatTensor)
    assert not isinstance(None, torch.FloatTensor)
    seen = []
    torch.func.vmap(lambda x: seen.append(isinstance(x, torch.FloatTensor)) or x)(torch.ones(2))
    assert seen == [True]


def test_an_escaped_tensor_has_a_type_still():
    kept = []
    vmap(lambda x: kept.append(x) or x)(torch.ones(2, 3))
    assert isinstance(kept[0], torch.FloatTensor)


def test_asking_is_possible_in_a_program_that_uses_no_transform():
    program = (
        "import torch, functx\n"
        "assert isinstance(torch.ones(2), torch.FloatTensor)\n"
        "assert not isinstance(torch.ones(2).double(), torch.FloatTensor)\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert functx._C.level_depth() == 0
