"""Looking at tensors inside of transforms: printing, copying, pickling, debug_unwrap."""

import copy
import io
import pickle

import pytest
import torch
from _closed_forms import CASES
from _reference import randn
from torch.testing import assert_close

import functx

# ---- Printing -----------------------------------------------------------------------------------


def seen_by(transform, look, shape=(4, 3)):
    """What `look` makes of the argument of a function under `transform`."""
    seen = []

    def f(x):
        seen.append(look(x))
        return x.sin()

    transform(f)(randn(*shape))
    return seen[0]


def levels_and_value(x):
    """The ids of the levels, from the outside in, and the value."""
    ids = []
    while functx._C.is_wrapper(x):
        ids.append(functx._C.level_of(x).id)
        x = functx._C.unwrap(x)[0]
    return ids, x


# What the text has to name, from the outside in.
KINDS = {
    "vmap": ["BatchedTensor"],
    "jvp": ["DualTensor"],
    "vmap-vmap": ["BatchedTensor", "BatchedTensor"],
    "vmap-jvp": ["DualTensor", "BatchedTensor"],
    "jvp-vmap": ["BatchedTensor", "DualTensor"],
    "vmap-grad": ["BatchedTensor"],
    "jvp-grad": ["DualTensor"],
    "vmap-jvp-grad": ["DualTensor", "BatchedTensor"],
    "hessian": ["DualTensor"],
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("text_of", [repr, str, "{}".format, lambda x: f"{x}"])
def test_text_shows_kinds_levels_and_value(name, text_of):
    transform = CASES[name].transform
    text, (ids, value) = seen_by(transform, lambda x: (text_of(x), levels_and_value(x)))
    assert isinstance(text, str)
    position = 0
    for kind, number in zip(KINDS[name], ids, strict=True):
        position = text.index(f"{kind}(level={number}", position)
    assert repr(value.detach()).rstrip(")").split(", dtype")[0] in text[position:]
    assert ("requires_grad=True" in text) == ("grad" in name or name == "hessian")


def test_text_of_a_dual_tensor_shows_the_tangent():
    x, tangent = randn(3), randn(3)
    text = []
    functx.jvp(lambda x: text.append(repr(x)) or x, (x,), (tangent,))
    for part in (x, tangent):
        assert repr(part) in text[0]


def test_numbers_can_be_formatted_where_there_is_one():
    x = torch.tensor(2.0)
    texts = []
    functx.grad(lambda x: texts.append(f"{x:.2f}") or x * 2)(x)
    functx.jvp(lambda x: texts.append(f"{x:.2f}") or x * 2, (x,), (x,))
    functx.vmap(lambda y: texts.append(f"{x:.2f}") or y)(torch.ones(3))
    assert texts == ["2.00"] * 3
    with pytest.raises(RuntimeError, match="vmap"):
        functx.vmap(lambda x: f"{x:.2f}")(torch.ones(3))


# ---- Copying ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_deepcopy_is_a_constant(name):
    """As on a plain leaf: it has the values, and no derivative."""
    x, case = randn(4, 3), CASES[name]

    def f(x):
        return x.sin().square() + copy.deepcopy(leaf(x)).sin() - leaf(x).sin().detach()

    # A leaf, in all strata that the function knows of.
    leaf = lambda x: x.detach()
    assert_close(case.transform(f)(x), case.expected(x))


def test_deepcopy_of_a_batch_and_what_it_does_to_it():
    x = randn(4, 3)

    def f(x):
        first, second = copy.deepcopy([x, x])
        assert first is second  # as in any list
        assert functx._C.is_wrapper(first)
        first.add_(1)
        return first, x

    assert_close(functx.vmap(f)(x), (x + 1, x))


def test_deepcopy_keeps_requires_grad():
    flags = []

    def f(x):
        flags.extend([x.requires_grad, copy.deepcopy(x).requires_grad])
        with pytest.raises(RuntimeError, match="leaves"):
            copy.deepcopy(x * 2)  # what PyTorch says of any tensor in a graph
        return x.sin().sum()

    functx.vmap(functx.grad(f))(randn(4, 3))
    assert flags == [True, True]


def test_deepcopy_of_a_module_that_holds_them():
    model, xs = torch.nn.Linear(3, 2).double(), randn(4, 3)

    class Copies(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return copy.deepcopy(self.inner)(x)

    parameters = {f"inner.{n}": p.detach() for n, p in model.named_parameters()}
    stacked = {n: torch.stack([p, 2 * p]) for n, p in parameters.items()}
    call = lambda p, x: functx.functional_call(Copies(), p, (x,))
    actual = functx.vmap(call, (0, None))(stacked, xs)
    assert_close(actual.detach(), torch.stack([model(xs), 2 * model(xs)]).detach())


COPIES = {
    "pickle": pickle.dumps,
    "torch.save": lambda x: torch.save(x, io.BytesIO()),
    "copy.copy": copy.copy,
    "in-a-list": lambda x: pickle.dumps([x, {"x": x}]),
}


@pytest.mark.parametrize("name", ["vmap", "jvp", "vmap-grad", "hessian"])
@pytest.mark.parametrize("how", COPIES)
def test_pickle_says_what_to_do(how, name):
    with pytest.raises(RuntimeError, match=r"functx\.(vmap|jvp): pickle.*Return it") as error:
        seen_by(CASES[name].transform, COPIES[how])
    assert "clone" in str(error.value)
    assert functx._C.level_depth() == 0


def test_plain_tensors_are_copied_as_ever():
    x = randn(3).requires_grad_()
    x.grad = randn(3)
    functx.vmap(torch.sin)(x)
    for copied in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), copy.copy(x)):
        assert copied is not x
        assert_close(copied, x)
    assert_close(copy.deepcopy(x).grad, x.grad)
    assert copy.copy(x).data_ptr() == x.data_ptr()


# ---- debug_unwrap -------------------------------------------------------------------------------

TRANSFORMS = ["vmap", "grad", "jvp"]


def apply(module, name, f, x):
    if name == "jvp":
        return module.jvp(f, (x,), (torch.ones_like(x),))[1]
    if name == "grad":
        return module.grad(lambda x: f(x).sum())(x)
    return module.vmap(f)(x)


def unwrapped(module, names, recurse):
    """What debug_unwrap of a library gives inside of nested transforms of that library."""
    seen = []

    def f(x):
        value = module.debug_unwrap(x, recurse=recurse)
        seen.append((value.shape, value) if recurse else (value.shape,))
        return x.sin()

    for name in names:
        f = lambda x, f=f, name=name: apply(module, name, f, x)
    f(torch.linspace(0, 1, 8, dtype=torch.float64).view(2, 2, 2))
    return seen[0]


@pytest.mark.parametrize("recurse", [True, False])
@pytest.mark.parametrize("outer", [*TRANSFORMS, None])
@pytest.mark.parametrize("inner", TRANSFORMS)
def test_debug_unwrap_as_in_torch_func(inner, outer, recurse):
    names = [name for name in (inner, outer) if name is not None]
    actual = unwrapped(functx, names, recurse)
    expected = unwrapped(torch.func, names, recurse)
    assert actual[0] == expected[0]
    assert_close(actual[1:], expected[1:])


@pytest.mark.parametrize("name", CASES)
def test_what_is_computed_from_it_is_not_transformed(name):
    """So numpy can have it, and it has no part in a derivative."""
    x, case = randn(4, 3), CASES[name]

    def f(x):
        value = functx.debug_unwrap(x)
        assert not functx._C.is_wrapper(value)
        assert not value.requires_grad
        assert value.numpy().dtype == "float64"
        return x.sin().square()

    assert_close(case.transform(f)(x), case.expected(x))


def test_one_level_keeps_the_tangent():
    def f(x):
        once = functx.debug_unwrap(x, recurse=False)
        assert not once.requires_grad
        assert functx._C.unwrap(once)[1] is not None
        return x.sin().sum()

    functx.jvp(functx.grad(f), (randn(3),), (randn(3),))


def test_plain_tensors_are_returned_as_they_are():
    x = randn(3)
    weight = torch.nn.Parameter(x)
    assert functx.debug_unwrap(x) is x
    assert functx.debug_unwrap(weight) is weight
    functx.vmap(lambda y: [functx.debug_unwrap(weight) is weight or 1 / 0, y][1])(x)
    with pytest.raises(TypeError):
        functx.debug_unwrap("x")
