"""vjp, jvp and linearize: what the errors about their arguments, outputs and vectors say."""

import torch
from _messages import fails, ones, refuses

INTEGERS = torch.ones(2, dtype=torch.int64)
COMPLEX = torch.ones(2, dtype=torch.complex64)


def called_after_the_last_time(vjp_fn, cotangents):
    vjp_fn(cotangents, retain_graph=False)
    return vjp_fn(cotangents)


def test_inputs_of_vjp():
    refuses(
        lambda F, f: F.vjp(f, 1.0),
        """\
ValueError: vjp(f, *primals): Thing passed to transform API must be Tensor, got <class
'float'> for argument 0. Pass torch.tensor(value), or bind what is not differentiated
with functools.partial.""",
    )
    refuses(
        lambda F, f: F.vjp(f, ones(2), {"a": 3}),
        """\
ValueError: vjp(f, *primals): Thing passed to transform API must be Tensor, got <class
'int'> for argument 1 at ['a']. Pass torch.tensor(value), or bind what is not
differentiated with functools.partial.""",
    )
    refuses(
        lambda F, f: F.vjp(f, INTEGERS),
        """\
RuntimeError: vjp(f, *primals): only Tensors of floating point dtype can require
gradients, got torch.int64 for argument 0. Convert it first, for example with
x.float(), or bind what is not differentiated with functools.partial.""",
    )
    refuses(
        lambda F, f: F.vjp(ones(2), ones(2)),
        """\
TypeError: vjp: expected a function to transform, got <class 'torch.Tensor'>. Pass the
function itself, f, and not its result, f(x).""",
    )


def test_outputs_of_vjp():
    fails(
        lambda F: F.vjp(lambda x: (x, "text"), ones(2)),
        """\
RuntimeError: vjp(f, *primals): expected f(*primals) to return only tensors, got
unsupported type <class 'str'>. Wrap numbers by torch.tensor, and leave out other
objects.""",
    )
    fails(
        lambda F: F.vjp(lambda x: (), ones(2)),
        """\
RuntimeError: vjp(f, *primals): Expected f to be a function that has non-empty output
(got output = []). Does f return its result?""",
    )
    fails(
        lambda F: F.vjp(lambda x: x.long(), ones(2))[1](ones(2)),
        """\
RuntimeError: vjp(f, *primals): All outputs of f must be floating-point or complex
Tensors, got Tensor with dtype torch.int64. Leave it out of the result, or return it
as aux where has_aux is an option.""",
    )
    fails(
        lambda F: F.vjp(torch.sin, ones(2), has_aux=True),
        """\
RuntimeError: vjp(f, *primals): output of function f should be a tuple: (output, aux)
if has_aux is True, got <class 'torch.Tensor'>. Return a pair, or drop has_aux.""",
    )
    fails(
        lambda F: F.vjp(lambda x: (x, 1), ones(2), has_aux=True),
        """\
RuntimeError: vjp(f, *primals): Expected tensors, got unsupported type <class 'int'>
in aux. Wrap numbers by torch.tensor, and keep other objects out of the returned
value.""",
    )
    fails(
        lambda F: F.vjp(lambda x: None, ones(2)),
        """\
RuntimeError: vjp(f, *primals): Expected f to be a function that has non-empty output
(got output = [None]). Does f return its result?""",
    )
    fails(
        lambda F: F.vjp(lambda x: (1.0, x), ones(2), has_aux=True),
        """\
RuntimeError: vjp(f, *primals): expected f(*primals) to return only tensors, got
unsupported type <class 'float'>. Wrap numbers by torch.tensor, and leave out other
objects.""",
    )


def test_cotangents():
    fails(
        lambda F: F.vjp(torch.sin, ones(2))[1](ones(3)),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): Mismatch in shape: cotangent 0 has a shape
of (3,) and output 0 has a shape of (2,). Expand the cotangent; it is not broadcast.""",
    )
    fails(
        lambda F: F.vjp(torch.sin, ones(2))[1]((ones(2), ones(2))),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): Expected pytree structure of cotangents to
be the same as pytree structure of outputs to the function. cotangents: (*, *), primal
output: *. Pass one cotangent for each output.""",
    )
    fails(
        lambda F: F.vjp(lambda x: {"a": x}, ones(2))[1]({"b": ones(2)}),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): Expected pytree structure of cotangents to
be the same as pytree structure of outputs to the function. cotangents: {'b': *},
primal output: {'a': *}. Pass one cotangent for each output.""",
    )
    fails(
        lambda F: F.vjp(torch.sin, ones(2))[1](ones(2), ones(2)),
        """\
TypeError: vjp_fn of vjp(f, *primals): takes the cotangents of all outputs as one
argument, got another tensor in the place of an option. Pass them in the structure of
the output: *.""",
    )
    fails(
        lambda F: F.vjp(torch.sin, ones(2))[1](1.0),
        """\
TypeError: vjp_fn of vjp(f, *primals): gradients can be either Tensors or None, but
got float for output 0. Pass torch.tensor(value).""",
    )
    fails(
        lambda F: F.vjp(torch.sin, ones(2))[1](None),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): grad can be implicitly created only for
scalar outputs, output 0 has shape (2,). Pass a cotangent for it.""",
    )
    fails(
        lambda F: F.vjp(torch.sin, ones(2))[1](COMPLEX),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): For complex Tensors, both cotangent and
output are required to have the same dtype. Mismatch in dtype: cotangent 0 has a dtype
of torch.complex64 and output 0 has a dtype of torch.float32. Convert the cotangent:
take its real part.""",
    )
    fails(
        lambda F: F.vjp(lambda x: (x, x), ones(2))[1]([ones(2), ones(2)]),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): Expected pytree structure of cotangents to
be the same as pytree structure of outputs to the function. cotangents: [*, *], primal
output: (*, *). Pass one cotangent for each output.""",
    )
    fails(
        lambda F: F.vjp(lambda x: (x, x), ones(2))[1]((ones(2), ones(3))),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): Mismatch in shape: cotangent 1 has a shape
of (3,) and output 1 has a shape of (2,). Expand the cotangent; it is not broadcast.""",
    )
    fails(
        lambda F: F.vjp(lambda x: (x, x), ones(2))[1]((ones(2), 1)),
        """\
TypeError: vjp_fn of vjp(f, *primals): gradients can be either Tensors or None, but
got int for output 1. Pass torch.tensor(value).""",
    )
    fails(
        lambda F: F.vjp(lambda x: x * 1j, ones(2))[1](ones(2)),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): For complex Tensors, both cotangent and
output are required to have the same dtype. Mismatch in dtype: cotangent 0 has a dtype
of torch.float32 and output 0 has a dtype of torch.complex64. Convert the cotangent:
make it complex.""",
    )
    fails(
        lambda F: F.vjp(torch.exp, ones(2))[1](),
        """TypeError: vjp.<locals>.vjp_fn() missing 1 required positional argument: 'cotangents'""",
    )
    fails(
        lambda F: called_after_the_last_time(F.vjp(torch.exp, ones(2))[1], ones(2)),
        """\
RuntimeError: Trying to backward through the graph a second time (or directly access
saved tensors after they have already been freed). Saved intermediate values of the
graph are freed when you call .backward() or autograd.grad(). Specify
retain_graph=True if you need to backward through the graph a second time or if you
need to access saved tensors after calling backward.""",
    )


def test_inputs_of_jvp():
    refuses(
        lambda F, f: F.jvp(f, ones(2), ones(2)),
        """\
RuntimeError: jvp(f, primals, tangents): Expected primals to be a tuple. E.g. it
should be valid to call f(*primals). Write (x,) for a single argument; got <class
'torch.Tensor'>.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2),), [ones(2)]),
        """\
RuntimeError: jvp(f, primals, tangents): Expected primals and tangents to have the
same python structure. Got primals with structure (*,) and tangents with structure
[*]. Nest the tangents as the primals, with zeros for an input that stays fixed.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (), ()),
        """\
RuntimeError: jvp(f, primals, tangents): Expected primals to contain at least one
Tensor. Pass what f is to be differentiated by as its arguments.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (1.0,), (1.0,)),
        """\
RuntimeError: jvp(f, primals, tangents): Expected primals to only contain Tensors, got
<class 'float'> for argument 0. Pass torch.tensor(value), or bind what is not
differentiated with functools.partial.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2), ones(2)), (ones(2), None)),
        """\
RuntimeError: jvp(f, primals, tangents): Expected tangents to only contain Tensors,
got <class 'NoneType'> for argument 1. Pass torch.tensor(value), or pass zeros for an
input that stays fixed.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2),), (ones(3),)),
        """\
RuntimeError: jvp(f, primals, tangents): Got a tangent that has a different size than
that of the original Tensor for argument 0, this is not supported. The primal is of
size [2] while the tangent is of size [3]. Expand the tangent; it is not broadcast.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (INTEGERS,), (ones(2),)),
        """\
ValueError: jvp(f, primals, tangents): Expected primal to be floating point or
complex, but got: torch.int64 for argument 0. Convert it first, for example with
x.float(), or bind what is not differentiated with functools.partial.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2),), (INTEGERS,)),
        """\
ValueError: jvp(f, primals, tangents): Expected tangent to be floating point or
complex, but got: torch.int64 for argument 0. Convert it first, for example with
x.float(), or pass zeros for an input that stays fixed.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2),), (COMPLEX,)),
        """\
ValueError: jvp(f, primals, tangents): Got a complex tangent (torch.complex64) for a
real primal (torch.float32), argument 0. Pass its real part, or make the primal
complex.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.jvp(None, (ones(2),), (ones(2),)),
        """\
TypeError: jvp: expected a function to transform, got <class 'NoneType'>. Pass the
function itself, f, and not its result, f(x).""",
    )
    refuses(
        lambda F, f: F.jvp(f, [ones(2)], [ones(2)]),
        """\
RuntimeError: jvp(f, primals, tangents): Expected primals to be a tuple. E.g. it
should be valid to call f(*primals). Write (x,) for a single argument; got <class
'list'>.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2),), (ones(2), ones(2))),
        """\
RuntimeError: jvp(f, primals, tangents): Expected primals and tangents to have the
same python structure. Got primals with structure (*,) and tangents with structure (*,
*). Nest the tangents as the primals, with zeros for an input that stays fixed.""",
    )
    refuses(
        lambda F, f: F.jvp(f, ({"a": ones(2)},), ({"b": ones(2)},)),
        """\
RuntimeError: jvp(f, primals, tangents): Expected primals and tangents to have the
same python structure. Got primals with structure ({'a': *},) and tangents with
structure ({'b': *},). Nest the tangents as the primals, with zeros for an input that
stays fixed.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2), {"a": 1.0}), (ones(2), {"a": 1.0})),
        """\
RuntimeError: jvp(f, primals, tangents): Expected primals to only contain Tensors, got
<class 'float'> for argument 1 at ['a']. Pass torch.tensor(value), or bind what is not
differentiated with functools.partial.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2), {"a": ones(2)}), (ones(2), {"a": ones(2, 1)})),
        """\
RuntimeError: jvp(f, primals, tangents): Got a tangent that has a different size than
that of the original Tensor for argument 1 at ['a'], this is not supported. The primal
is of size [2] while the tangent is of size [2, 1]. Expand the tangent; it is not
broadcast.""",
    )
    refuses(
        lambda F, f: F.jvp(
            f,
            (torch.nested.nested_tensor([ones(2), ones(3)]),),
            (torch.nested.nested_tensor([ones(2), ones(3)]),),
        ),
        """\
NotImplementedError: jvp(f, primals, tangents): Expected primal to have a shape, which
a nested tensor of layout torch.strided, like that for argument 0, has not. Make it
with layout=torch.jagged.""",
        like_torch_func=False,
    )


def test_outputs_of_jvp():
    fails(
        lambda F: F.jvp(lambda x: 1.0, (ones(2),), (ones(2),)),
        """\
RuntimeError: jvp(f, primals, tangents): expected f(*primals) to return only tensors,
got unsupported type <class 'float'>. Wrap numbers by torch.tensor, and leave out
other objects.""",
    )
    fails(
        lambda F: F.jvp(lambda x: None, (ones(2),), (ones(2),)),
        """\
RuntimeError: jvp(f, primals, tangents): Expected f to be a function that has
non-empty output (got output = [None]). Does f return its result?""",
    )
    fails(
        lambda F: F.jvp(torch.sin, (ones(2),), (ones(2),), has_aux=True),
        """\
RuntimeError: jvp(f, primals, tangents): output of function f should be a tuple:
(output, aux) if has_aux is True, got <class 'torch.Tensor'>. Return a pair, or drop
has_aux.""",
    )
    fails(
        lambda F: F.jvp(lambda x: ones(2), (ones(2),), (ones(2),), strict=True),
        """\
RuntimeError: jvp(f, primals, tangents, strict=True): The output of f is independent
of the inputs. This is not allowed with strict=True; without it the tangent is zeros.""",
    )
    fails(
        lambda F: F.jvp(lambda x: x * float(x.numpy()[0]), (ones(2),), (ones(2),)),
        """\
RuntimeError: functx.jvp: .numpy() was called on a tensor inside jvp, which stands for
others and has no memory of its own. Return it from the transformed function and
convert the result, or look at it with functx.debug_unwrap.""",
    )
    fails(
        lambda F: F.jvp(lambda x: (x, "a"), (ones(2),), (ones(2),), has_aux=True),
        """\
RuntimeError: jvp(f, primals, tangents): Expected tensors, got unsupported type <class
'str'> in aux. Wrap numbers by torch.tensor, and keep other objects out of the
returned value.""",
    )
    fails(
        lambda F: F.jvp(lambda x: x * x.item(), (ones(2),), (ones(2),)),
        """RuntimeError: a Tensor with 2 elements cannot be converted to Scalar""",
    )


def test_linearize():
    refuses(
        lambda F, f: F.linearize(f, 1.0),
        """\
RuntimeError: linearize(f, *primals): Expected primals to only contain Tensors, got
<class 'float'> for argument 0. Pass torch.tensor(value), or bind what is not
differentiated with functools.partial.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.linearize(f, INTEGERS),
        """\
ValueError: linearize(f, *primals): Expected primal to be floating point or complex,
but got: torch.int64 for argument 0. Convert it first, for example with x.float(), or
bind what is not differentiated with functools.partial.""",
    )
    fails(
        lambda F: F.linearize(lambda x: 1.0, ones(2)),
        """\
RuntimeError: linearize(f, *primals): expected f(*primals) to return only tensors, got
unsupported type <class 'float'>. Wrap numbers by torch.tensor, and leave out other
objects.""",
        like_torch_func=False,
    )
    fails(
        lambda F: F.linearize(torch.sin, ones(2))[1](ones(2), ones(2)),
        """\
RuntimeError: jvp_fn of linearize(f, *primals): Expected the tangents (*, *) to have
the same argspec as the primals (*,). Pass one tangent for each primal, zeros for one
that stays fixed.""",
    )
    fails(
        lambda F: F.linearize(torch.sin, ones(2))[1](ones(3)),
        """\
RuntimeError: jvp_fn of linearize(f, *primals): tangent:0 with shape torch.Size([3])
in flattened pytree doesn't match the shape torch.Size([2]) of the corresponding
primal. Tangents are neither broadcast nor converted.""",
    )
    fails(
        lambda F: F.linearize(torch.sin, ones(2))[1](ones(2).double()),
        """\
RuntimeError: jvp_fn of linearize(f, *primals): tangent:0 with dtype torch.float64 in
flattened pytree doesn't match the dtype torch.float32 of the corresponding primal.
Tangents are neither broadcast nor converted.""",
    )
    fails(
        lambda F: F.linearize(torch.sin, ones(2))[1](1.0),
        """\
RuntimeError: jvp_fn of linearize(f, *primals): tangent:0 in flattened pytree is of
type <class 'float'>. Pass torch.tensor(value).""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.linearize(ones(2), ones(2)),
        """\
TypeError: linearize: expected a function to transform, got <class 'torch.Tensor'>.
Pass the function itself, f, and not its result, f(x).""",
    )
    fails(
        lambda F: F.linearize(lambda x: x.long(), ones(2)),
        """\
RuntimeError: linearize(f, *primals): All outputs of f must be floating-point or
complex Tensors, got Tensor with dtype torch.int64. Leave it out of the result, or
return it as aux where has_aux is an option.""",
        like_torch_func=False,
    )
    fails(
        lambda F: F.linearize(lambda x: None, ones(2)),
        """\
RuntimeError: linearize(f, *primals): Expected f to be a function that has non-empty
output (got output = [None]). Does f return its result?""",
        like_torch_func=False,
    )
