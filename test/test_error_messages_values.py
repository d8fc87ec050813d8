"""What the errors say where one value, shape or memory is asked of a tensor inside of vmap."""

import io
import math

import numpy
import torch
from _messages import fails, ones

MASKED = torch.tensor([[1.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])


def test_numbers_of_a_batched_tensor():
    fails(
        lambda F: F.vmap(lambda x: x * x.item())(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: float(x))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: [1, 2][x.long()])(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.arange(x))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: int(x))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: math.sin(x))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.tensor([x, x]))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x[: x[0].long()])(ones(3, 2)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: f"{x:.2f}")(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.item())(ones(3, 2)),
        """RuntimeError: a Tensor with 2 elements cannot be converted to Scalar""",
    )
    fails(
        lambda F: F.vmap(lambda x: F.vmap(lambda y: x.item() * y)(ones(2)))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(F.grad(lambda x: x * x.item()))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.narrow(0, x[0].long(), 1))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: narrow got a start that differs between examples: the
result would be a view at a different place for each. Use x.index_select(dim, start +
torch.arange(length)) or gather, which copy.""",
    )


def test_truth_of_a_batched_tensor():
    fails(
        lambda F: F.vmap(lambda x: x if x.sum() > 0 else -x)(ones(3, 2)),
        """\
RuntimeError: functx.vmap: It looks like you're attempting to use a Tensor in some
data-dependent control flow, by `if x:`, `while x:`, `not x`, max(x, y) or the like.
It differs between examples, so it is neither true nor false. Compute both branches
and choose with torch.where, or use torch.cond; torch.logical_not, torch.maximum and
so on return tensors.""",
    )
    fails(
        lambda F: F.vmap(lambda x: max(x, 2 * x))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're attempting to use a Tensor in some
data-dependent control flow, by `if x:`, `while x:`, `not x`, max(x, y) or the like.
It differs between examples, so it is neither true nor false. Compute both branches
and choose with torch.where, or use torch.cond; torch.logical_not, torch.maximum and
so on return tensors.""",
    )
    fails(
        lambda F: F.vmap(lambda x: bool(x))(ones(3, 2)),
        """RuntimeError: Boolean value of Tensor with more than one value is ambiguous""",
    )
    fails(
        lambda F: F.vmap(F.vmap(lambda x: x * (not x)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: It looks like you're attempting to use a Tensor in some
data-dependent control flow, by `if x:`, `while x:`, `not x`, max(x, y) or the like.
It differs between examples, so it is neither true nor false. Compute both branches
and choose with torch.where, or use torch.cond; torch.logical_not, torch.maximum and
so on return tensors.""",
    )
    fails(
        lambda F: F.vmap(F.grad(lambda x: x if x > 0 else -x))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're attempting to use a Tensor in some
data-dependent control flow, by `if x:`, `while x:`, `not x`, max(x, y) or the like.
It differs between examples, so it is neither true nor false. Compute both branches
and choose with torch.where, or use torch.cond; torch.logical_not, torch.maximum and
so on return tensors.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x * torch.equal(x, x))(ones(3)),
        """\
RuntimeError: functx.vmap: torch.equal was called on a tensor that differs between
examples, and gives one answer for all of them. Use (x == y).all(), which gives one
for each.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x * torch.allclose(x, x))(ones(3)),
        """\
RuntimeError: functx.vmap: torch.allclose was called on a tensor that differs between
examples, and gives one answer for all of them. Use torch.isclose(x, y).all(), which
gives one for each.""",
    )
    fails(
        lambda F: F.vmap(lambda x: sorted([x, 2 * x]))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're attempting to use a Tensor in some
data-dependent control flow, by `if x:`, `while x:`, `not x`, max(x, y) or the like.
It differs between examples, so it is neither true nor false. Compute both branches
and choose with torch.where, or use torch.cond; torch.logical_not, torch.maximum and
so on return tensors.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x in [0.0, 2 * x])(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're attempting to use a Tensor in some
data-dependent control flow, by `if x:`, `while x:`, `not x`, max(x, y) or the like.
It differs between examples, so it is neither true nor false. Compute both branches
and choose with torch.where, or use torch.cond; torch.logical_not, torch.maximum and
so on return tensors.""",
    )


def test_memory_of_a_batched_tensor():
    fails(
        lambda F: F.vmap(lambda x: x.numpy())(ones(3)),
        """\
RuntimeError: functx.vmap: .numpy() was called on a tensor inside vmap, which stands
for others and has no memory of its own. Return it from the transformed function and
convert the result, or look at it with functx.debug_unwrap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.tolist())(ones(3)),
        """\
RuntimeError: functx.vmap: .tolist() was called on a tensor inside vmap, which stands
for others and has no memory of its own. Return it from the transformed function and
convert the result, or look at it with functx.debug_unwrap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.data_ptr())(ones(3)),
        """RuntimeError: Cannot access data pointer of Tensor that doesn't have storage""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.untyped_storage())(ones(3)),
        """\
NotImplementedError: Cannot access storage of a tensor inside functx.vmap: it stands
for one example of a batch and has no memory of its own. Return it from the function,
or look at it with functx.debug_unwrap""",
    )
    fails(
        lambda F: F.vmap(lambda x: list(x))(ones(3)),
        """TypeError: iteration over a 0-d tensor""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.set_(x))(ones(3)),
        """\
NotImplementedError: functx.vmap: aten::set_ replaces the memory of a tensor, and a
tensor inside vmap has none of its own. Use an operator that returns a new tensor,
such as new_empty, reshape or copy_.""",
        like_torch_func=False,
    )
    fails(
        lambda F: F.vmap(lambda x: numpy.sin(x))(ones(3)),
        """\
RuntimeError: functx.vmap: .numpy() was called on a tensor inside vmap, which stands
for others and has no memory of its own. Return it from the transformed function and
convert the result, or look at it with functx.debug_unwrap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.save(x, io.BytesIO()))(ones(3)),
        """\
NotImplementedError: functx.vmap: pickle or copy.copy was called on a tensor inside
vmap, which stands for others and has no memory of its own. Return it from the
transformed function and pickle the result; to copy it, call its clone().""",
    )
    fails(lambda F: F.vmap(lambda x: len(x))(ones(3)), """TypeError: len() of a 0-d tensor""")
    fails(
        lambda F: F.vmap(lambda x: x.set_(ones(2)))(ones(3)),
        """\
NotImplementedError: functx.vmap: aten::set_ replaces the memory of a tensor, and a
tensor inside vmap has none of its own. Use an operator that returns a new tensor,
such as new_empty, reshape or copy_.""",
        like_torch_func=False,
    )
    fails(
        lambda F: F.grad(lambda x: x.numpy().sum())(ones(3)),
        """\
RuntimeError: Can't call numpy() on Tensor that requires grad. Use
tensor.detach().numpy() instead.""",
    )


def test_shapes_that_depend_on_the_data():
    fails(
        lambda F: F.vmap(torch.nonzero)(MASKED),
        """\
RuntimeError: functx.vmap: the number of elements that nonzero gives differs between
examples (from 1 to 2), and different shapes cannot be one batch: its result has a
dynamic shape (data-dependent shape). Call it outside vmap, or use what has a fixed
shape, such as torch.where(mask, x, other), a masked reduction like (x * mask).sum(),
sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.where(x > 0)[0])(MASKED),
        """\
RuntimeError: functx.vmap: the number of elements that nonzero gives differs between
examples (from 1 to 2), and different shapes cannot be one batch: its result has a
dynamic shape (data-dependent shape). Call it outside vmap, or use what has a fixed
shape, such as torch.where(mask, x, other), a masked reduction like (x * mask).sum(),
sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x[x > 0])(MASKED),
        """\
RuntimeError: functx.vmap: the number of elements that indexing with a boolean mask
gives differs between examples (from 1 to 2), and different shapes cannot be one
batch: its result has a dynamic shape (data-dependent shape). Call it outside vmap, or
use what has a fixed shape, such as torch.where(mask, x, other), a masked reduction
like (x * mask).sum(), sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.masked_select(x > 0))(MASKED),
        """\
RuntimeError: functx.vmap: the number of elements that masked_select gives differs
between examples (from 1 to 2), and different shapes cannot be one batch: its result
has a dynamic shape (data-dependent shape). Call it outside vmap, or use what has a
fixed shape, such as torch.where(mask, x, other), a masked reduction like (x *
mask).sum(), sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.clone().__setitem__(x > 0, x))(MASKED),
        """\
RuntimeError: functx.vmap: the number of elements that indexing with a boolean mask
gives differs between examples (from 1 to 2), and different shapes cannot be one
batch: its result has a dynamic shape (data-dependent shape). Call it outside vmap, or
use what has a fixed shape, such as torch.where(mask, x, other), a masked reduction
like (x * mask).sum(), sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(torch.unique)(MASKED),
        """\
RuntimeError: functx.vmap: aten::_unique2 gives results of different shapes for
different examples ([3] and [2]), a dynamic shape (data-dependent shape), which cannot
be one batch. Call it outside vmap, or use an operator whose result has a fixed shape.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.repeat_interleave(x, x.long()))(MASKED),
        """\
RuntimeError: functx.vmap: the number of elements that repeat_interleave gives differs
between examples (from 2 to 3), and different shapes cannot be one batch: its result
has a dynamic shape (data-dependent shape). Call it outside vmap, or use what has a
fixed shape, such as torch.where(mask, x, other), a masked reduction like (x *
mask).sum(), sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.bincount(x.long()))(MASKED),
        """\
RuntimeError: functx.vmap: the number of elements that bincount gives differs between
examples (from 3 to 4), and different shapes cannot be one batch: its result has a
dynamic shape (data-dependent shape). Call it outside vmap, or use what has a fixed
shape, such as torch.where(mask, x, other), a masked reduction like (x * mask).sum(),
sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.nn.functional.one_hot(x.long()))(MASKED),
        """\
RuntimeError: functx.vmap: the number of elements that one_hot without num_classes
gives differs between examples (from 3 to 4), and different shapes cannot be one
batch: its result has a dynamic shape (data-dependent shape). Pass an explicit
positive num_classes.""",
    )
