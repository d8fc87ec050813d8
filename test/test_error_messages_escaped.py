"""What the errors say where a tensor is used when its transform has returned."""

import torch
from _messages import fails, ones

import functx


def escaped(F, transform, x):
    """A tensor that is used when its transform has returned."""
    kept = []

    def f(x):
        kept.append(x * 2)
        return x.sum()

    transform(f)(x)
    return kept[0]


def test_tensors_that_have_escaped():
    fails(
        lambda F: escaped(F, F.vmap, ones(2, 3)) + 1,
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: escaped(F, F.vmap, ones(2, 3)).add_(1),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: escaped(F, F.vmap, ones(2, 3))[0].item(),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: escaped(F, F.vmap, ones(2, 3)).tolist(),
        """\
RuntimeError: functx.vmap: .tolist() was called on a tensor that has escaped vmap,
which stands for others and has no memory of its own. Return it from the transformed
function and convert the result, or look at it with functx.debug_unwrap.""",
    )
    fails(
        lambda F: F.vmap(torch.sin)(escaped(F, F.vmap, ones(2, 3))),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: escaped(F, lambda f: F.vmap(F.grad(f)), ones(2, 3)).sum(),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: escaped(F, lambda f: F.jacfwd(f), ones(3)).sum(),
        """\
RuntimeError: functx.jvp: a tensor of this transform has escaped from inside a
function being differentiated: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
        like_torch_func=False,
    )
    fails(
        lambda F: bool(escaped(F, F.vmap, ones(2, 3))[0]),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: ones(3).copy_(escaped(F, F.vmap, ones(2, 3))),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: list(escaped(F, F.vmap, ones(2, 3))),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: escaped(F, F.vmap, ones(2, 3)).numpy(),
        """\
RuntimeError: functx.vmap: .numpy() was called on a tensor that has escaped vmap,
which stands for others and has no memory of its own. Return it from the transformed
function and convert the result, or look at it with functx.debug_unwrap.""",
    )
    fails(
        lambda F: F.grad(lambda x: (x * escaped(F, F.vmap, ones(2, 3))).sum())(ones(3)),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )
    fails(
        lambda F: escaped(F, lambda f: F.vmap(F.vmap(f)), ones(2, 4, 3)).sum(),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped from inside a
function being vmapped: it was used after the transform (level N) had returned,
probably kept in a global, an attribute or a list. Return it from the function
instead.""",
    )


def test_what_an_escaped_tensor_can_still_do():
    for transform in (functx.vmap, functx.jacfwd):
        x = ones(2, 3) if transform is functx.vmap else ones(3)
        tensor = escaped(functx, transform, x)
        assert tensor.shape == (3,)
        assert len(tensor) == 3
        assert "escaped" in repr(tensor)
        assert "escaped" in f"{tensor}"
        assert isinstance(hash(tensor), int)
        assert functx.debug_unwrap(tensor) is not None
