"""Errors name the transform and say what to do, and leave nothing behind."""

import re

import pytest
import torch
from _reference import randn
from torch.testing import assert_close

import functx

ANY_ERROR = (RuntimeError, ValueError, TypeError, IndexError)


def assert_raises(call, *patterns):
    """`call` raises an error whose message matches every pattern and gives some advice; afterwards
    no level is left and the next transform works."""
    grad_mode = torch.is_grad_enabled()
    with pytest.raises(ANY_ERROR) as info:
        call()
    message = str(info.value)
    for pattern in patterns:
        assert re.search(pattern, message), f"{pattern!r} is not in: {message}"
    assert len(message.split()) >= 8, f"this does not say what to do: {message}"
    assert functx._C.level_depth() == 0
    assert torch.is_grad_enabled() == grad_mode
    x = randn(3)
    assert_close(functx.vmap(functx.grad(torch.sin))(x), x.cos())
    assert_close(functx.jvp(torch.sin, (x,), (x,))[1], x * x.cos())


# ---- vmap: what cannot be one value for a batch ------------------------------------------------

VALUES = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "int": lambda x: int(x[0]),
    "bool": lambda x: bool(x[0] > 0),
    "if": lambda x: x if x.sum() > 0 else -x,
    "not": lambda x: x * (not x.any()),
    "numpy": lambda x: x.numpy(),
    "tolist": lambda x: x.tolist(),
    "array": lambda x: x.__array__(),
    "index": lambda x: list(range(5))[x[0].long()],
    "in": lambda x: 3.0 in x,
    "complex": lambda x: complex(x[0]),
    "equal": lambda x: torch.equal(x, x.abs()),  # true in one example, false in another
    "allclose": lambda x: torch.allclose(x, x),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("nesting", ["vmap", "vmap-vmap", "vmap-grad", "jvp-vmap"])
def test_values_of_a_batched_tensor(name, nesting):
    def f(x):
        VALUES[name](x)
        return x.sum()

    x = torch.stack([torch.ones(4), -torch.ones(4)]).double()
    calls = {
        "vmap": lambda: functx.vmap(f)(x),
        "vmap-vmap": lambda: functx.vmap(functx.vmap(f))(x[None]),
        "vmap-grad": lambda: functx.vmap(functx.grad(f))(x),
        "jvp-vmap": lambda: functx.jvp(functx.vmap(f), (x,), (x,)),
    }
    # What requires grad has no .numpy() anywhere: PyTorch says so before it asks us.
    assert_raises(calls[nesting], "vmap|numpy\\(\\) on Tensor that requires grad")


DATA_DEPENDENT_SHAPES = {
    "nonzero": lambda x: x.nonzero(),
    "nonzero_as_tuple": lambda x: x.nonzero(as_tuple=True)[0],
    "where": lambda x: torch.where(x > 0)[0],
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "unique_consecutive": lambda x: x.unique_consecutive(),
    "argwhere": lambda x: torch.argwhere(x),
    "bincount": lambda x: torch.bincount(x.long().abs()),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, x.long().abs()),
}


@pytest.mark.parametrize("name", DATA_DEPENDENT_SHAPES)
@pytest.mark.parametrize("nesting", ["vmap", "vmap-vmap"])
def test_data_dependent_shapes_that_differ(name, nesting):
    f = DATA_DEPENDENT_SHAPES[name]
    x = torch.tensor([[1.0, 0, 2], [0, 0, 3], [0, 0, 4]], dtype=torch.float64)
    calls = {
        "vmap": lambda: functx.vmap(f)(x),
        "vmap-vmap": lambda: functx.vmap(functx.vmap(f))(x[:, None]),
    }
    assert_raises(calls[nesting], "vmap", "shape")


VIEWS_AT_PLACES = {
    "narrow": (lambda x, i: x.narrow(0, i, 1), "index_select"),
    "tensor_split": (lambda x, i: x.tensor_split(i[None]), "data-dependent"),
    "tensor_split into sections": (lambda x, i: x.tensor_split(i + 1), "data-dependent"),
}


@pytest.mark.parametrize("name", VIEWS_AT_PLACES)
@pytest.mark.parametrize("transform", ["vmap", "vmap-grad", "jvp-vmap"])
def test_views_at_places_that_differ(name, transform):
    f, remedy = VIEWS_AT_PLACES[name]
    x, index = randn(2, 3), torch.tensor([0, 1])

    def first(x, i):
        out = f(x, i)
        return (out if isinstance(out, torch.Tensor) else out[0]).sum()

    calls = {
        "vmap": lambda: functx.vmap(first)(x, index),
        "vmap-grad": lambda: functx.vmap(functx.grad(first))(x, index),
        "jvp-vmap": lambda: functx.jvp(lambda x: functx.vmap(first)(x, index), (x,), (x,)),
    }
    assert_raises(calls[transform], "vmap", remedy)


def test_the_operator_is_named_when_its_shape_depends_on_data():
    x = torch.tensor([[1.0, 0, 2], [0, 0, 3]])
    assert_raises(lambda: functx.vmap(torch.nonzero)(x), "vmap", "nonzero gives differs .* 1 to 2")
    assert_raises(
        lambda: functx.vmap(lambda x: x[x > 0])(x), "vmap", "boolean mask gives differs .* 1 to 2"
    )
    assert_raises(lambda: functx.vmap(torch.unique)(x), "vmap", "unique")


def test_writing_a_batched_value_into_an_unbatched_tensor():
    constant = torch.zeros(3, dtype=torch.float64)

    def by_operator(x):
        return constant.clone().add_(x)

    def by_index(x):
        y = torch.zeros(3, dtype=x.dtype)
        y[0] = x.sum()
        return y

    def by_copy(x):
        return constant.copy_(x)

    for f in (by_operator, by_index, by_copy):
        assert_raises(lambda f=f: functx.vmap(f)(randn(2, 3)), "vmap", "in-?place|writes into")
    assert_close(constant, torch.zeros(3, dtype=torch.float64))


# ---- vmap: bad calls ----------------------------------------------------------------------------

BAD_VMAP_CALLS = {
    "mismatched sizes": (lambda: functx.vmap(torch.mul)(randn(2), randn(3)), "same size.*2.*3"),
    "no inputs": (lambda: functx.vmap(lambda: 1)(), "no inputs"),
    "nothing mapped": (lambda: functx.vmap(torch.sin, in_dims=None)(randn(2)), "in_dims"),
    "all None": (lambda: functx.vmap(torch.sin, (None,))(randn(2)), "at least one Tensor"),
    "in_dim too large": (lambda: functx.vmap(torch.sin, 1)(randn(2)), "in_dim=1.*dimensionality 1"),
    "in_dim too small": (lambda: functx.vmap(torch.sin, -2)(randn(2)), "in_dim=-2"),
    "scalar input": (lambda: functx.vmap(torch.sin)(randn()), "in_dim=0.*dimensionality 0"),
    "in_dim is a string": (lambda: functx.vmap(torch.sin, ("a",))(randn(2)), "in_dim"),
    "in_dims too long": (lambda: functx.vmap(torch.sin, (0, 0))(randn(2)), "not compatible"),
    "in_dims is a float": (lambda: functx.vmap(torch.sin, 0.5)(randn(2)), "in_dims"),
    "in_dim for a number": (lambda: functx.vmap(torch.mul)(randn(2), 3.0), "in_dim=0.*float"),
    "out_dim too large": (
        lambda: functx.vmap(torch.sin, 0, 2)(randn(2, 2, 2)[:, 0, 0]),
        "out_?dim|Dimension",
    ),
    "out_dims too long": (lambda: functx.vmap(torch.sin, 0, (0, 0))(randn(2)), "out_dims"),
    "out_dim is a string": (lambda: functx.vmap(torch.sin, 0, "a")(randn(2)), "out_dims"),
    "out_dim None": (lambda: functx.vmap(torch.sin, 0, None)(randn(2)), "out_dim"),
    "returns a number": (
        lambda: functx.vmap(lambda x: 1.0)(randn(2)),
        "only return Tensors.*float",
    ),
    "returns None": (lambda: functx.vmap(lambda x: None)(randn(2)), "only return Tensors.*None"),
    "returns a string in a tuple": (
        lambda: functx.vmap(lambda x: (x, "a"))(randn(2)),
        "only return Tensors.*str",
    ),
    "chunk_size 0": (lambda: functx.vmap(torch.sin, chunk_size=0)(randn(2)), "chunk_size"),
    "randomness": (lambda: functx.vmap(torch.sin, randomness="x")(randn(2)), "randomness"),
}


@pytest.mark.parametrize("name", BAD_VMAP_CALLS)
def test_bad_calls_of_vmap(name):
    call, pattern = BAD_VMAP_CALLS[name]
    assert_raises(call, "vmap", f"(?s){pattern}")


# ---- derivatives: bad calls ---------------------------------------------------------------------

ARGNUM_TRANSFORMS = ["grad", "grad_and_value", "jacrev", "jacfwd", "hessian"]
# hessian is jacfwd of jacrev: its errors may name these.
NAMES = {"grad_and_value": "grad", "hessian": "hessian|jacfwd|jacrev"}
argnum_transforms = pytest.mark.parametrize("name", ARGNUM_TRANSFORMS)


def square_sum(x, *rest):
    return (x * x).sum()


@argnum_transforms
@pytest.mark.parametrize("argnums", [2, -3, (0, 2), (), (0, 0), (0, -2), 1.5, "x", [0]])
def test_bad_argnums(name, argnums):
    def call():
        getattr(functx, name)(square_sum, argnums=argnums)(randn(2), randn(2))

    assert_raises(call, NAMES.get(name, name), "argnum")


@argnum_transforms
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_inputs_that_are_not_floating_point(name, dtype):
    def call():
        getattr(functx, name)(lambda x: x.double().sum())(torch.ones(2).to(dtype))

    assert_raises(call, NAMES.get(name, name), "float")


@argnum_transforms
def test_inputs_that_are_not_tensors(name):
    assert_raises(
        lambda: getattr(functx, name)(lambda x: x * x)(2.0), NAMES.get(name, name), "Tensor"
    )


@argnum_transforms
def test_no_arguments(name):
    assert_raises(lambda: getattr(functx, name)(lambda: randn())(), NAMES.get(name, name), "argnum")


@argnum_transforms
@pytest.mark.parametrize("output", [1.0, None, "text", (1, 2)])
def test_outputs_that_are_not_tensors(name, output):
    def call():
        getattr(functx, name)(lambda x: output)(randn(2))

    assert_raises(call, NAMES.get(name, name), "Tensor|tensor|empty")


@pytest.mark.parametrize("name", [n for n in ARGNUM_TRANSFORMS if n != "hessian"])
@pytest.mark.parametrize(
    "f",
    [lambda x: x.sum(), lambda x: (x.sum(),) * 3, lambda x: [x.sum(), x], lambda x: (x.sum(), 1)],
    ids=["no pair", "three", "list", "not a tensor"],
)
def test_bad_aux(name, f):
    assert_raises(
        lambda: getattr(functx, name)(f, has_aux=True)(randn(2)),
        "grad|jac|vjp|jvp",
        "aux|unsupported type",
    )


@pytest.mark.parametrize("name", ["grad", "grad_and_value"])
def test_grad_wants_a_real_scalar(name):
    transform = getattr(functx, name)
    assert_raises(lambda: transform(torch.sin)(randn(2)), "grad", "scalar")
    assert_raises(lambda: transform(lambda x: (x.sum(), x))(randn(2)), "grad", "Tensor")
    complex_input = torch.randn(2, dtype=torch.complex128)
    assert_raises(lambda: transform(torch.sum)(complex_input), "grad", "complex|real")


@pytest.mark.parametrize("name", ["jacrev", "jacfwd", "hessian"])
def test_jacobians_are_of_real_functions(name):
    complex_input = torch.randn(2, dtype=torch.complex128)
    assert_raises(
        lambda: getattr(functx, name)(torch.exp)(complex_input), NAMES.get(name, name), "real"
    )


BAD_VJP_CALLS = {
    "integer input": (lambda: functx.vjp(torch.sin, torch.ones(2, dtype=torch.int64)), "float"),
    "number": (lambda: functx.vjp(torch.sin, 1.0), "Tensor|Unrecognized type"),
    "output": (lambda: functx.vjp(lambda x: 1.0, randn(2)), "tensor"),
    "empty output": (lambda: functx.vjp(lambda x: (), randn(2)), "output"),
    "shape": (lambda: functx.vjp(torch.sin, randn(2))[1](randn(3)), "shape|size"),
    "structure": (lambda: functx.vjp(torch.sin, randn(2))[1]((randn(2), randn(2))), "structure"),
    "aux": (lambda: functx.vjp(torch.sin, randn(2), has_aux=True), "aux"),
}


@pytest.mark.parametrize("name", BAD_VJP_CALLS)
def test_bad_calls_of_vjp(name):
    call, pattern = BAD_VJP_CALLS[name]
    assert_raises(call, "vjp", pattern)


def square(x, *rest):
    return x * x


BAD_JVP_CALLS = {
    "not a tuple": (lambda: functx.jvp(square, randn(2), randn(2)), "tuple"),
    "structure": (lambda: functx.jvp(square, (randn(2),), (randn(2), randn(2))), "structure"),
    "no input": (lambda: functx.jvp(lambda: randn(), (), ()), "at least one"),
    "number": (lambda: functx.jvp(square, (1.0,), (1.0,)), "Tensor"),
    "shape": (lambda: functx.jvp(square, (randn(2),), (randn(3),)), "size"),
    "integer": (
        lambda: functx.jvp(square, (torch.ones(2, dtype=torch.int64),), (randn(2),)),
        "float",
    ),
    "output": (lambda: functx.jvp(lambda x: 1.0, (randn(2),), (randn(2),)), "tensor"),
    "aux": (lambda: functx.jvp(square, (randn(2),), (randn(2),), has_aux=True), "aux"),
    "strict": (
        lambda: functx.jvp(lambda x: torch.ones(2), (randn(2),), (randn(2),), strict=True),
        "independent",
    ),
}


@pytest.mark.parametrize("name", BAD_JVP_CALLS)
def test_bad_calls_of_jvp(name):
    call, pattern = BAD_JVP_CALLS[name]
    assert_raises(call, "jvp", pattern)
