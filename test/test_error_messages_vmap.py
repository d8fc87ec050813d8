"""vmap: what the errors about its arguments and outputs say."""

import torch
from _messages import fails, ones, refuses


def test_vmap_wants_something_to_map():
    refuses(
        lambda F, f: F.vmap(f)(),
        """\
ValueError: vmap(f)(<inputs>): got no inputs. Pass at least one tensor by position:
keyword arguments are not mapped over, and a function without inputs can't be.""",
    )
    refuses(
        lambda F, f: F.vmap(f)(x=ones(2)),
        """\
ValueError: vmap(f)(<inputs>): got no inputs. Pass at least one tensor by position:
keyword arguments are not mapped over, and a function without inputs can't be.""",
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
is of type <class 'float'>. We cannot vmap over non-Tensor arguments: use None as the
in_dim of argument 1 to pass it unchanged.""",
    )
    refuses(
        lambda F, f: F.vmap(f, in_dims=(0, {"a": 0}))(ones(2), {"a": "text"}),
        """\
ValueError: vmap(f, in_dims=(0, {'a': 0}), ...)(<inputs>): Got in_dim=0 for an input
but the input is of type <class 'str'>. We cannot vmap over non-Tensor arguments: use
None as the in_dim of argument 1 at ['a'] to pass it unchanged.""",
    )
    refuses(
        lambda F, f: F.vmap(ones(2))(ones(2)),
        """\
TypeError: vmap: expected a function to transform, got <class 'torch.Tensor'>. Pass
the function itself, f, and not its result, f(x).""",
    )
    refuses(
        lambda F, f: F.vmap(f)({}),
        """\
ValueError: vmap(f, in_dims=0, ...)(<inputs>): Expected at least one Tensor to vmap
over, but the inputs contain nothing.""",
    )
    refuses(
        lambda F, f: F.vmap(f)(ones(2), None),
        """\
ValueError: vmap(f, in_dims=0, ...)(<inputs>): Got in_dim=0 for an input but the input
is of type <class 'NoneType'>. We cannot vmap over non-Tensor arguments: use None as
the in_dim of argument 1 to pass it unchanged.""",
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
    refuses(
        lambda F, f: F.vmap(f, in_dims=-1)(ones()),
        """\
ValueError: vmap(f, in_dims=-1, ...)(<inputs>): Got in_dim=-1 for some input, but that
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
    refuses(
        lambda F, f: F.vmap(f, in_dims=({"a": 0, "b": -1},))({"a": ones(2), "b": ones(2, 3)}),
        """\
ValueError: vmap(f, in_dims=({'a': 0, 'b': -1},), ...)(<inputs>): Expected all tensors
to have the same size in the mapped dimension, got sizes [2, 3] for the mapped
dimension: 2 in dimension 0 of argument 0 at ['a'], 3 in dimension 1 of argument 0 at
['b']. Check in_dims, and give in_dim None to what is shared by all examples.""",
    )


def test_nested_tensors():
    refuses(
        lambda F, f: F.vmap(f, in_dims=1)(
            torch.nested.nested_tensor([ones(2), ones(3)], layout=torch.jagged)
        ),
        """\
RuntimeError: vmap(f, in_dims=1, ...)(<inputs>): Nested tensors can only be vmapped
over dim=0, but got dim=1 for argument 0.""",
    )
    refuses(
        lambda F, f: F.vmap(f)(torch.nested.nested_tensor([ones(2), ones(3)])),
        """\
NotImplementedError: functx.vmap: a nested tensor of layout torch.strided has no shape
to work with. Make it with layout=torch.jagged, or use a padded tensor and a mask.""",
        like_torch_func=False,
    )


def test_options_of_vmap():
    refuses(
        lambda F, f: F.vmap(f, chunk_size=0)(ones(2)),
        """\
ValueError: vmap: chunk_size should be None or greater than 0. (got 0) It is the
number of examples to compute at a time, None for all.""",
    )
    refuses(
        lambda F, f: F.vmap(f, chunk_size=1.5)(ones(2)),
        """\
TypeError: vmap: chunk_size should be None or an int greater than 0, got 1.5. It is
the number of examples to compute at a time, None for all.""",
    )
    refuses(
        lambda F, f: F.vmap(f, randomness="none")(ones(2)),
        """\
RuntimeError: vmap: Only allowed values for randomness are 'error', 'different', or
'same'. Got 'none'.""",
    )
    refuses(
        lambda F, f: F.vmap(f, chunk_size=-1)(ones(2)),
        """\
ValueError: vmap: chunk_size should be None or greater than 0. (got -1) It is the
number of examples to compute at a time, None for all.""",
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
IndexError: functx.vmap: out_dims does not fit an output of shape [3], which gets the
mapped dimension besides: Dimension out of range (expected to be in range of [-2, 1],
but got 2)""",
    )
    fails(
        lambda F: F.vmap(torch.sin, out_dims=-3)(ones(2, 3)),
        """\
IndexError: functx.vmap: out_dims does not fit an output of shape [3], which gets the
mapped dimension besides: Dimension out of range (expected to be in range of [-2, 1],
but got -3)""",
    )
    fails(
        lambda F: F.vmap(lambda x: (x, x), out_dims=(0, None))(ones(2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` can not return a BatchedTensor when
out_dim is None. This output differs between examples: give it an int in out_dims.""",
    )
    fails(
        lambda F: F.vmap(lambda x: (x, x), out_dims=[0, 0])(ones(2)),
        """\
ValueError: vmap(<lambda>, ..., out_dims=[0, 0])(<inputs>): out_dims is not compatible
with the structure of `outputs`. out_dims has structure [*, *] but outputs have
structure (*, *). Write one entry for each output, or one int for all of them.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x, out_dims=[])(ones(2)),
        """\
ValueError: vmap(<lambda>, ..., out_dims=[])(<inputs>): out_dims is not compatible
with the structure of `outputs`. out_dims has structure [] but outputs have structure
*. Write one entry for each output, or one int for all of them.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x, out_dims=None)(ones(2)),
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
'NoneType'>. Does it return its result? Set out_dims to None for an output that is the
same for every example.""",
    )
    fails(
        lambda F: F.vmap(lambda x: (x, "text"))(ones(2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` must only return Tensors, got type <class
'str'>. Set out_dims to None for an output that is the same for every example.""",
    )
    fails(
        lambda F: F.vmap(lambda x: {"x": x, "name": {1, 2}}, out_dims={"x": 0, "name": 0})(ones(2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` must only return Tensors, got type <class
'set'>. Set out_dims to None for an output that is the same for every example.""",
    )


def test_an_inner_vmap():
    fails(
        lambda F: F.vmap(F.vmap(torch.sin))(ones(3)),
        """\
ValueError: vmap(sin, in_dims=0, ...)(<inputs>): Got in_dim=0 for some input, but that
input is a Tensor of dimensionality 0 so it has nothing to map over. Give argument 0
in_dim None if it is the same for every example.""",
    )
    fails(
        lambda F: F.vmap(lambda x: F.vmap(torch.add, in_dims=(0, 1))(x, x))(ones(4, 2, 3)),
        """\
ValueError: vmap(add, in_dims=(0, 1), ...)(<inputs>): Expected all tensors to have the
same size in the mapped dimension, got sizes [2, 3] for the mapped dimension: 2 in
dimension 0 of argument 0, 3 in dimension 1 of argument 1. Check in_dims, and give
in_dim None to what is shared by all examples.""",
    )
    fails(
        lambda F: F.vmap(lambda x: F.vmap(lambda y: y, out_dims=None)(x))(ones(4, 2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` can not return a BatchedTensor when
out_dim is None. This output differs between examples: give it an int in out_dims.""",
    )
    fails(
        lambda F: F.vmap(F.vmap(lambda x: 1.0))(ones(4, 2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` must only return Tensors, got type <class
'float'>. Set out_dims to None for an output that is the same for every example.""",
    )
    fails(
        lambda F: F.vmap(F.vmap(torch.sin, out_dims=1))(ones(4, 2)),
        """\
IndexError: functx.vmap: out_dims does not fit an output of shape [], which gets the
mapped dimension besides: Dimension out of range (expected to be in range of [-1, 0],
but got 1)""",
    )


def test_chunks():
    fails(
        lambda F: F.vmap(torch.sum, out_dims=1, chunk_size=2)(ones(5, 2)),
        """\
IndexError: functx.vmap: out_dims does not fit an output of shape [], which gets the
mapped dimension besides: Dimension out of range (expected to be in range of [-1, 0],
but got 1)""",
    )
    fails(
        lambda F: F.vmap(lambda x: [1.0], chunk_size=2)(ones(5, 2)),
        """\
ValueError: vmap(<lambda>, ...): `<lambda>` must only return Tensors, got type <class
'float'>. Set out_dims to None for an output that is the same for every example.""",
    )
    fails(
        lambda F: F.vmap(lambda x: x.item(), chunk_size=2)(ones(5)),
        """\
RuntimeError: functx.vmap: It looks like you're calling .item() on a Tensor that
differs between examples, directly or by float(x), int(x), range(x),
torch.tensor([x]), a_list[x] or the like: it is not one number. Keep it a tensor
(torch.stack makes one of several, x.index_select(0, i) takes an index i), or return
it from the function.""",
    )
