"""vmap: what its errors say."""

import torch
from _messages import fails, refuses
from torch.nn.functional import batch_norm

MASKED = torch.tensor([[1.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])


def ones(*shape):
    return torch.ones(shape)


def zeros(*shape):
    return torch.zeros(shape)


def escaped(F, transform, x):
    """A tensor that is used when its transform has returned."""
    kept = []

    def f(x):
        kept.append(x * 2)
        return x.sum()

    transform(f)(x)
    return kept[0]


def test_vmap_wants_something_to_map():
    refuses(
        lambda F, f: F.vmap(f)(),
        """\
ValueError: vmap(f)(<inputs>): got no inputs. Pass at least one tensor by position:
keyword arguments are not mapped over.""",
    )
    refuses(
        lambda F, f: F.vmap(f)(x=ones(2)),
        """\
ValueError: vmap(f)(<inputs>): got no inputs. Pass at least one tensor by position:
keyword arguments are not mapped over.""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=(None, None))(ones(2), ones(2)),
        """\
ValueError: vmap(f, in_dims=(None, None), ...)(<inputs>): Expected at least one Tensor
to vmap over, but in_dims is None for every input. Name the mapped dimension of one.""",
    )
    refuses(
        lambda F, f: F.vmap(f)(ones(2), 3.0),
        """\
ValueError: vmap(f, in_dims=0, ...)(<inputs>): Got in_dim=0 for an input but the input
is of type <class 'float'>. Only tensors can be mapped over; give argument 1 in_dim
None to pass it unchanged.""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=(0, {"a": 0}))(ones(2), {"a": "text"}),
        """\
ValueError: vmap(f, in_dims=(0, {'a': 0}), ...)(<inputs>): Got in_dim=0 for an input
but the input is of type <class 'str'>. Only tensors can be mapped over; give argument
1 at ['a'] in_dim None to pass it unchanged.""",
    )
    refuses(
        lambda F, f: F.vmap(ones(2))(ones(2)),
        """\
TypeError: vmap: expected a function to transform, got <class 'torch.Tensor'>. Pass
the function itself, f, and not its result, f(x).""",
    )


def test_in_dims_of_the_wrong_type():
    refuses(
        lambda F, f: F.vmap(f, in_dims=[0])(ones(2)),
        """\
ValueError: vmap(f, in_dims=[0], ...): expected `in_dims` to be int or a (potentially
nested) tuple matching the structure of inputs, got: <class 'list'>. Write one entry
for each positional argument: in_dims=(0, None).""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=None)(ones(2)),
        """\
ValueError: vmap(f, in_dims=None, ...): expected `in_dims` to be int or a (potentially
nested) tuple matching the structure of inputs, got: <class 'NoneType'>. Write one
entry for each positional argument: in_dims=(0, None).""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=0.5)(ones(2)),
        """\
ValueError: vmap(f, in_dims=0.5, ...): expected `in_dims` to be int or a (potentially
nested) tuple matching the structure of inputs, got: <class 'float'>. Write one entry
for each positional argument: in_dims=(0, None).""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=("a",))(ones(2)),
        """\
ValueError: vmap(f, in_dims=('a',), ...)(<inputs>): Got in_dim=a for an input but
in_dim must be either an integer dimension or None. It is the one for argument 0.""",
    )


def test_in_dims_of_the_wrong_structure():
    refuses(
        lambda F, f: F.vmap(f, in_dims=(0, 0))(ones(2)),
        """\
ValueError: vmap(f, in_dims=(0, 0), ...)(<inputs>): in_dims is not compatible with the
structure of `inputs`. in_dims has structure (*, *) but inputs have structure (*,).
Write one entry for each positional argument; an int or None may stand for a whole
container.""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=({"a": 0}, 0))({"b": ones(2)}, ones(2)),
        """\
ValueError: vmap(f, in_dims=({'a': 0}, 0), ...)(<inputs>): in_dims is not compatible
with the structure of `inputs`. in_dims has structure ({'a': *}, *) but inputs have
structure ({'b': *}, *). Write one entry for each positional argument; an int or None
may stand for a whole container.""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=((0, 0), 0))(ones(2), ones(2)),
        """\
ValueError: vmap(f, in_dims=((0, 0), 0), ...)(<inputs>): in_dims is not compatible
with the structure of `inputs`. in_dims has structure ((*, *), *) but inputs have
structure (*, *). Write one entry for each positional argument; an int or None may
stand for a whole container.""",
    )


def test_in_dims_out_of_range():
    refuses(
        lambda F, f: F.vmap(f, in_dims=(0, 2))(ones(2), ones(2, 3)),
        """\
ValueError: vmap(f, in_dims=(0, 2), ...)(<inputs>): Got in_dim=2 for some input, but
that input is a Tensor of dimensionality 2 so expected in_dim to satisfy -2 <= in_dim
< 2. Give argument 1 in_dim None if it is the same for every example.""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=-2)([ones(2)]),
        """\
ValueError: vmap(f, in_dims=-2, ...)(<inputs>): Got in_dim=-2 for some input, but that
input is a Tensor of dimensionality 1 so expected in_dim to satisfy -1 <= in_dim < 1.
Give argument 0 at [0] in_dim None if it is the same for every example.""",
    )
    refuses(
        lambda F, f: F.vmap(f)(ones()),
        """\
ValueError: vmap(f, in_dims=0, ...)(<inputs>): Got in_dim=0 for some input, but that
input is a Tensor of dimensionality 0 so it has nothing to map over. Give argument 0
in_dim None if it is the same for every example.""",
    )


def test_batch_sizes_that_differ():
    refuses(
        lambda F, f: F.vmap(f)(ones(2), ones(3)),
        """\
ValueError: vmap(f, in_dims=0, ...)(<inputs>): Expected all tensors to have the same
size in the mapped dimension, got sizes [2, 3] for the mapped dimension: 2 in
dimension 0 of argument 0, 3 in dimension 0 of argument 1. Check in_dims, and give
in_dim None to what is shared by all examples.""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=(0, None, 1))(
            ones(2), ones(5), {"w": ones(1, 2), "b": ones(1, 3)}
        ),
        """\
ValueError: vmap(f, in_dims=(0, None, 1), ...)(<inputs>): Expected all tensors to have
the same size in the mapped dimension, got sizes [2, 2, 3] for the mapped dimension: 2
in dimension 0 of argument 0, 3 in dimension 1 of argument 2 at ['b']. Check in_dims,
and give in_dim None to what is shared by all examples.""",
    )


def test_options_of_vmap():
    refuses(
        lambda F, f: F.vmap(f, chunk_size=0)(ones(2)),
        """\
ValueError: vmap: chunk_size should be None or greater than 0. (got 0) It is the
number of examples to compute at a time.""",
    )
    refuses(
        lambda F, f: F.vmap(f, chunk_size=1.5)(ones(2)),
        """\
TypeError: vmap: chunk_size should be None or an int greater than 0, got 1.5. It is
the number of examples to compute at a time.""",
    )
    refuses(
        lambda F, f: F.vmap(f, randomness="none")(ones(2)),
        """\
RuntimeError: vmap: Only allowed values for randomness are 'error', 'different', or
'same'. Got 'none'.""",
    )


def test_out_dims_of_the_wrong_type():
    refuses(
        lambda F, f: F.vmap(f, out_dims="a")(ones(2)),
        """\
ValueError: vmap(f, ..., out_dims=a): `out_dims` must be an int, None or a python
collection of ints, one for each output, saying where the mapped dimension goes; got
'a'.""",
    )
    refuses(
        lambda F, f: F.vmap(f, out_dims=(0, 0.5))(ones(2)),
        """\
ValueError: vmap(f, ..., out_dims=(0, 0.5)): `out_dims` must be an int, None or a
python collection of ints, one for each output, saying where the mapped dimension
goes; got 0.5.""",
    )


def test_out_dims_that_do_not_fit():
    fails(
        lambda F: F.vmap(torch.sin, out_dims=(0, 0))(ones(2)),
        """\
ValueError: vmap(sin, ..., out_dims=(0, 0))(<inputs>): out_dims is not compatible with
the structure of `outputs`. out_dims has structure (*, *) but outputs have structure
*. Write one entry for each output, or one int for all of them.""",
    )
    fails(
        lambda F: F.vmap(lambda x: {"a": x}, out_dims={"b": 0})(ones(2)),
        """\
ValueError: vmap(<lambda>, ..., out_dims={'b': 0})(<inputs>): out_dims is not
compatible with the structure of `outputs`. out_dims has structure {'b': *} but
outputs have structure {'a': *}. Write one entry for each output, or one int for all
of them.""",
    )
    fails(
        lambda F: F.vmap(torch.sin, out_dims=2)(ones(2, 3)),
        """\
IndexError: functx.vmap: out_dims has 2 for an output that has 2 dimensions with the
batch dimension. Dimension out of range: give a position from -2 to 1.""",
    )
    fails(
        lambda F: F.vmap(torch.sin, out_dims=-3)(ones(2, 3)),
        """\
IndexError: functx.vmap: out_dims has -3 for an output that has 2 dimensions with the
batch dimension. Dimension out of range: give a position from -2 to 1.""",
    )
    fails(
        lambda F: F.vmap(lambda x: (x, x), out_dims=(0, None))(ones(2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` can not return a BatchedTensor when
out_dim is None. This output differs between examples: give it an int in out_dims.""",
    )


def test_outputs_that_are_not_tensors():
    fails(
        lambda F: F.vmap(lambda x: 1.0)(ones(2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` must only return Tensors, got type <class
'float'>. Set out_dims to None for an output that is the same for every example.""",
    )
    fails(
        lambda F: F.vmap(lambda x: None)(ones(2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` must only return Tensors, got type <class
'NoneType'>. Set out_dims to None for an output that is the same for every example.""",
    )
    fails(
        lambda F: F.vmap(lambda x: (x, "text"))(ones(2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` must only return Tensors, got type <class
'str'>. Set out_dims to None for an output that is the same for every example.""",
    )


def test_random_operators():
    fails(
        lambda F: F.vmap(lambda x: x + torch.rand(2))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::rand draws random numbers, and randomness="error", the default, does not allow
that. Pass randomness="different" to vmap for a draw per example or randomness="same"
for one that all examples share, or draw outside of vmap.""",
    )
    fails(
        lambda F: F.vmap(torch.nn.functional.dropout)(ones(3, 2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::dropout draws random numbers, and randomness="error", the default, does not
allow that. Pass randomness="different" to vmap for a draw per example or
randomness="same" for one that all examples share, or draw outside of vmap.""",
    )
    fails(
        lambda F: F.jacfwd(lambda x: x * torch.rand(2))(ones(2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::rand draws random numbers, and randomness="error", the default, does not allow
that. Pass randomness="different" to vmap for a draw per example or randomness="same"
for one that all examples share, or draw outside of vmap.""",
    )


def test_random_numbers_for_one_tensor_that_all_examples_share():
    fails(
        lambda F: F.vmap(lambda x: (zeros().normal_(), x)[1], randomness="different")(ones(3)),
        """\
RuntimeError: functx.vmap: Cannot ask for different inplace randomness on an unbatched
tensor: aten::normal_ writes into self, which is the same for every example. Use an
operator that returns a new tensor (torch.rand, torch.randn_like...), create the
tensor from a batched one (for example with x.new_empty(...)), or pass
randomness="same".""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros().bernoulli_(x), randomness="different")(ones(3)),
        """\
RuntimeError: functx.vmap: Cannot ask for different inplace randomness on an unbatched
tensor: aten::bernoulli_.Tensor writes into self, which is the same for every example.
Use an operator that returns a new tensor (torch.rand, torch.randn_like...), create
the tensor from a batched one (for example with x.new_empty(...)), or pass
randomness="same".""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros().bernoulli_(x), randomness="same")(ones(3)),
        """\
RuntimeError: functx.vmap: aten::bernoulli_(self, *extra_args) is not possible: it
writes into self, which is the same for every example, but an argument differs between
examples. Use the out-of-place operator instead, or clone self from a batched tensor
under vmap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.dropout_(ones(), 0.5, True) + x, randomness="different")(
            ones(3)
        ),
        """\
RuntimeError: functx.vmap: aten::mul_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or create self from a batched tensor (for example with
x.new_zeros(...)) or clone it under vmap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x + torch.rand(2, out=zeros(2)), randomness="different")(
            ones(3)
        ),
        """\
RuntimeError: functx.vmap: Cannot ask for different inplace randomness on an unbatched
tensor: aten::rand.out writes into out, which is the same for every example. Use an
operator that returns a new tensor (torch.rand, torch.randn_like...), create the
tensor from a batched one (for example with x.new_empty(...)), or pass
randomness="same".""",
    )


def test_writes_of_a_batch_into_one_tensor():
    fails(
        lambda F: F.vmap(lambda x: zeros(2).add_(x))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::add_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or create self from a batched tensor (for example with
x.new_zeros(...)) or clone it under vmap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros(2).copy_(x))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::copy_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or create self from a batched tensor (for example with
x.new_zeros(...)) or clone it under vmap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros(2).__setitem__(0, x[0]))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::copy_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or create self from a batched tensor (for example with
x.new_zeros(...)) or clone it under vmap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros(2).index_put_((torch.tensor([0]),), x[:1]))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::index_put_(self, *extra_args) is not possible: it
writes into a tensor that is the same for every example (self), but an argument
differs between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or create self from a batched tensor (for example with
x.new_zeros(...)) or clone it under vmap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros(2).masked_fill_(x > 0, 1.0))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::masked_fill_(self, *extra_args) is not possible: it
writes into a tensor that is the same for every example (self), but an argument
differs between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or create self from a batched tensor (for example with
x.new_zeros(...)) or clone it under vmap.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.add(x, 1, out=zeros(2)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::add.out writes into a tensor that is the same for
every example, but an argument differs between examples, so the result would have to
be a batch of tensors. Use the operator that returns a new tensor instead, or write
into one that was made from a batched tensor (for example with x.new_zeros(...)).""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch._foreach_add_([zeros(2)], [x]))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::_foreach_add_.List writes into a tensor that is the
same for every example, but an argument differs between examples, so the result would
have to be a batch of tensors. Use the operator that returns a new tensor instead, or
write into one that was made from a batched tensor (for example with
x.new_zeros(...)).""",
    )
    fails(
        lambda F: F.vmap(lambda x: F.vmap(lambda y: x.add_(y))(ones(4, 2)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::add_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or create self from a batched tensor (for example with
x.new_zeros(...)) or clone it under vmap.""",
    )


def test_data_of_a_tensor_outside_of_vmap():
    fails(
        lambda F: F.vmap(lambda x: setattr(x, "data", zeros(2)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: mutating with `.data` was tried by x.data = y, where x and
y do not both belong to this vmap, so one can't have the value of the other. Write
x.copy_(y) for the numbers in it, or use y in the place of x.""",
    )
    fails(
        lambda F: F.vmap(lambda x: setattr(zeros(2), "data", x))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: mutating with `.data` was tried by x.data = y, where x and
y do not both belong to this vmap, so one can't have the value of the other. Write
x.copy_(y) for the numbers in it, or use y in the place of x.""",
    )


def test_numbers_of_a_batched_tensor():
    fails(
        lambda F: F.vmap(lambda x: x * x.item())(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, or something that does, such as float(x), int(x), range(x)
or torch.tensor([x]): it is not one number. Keep it a tensor (torch.stack makes one of
several, x.index_select(0, i) takes an index i), or return it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: float(x))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, or something that does, such as float(x), int(x), range(x)
or torch.tensor([x]): it is not one number. Keep it a tensor (torch.stack makes one of
several, x.index_select(0, i) takes an index i), or return it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: [1, 2][x.long()])(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, or something that does, such as float(x), int(x), range(x)
or torch.tensor([x]): it is not one number. Keep it a tensor (torch.stack makes one of
several, x.index_select(0, i) takes an index i), or return it from the function.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.arange(x))(ones(3)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, or something that does, such as float(x), int(x), range(x)
or torch.tensor([x]): it is not one number. Keep it a tensor (torch.stack makes one of
several, x.index_select(0, i) takes an index i), or return it from the function.""",
    )


def test_truth_of_a_batched_tensor():
    fails(
        lambda F: F.vmap(lambda x: x if x.sum() > 0 else -x)(ones(3, 2)),
        """\
RuntimeError: functx.vmap: a tensor that differs between examples is neither true nor
false. `if x:`, `while x:`, `not x`, max(x, y) and the like are data-dependent control
flow, which would have to go one way for one example and another way for the next.
Compute both and choose with torch.where; torch.logical_not, torch.maximum and so on
return tensors.""",
    )
    fails(
        lambda F: F.vmap(lambda x: max(x, 2 * x))(ones(3)),
        """\
RuntimeError: functx.vmap: a tensor that differs between examples is neither true nor
false. `if x:`, `while x:`, `not x`, max(x, y) and the like are data-dependent control
flow, which would have to go one way for one example and another way for the next.
Compute both and choose with torch.where; torch.logical_not, torch.maximum and so on
return tensors.""",
    )
    fails(
        lambda F: F.vmap(lambda x: bool(x))(ones(3, 2)),
        """RuntimeError: Boolean value of Tensor with more than one value is ambiguous""",
        like_torch_func=True,
    )
    fails(
        lambda F: F.vmap(F.vmap(lambda x: x * (not x)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: a tensor that differs between examples is neither true nor
false. `if x:`, `while x:`, `not x`, max(x, y) and the like are data-dependent control
flow, which would have to go one way for one example and another way for the next.
Compute both and choose with torch.where; torch.logical_not, torch.maximum and so on
return tensors.""",
    )
    fails(
        lambda F: F.vmap(F.grad(lambda x: x if x > 0 else -x))(ones(3)),
        """\
RuntimeError: functx.vmap: a tensor that differs between examples is neither true nor
false. `if x:`, `while x:`, `not x`, max(x, y) and the like are data-dependent control
flow, which would have to go one way for one example and another way for the next.
Compute both and choose with torch.where; torch.logical_not, torch.maximum and so on
return tensors.""",
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
        lambda F: F.vmap(lambda x: x.resize_(5))(ones(3)),
        """\
NotImplementedError: functx.vmap: aten::resize_ replaces the memory of a tensor, and a
tensor inside vmap has none of its own. Use an operator that returns a new tensor,
such as new_empty, reshape or copy_.""",
        like_torch_func=False,
    )


def test_shapes_that_depend_on_the_data():
    fails(
        lambda F: F.vmap(torch.nonzero)(MASKED),
        """\
RuntimeError: functx.vmap: nonzero gives 1 elements for one example, 2 for another:
the shape of its result depends on the data (a dynamic, data-dependent shape), and
different shapes cannot be one batch. Call it outside vmap, or use what has a fixed
shape, such as torch.where(mask, x, other), a masked reduction like (x * mask).sum(),
sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.where(x > 0)[0])(MASKED),
        """\
RuntimeError: functx.vmap: nonzero gives 1 elements for one example, 2 for another:
the shape of its result depends on the data (a dynamic, data-dependent shape), and
different shapes cannot be one batch. Call it outside vmap, or use what has a fixed
shape, such as torch.where(mask, x, other), a masked reduction like (x * mask).sum(),
sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x[x > 0])(MASKED),
        """\
RuntimeError: functx.vmap: indexing with a boolean mask gives 1 elements for one
example, 2 for another: the shape of its result depends on the data (a dynamic,
data-dependent shape), and different shapes cannot be one batch. Call it outside vmap,
or use what has a fixed shape, such as torch.where(mask, x, other), a masked reduction
like (x * mask).sum(), sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.masked_select(x > 0))(MASKED),
        """\
RuntimeError: functx.vmap: masked_select gives 1 elements for one example, 2 for
another: the shape of its result depends on the data (a dynamic, data-dependent
shape), and different shapes cannot be one batch. Call it outside vmap, or use what
has a fixed shape, such as torch.where(mask, x, other), a masked reduction like (x *
mask).sum(), sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.clone().__setitem__(x > 0, x))(MASKED),
        """\
RuntimeError: functx.vmap: indexing with a boolean mask gives 1 elements for one
example, 2 for another: the shape of its result depends on the data (a dynamic,
data-dependent shape), and different shapes cannot be one batch. Call it outside vmap,
or use what has a fixed shape, such as torch.where(mask, x, other), a masked reduction
like (x * mask).sum(), sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(torch.unique)(MASKED),
        """\
RuntimeError: functx.vmap: aten::_unique2 gives results of different shapes for
different examples ([3] and [2]), which cannot be one batch. Run it outside vmap, or
use an operator whose result has a fixed shape.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.repeat_interleave(x, x.long()))(MASKED),
        """\
RuntimeError: functx.vmap: repeat_interleave gives 2 elements for one example, 3 for
another: the shape of its result depends on the data (a dynamic, data-dependent
shape), and different shapes cannot be one batch. Call it outside vmap, or use what
has a fixed shape, such as torch.where(mask, x, other), a masked reduction like (x *
mask).sum(), sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.bincount(x.long()))(MASKED),
        """\
RuntimeError: functx.vmap: bincount gives 3 elements for one example, 4 for another:
the shape of its result depends on the data (a dynamic, data-dependent shape), and
different shapes cannot be one batch. Call it outside vmap, or use what has a fixed
shape, such as torch.where(mask, x, other), a masked reduction like (x * mask).sum(),
sort, or nonzero_static.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.nn.functional.one_hot(x.long()))(MASKED),
        """\
RuntimeError: functx.vmap: one_hot without num_classes gives 3 elements for one
example, 4 for another: the shape of its result depends on the data (a dynamic,
data-dependent shape), and different shapes cannot be one batch. Pass an explicit
positive num_classes.""",
    )


def test_running_statistics_of_a_batch():
    fails(
        lambda F: F.vmap(lambda x: batch_norm(x, zeros(2), ones(2), training=True))(ones(3, 4, 2)),
        """\
RuntimeError: functx.vmap: batch_norm in training mode would update running statistics
that are the same for every example with a batch of different values. Use GroupNorm
instead, create the module with track_running_stats=False, or take the statistics out
of a finished one by functx.experimental.replace_all_batch_norm_modules_(module). In
evaluation mode (module.eval()) it works as it is; buffers that differ between
examples, from functx.stack_module_state, are updated.""",
    )


def test_tensors_that_have_escaped():
    fails(
        lambda F: escaped(F, F.vmap, ones(2, 3)) + 1,
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped it: it was used
after the transform (level N) had returned, probably kept in a global, an attribute or
a list. Return it from the transformed function instead.""",
    )
    fails(
        lambda F: escaped(F, F.vmap, ones(2, 3)).add_(1),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped it: it was used
after the transform (level N) had returned, probably kept in a global, an attribute or
a list. Return it from the transformed function instead.""",
    )
    fails(
        lambda F: escaped(F, F.vmap, ones(2, 3))[0].item(),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped it: it was used
after the transform (level N) had returned, probably kept in a global, an attribute or
a list. Return it from the transformed function instead.""",
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
RuntimeError: functx.vmap: a tensor of this transform has escaped it: it was used
after the transform (level N) had returned, probably kept in a global, an attribute or
a list. Return it from the transformed function instead.""",
    )
    fails(
        lambda F: escaped(F, lambda f: F.vmap(F.grad(f)), ones(2, 3)).sum(),
        """\
RuntimeError: functx.vmap: a tensor of this transform has escaped it: it was used
after the transform (level N) had returned, probably kept in a global, an attribute or
a list. Return it from the transformed function instead.""",
    )
    fails(
        lambda F: escaped(F, lambda f: F.jacfwd(f), ones(3)).sum(),
        """\
RuntimeError: functx.jvp: a tensor of this transform has escaped it: it was used after
the transform (level N) had returned, probably kept in a global, an attribute or a
list. Return it from the transformed function instead.""",
        like_torch_func=False,
    )
