"""grad, vjp, jvp and those made of them: what their errors say."""

import torch
from _messages import fails, refuses

INTEGERS = torch.ones(2, dtype=torch.int64)
COMPLEX = torch.ones(2, dtype=torch.complex64)


def ones(*shape):
    return torch.ones(shape)


def zeros(*shape):
    return torch.zeros(shape)


def linear():
    return torch.nn.Linear(2, 2)


def writing_into(captured):
    return lambda x: captured.copy_(x).sum()


def double(generate=False, **rules):
    """An autograd.Function with these static methods."""

    class Double(torch.autograd.Function):
        generate_vmap_rule = generate

        @staticmethod
        def forward(x):
            return x * 2

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

    for name, rule in rules.items():
        setattr(Double, name, staticmethod(rule))
    return Double


def test_argnums_of_grad():
    refuses(
        lambda F, f: F.grad(f, argnums=2)(ones(2), ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Got argnum=2, but only 2 positional
inputs. Differentiated arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=(0, -2))(ones(2), ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): argnums elements must be unique, got
(0, -2) for 2 positional inputs. Name each argument once.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=())(ones(2)),
        """\
RuntimeError: grad: argnums must be non-empty; name at least one argument to
differentiate.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=[0])(ones(2)),
        """\
RuntimeError: grad: argnums must be int or Tuple[int, ...], got: <class 'list'>. Write
argnums=0 for the first argument, argnums=(0, 1) for the first two.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=(0, 1.5))(ones(2), ones(2)),
        """\
RuntimeError: grad: each argnum must be int, got: <class 'float'> in argnums=(0, 1.5).
It is the position of an argument.""",
    )
    refuses(
        lambda F, f: F.grad(f)(x=ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Got argnum=0, but only 0 positional
inputs. Differentiated arguments must be passed by position, not by keyword.""",
    )


def test_argnums_of_grad_and_value():
    refuses(
        lambda F, f: F.grad_and_value(f, argnums=2)(ones(2), ones(2)),
        """\
RuntimeError: grad_and_value(f)(*args): Got argnum=2, but only 2 positional inputs.
Differentiated arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.grad_and_value(f, argnums=(0, -2))(ones(2), ones(2)),
        """\
RuntimeError: grad_and_value(f)(*args): argnums elements must be unique, got (0, -2)
for 2 positional inputs. Name each argument once.""",
    )
    refuses(
        lambda F, f: F.grad_and_value(f, argnums=())(ones(2)),
        """\
RuntimeError: grad_and_value: argnums must be non-empty; name at least one argument to
differentiate.""",
    )
    refuses(
        lambda F, f: F.grad_and_value(f, argnums=[0])(ones(2)),
        """\
RuntimeError: grad_and_value: argnums must be int or Tuple[int, ...], got: <class
'list'>. Write argnums=0 for the first argument, argnums=(0, 1) for the first two.""",
    )
    refuses(
        lambda F, f: F.grad_and_value(f, argnums=(0, 1.5))(ones(2), ones(2)),
        """\
RuntimeError: grad_and_value: each argnum must be int, got: <class 'float'> in
argnums=(0, 1.5). It is the position of an argument.""",
    )
    refuses(
        lambda F, f: F.grad_and_value(f)(x=ones(2)),
        """\
RuntimeError: grad_and_value(f)(*args): Got argnum=0, but only 0 positional inputs.
Differentiated arguments must be passed by position, not by keyword.""",
    )


def test_argnums_of_jacrev():
    refuses(
        lambda F, f: F.jacrev(f, argnums=2)(ones(2), ones(2)),
        """\
RuntimeError: jacrev: Got argnum=2, but only 2 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.jacrev(f, argnums=(0, -2))(ones(2), ones(2)),
        """\
RuntimeError: jacrev: argnums elements must be unique, got (0, -2) for 2 positional
inputs. Name each argument once.""",
    )
    refuses(
        lambda F, f: F.jacrev(f, argnums=())(ones(2)),
        """\
RuntimeError: jacrev: argnums must be non-empty; name at least one argument to
differentiate.""",
    )
    refuses(
        lambda F, f: F.jacrev(f, argnums=[0])(ones(2)),
        """\
RuntimeError: jacrev: argnums must be int or Tuple[int, ...], got: <class 'list'>.
Write argnums=0 for the first argument, argnums=(0, 1) for the first two.""",
    )
    refuses(
        lambda F, f: F.jacrev(f, argnums=(0, 1.5))(ones(2), ones(2)),
        """\
RuntimeError: jacrev: each argnum must be int, got: <class 'float'> in argnums=(0,
1.5). It is the position of an argument.""",
    )
    refuses(
        lambda F, f: F.jacrev(f)(x=ones(2)),
        """\
RuntimeError: jacrev: Got argnum=0, but only 0 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
        like_torch_func=False,
    )


def test_argnums_of_jacfwd():
    refuses(
        lambda F, f: F.jacfwd(f, argnums=2)(ones(2), ones(2)),
        """\
RuntimeError: jacfwd: Got argnum=2, but only 2 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.jacfwd(f, argnums=(0, -2))(ones(2), ones(2)),
        """\
RuntimeError: jacfwd: argnums elements must be unique, got (0, -2) for 2 positional
inputs. Name each argument once.""",
    )
    refuses(
        lambda F, f: F.jacfwd(f, argnums=())(ones(2)),
        """\
RuntimeError: jacfwd: argnums must be non-empty; name at least one argument to
differentiate.""",
    )
    refuses(
        lambda F, f: F.jacfwd(f, argnums=[0])(ones(2)),
        """\
RuntimeError: jacfwd: argnums must be int or Tuple[int, ...], got: <class 'list'>.
Write argnums=0 for the first argument, argnums=(0, 1) for the first two.""",
    )
    refuses(
        lambda F, f: F.jacfwd(f, argnums=(0, 1.5))(ones(2), ones(2)),
        """\
RuntimeError: jacfwd: each argnum must be int, got: <class 'float'> in argnums=(0,
1.5). It is the position of an argument.""",
    )
    refuses(
        lambda F, f: F.jacfwd(f)(x=ones(2)),
        """\
RuntimeError: jacfwd: Got argnum=0, but only 0 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
        like_torch_func=False,
    )


def test_argnums_of_hessian():
    refuses(
        lambda F, f: F.hessian(f, argnums=2)(ones(2), ones(2)),
        """\
RuntimeError: hessian: Got argnum=2, but only 2 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.hessian(f, argnums=(0, -2))(ones(2), ones(2)),
        """\
RuntimeError: hessian: argnums elements must be unique, got (0, -2) for 2 positional
inputs. Name each argument once.""",
    )
    refuses(
        lambda F, f: F.hessian(f, argnums=())(ones(2)),
        """\
RuntimeError: hessian: argnums must be non-empty; name at least one argument to
differentiate.""",
    )
    refuses(
        lambda F, f: F.hessian(f, argnums=[0])(ones(2)),
        """\
RuntimeError: hessian: argnums must be int or Tuple[int, ...], got: <class 'list'>.
Write argnums=0 for the first argument, argnums=(0, 1) for the first two.""",
    )
    refuses(
        lambda F, f: F.hessian(f, argnums=(0, 1.5))(ones(2), ones(2)),
        """\
RuntimeError: hessian: each argnum must be int, got: <class 'float'> in argnums=(0,
1.5). It is the position of an argument.""",
    )
    refuses(
        lambda F, f: F.hessian(f)(x=ones(2)),
        """\
RuntimeError: hessian: Got argnum=0, but only 0 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
        like_torch_func=False,
    )


def test_inputs_of_grad():
    refuses(
        lambda F, f: F.grad(f)(2.0),
        """\
ValueError: grad, by grad_and_value(f)(*args): Thing passed to transform API must be
Tensor, got <class 'float'> among the inputs to differentiate. Pass
torch.tensor(value), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.grad(f)({"a": ones(2), "b": "text"}),
        """\
ValueError: grad, by grad_and_value(f)(*args): Thing passed to transform API must be
Tensor, got <class 'str'> among the inputs to differentiate at ['b']. Pass
torch.tensor(value), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.grad(f)(INTEGERS),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): only Tensors of floating point dtype
can require gradients, got an input of torch.int64. Convert it first, for example with
x.float(), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.grad(ones(2))(ones(2)),
        """\
TypeError: grad: expected a function to transform, got <class 'torch.Tensor'>. Pass
the function itself, f, and not its result, f(x).""",
    )


def test_inputs_of_jacrev():
    refuses(
        lambda F, f: F.jacrev(f)(2.0),
        """\
ValueError: jacrev, by vjp(f, *primals): Thing passed to transform API must be Tensor,
got <class 'float'> among the inputs to differentiate. Pass torch.tensor(value), or
leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.jacrev(f)({"a": ones(2), "b": "text"}),
        """\
ValueError: jacrev, by vjp(f, *primals): Thing passed to transform API must be Tensor,
got <class 'str'> among the inputs to differentiate at ['b']. Pass
torch.tensor(value), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.jacrev(f)(INTEGERS),
        """\
RuntimeError: jacrev, by vjp(f, *primals): only Tensors of floating point dtype can
require gradients, got an input of torch.int64. Convert it first, for example with
x.float(), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.jacrev(f)(COMPLEX),
        """\
RuntimeError: jacrev: Expected all inputs to be real but received complex tensor at
flattened input idx: 0. Use torch.view_as_real and torch.view_as_complex to take the
Jacobian of the real and imaginary parts, or use vjp or jvp.""",
    )
    refuses(
        lambda F, f: F.jacrev(ones(2))(ones(2)),
        """\
TypeError: jacrev: expected a function to transform, got <class 'torch.Tensor'>. Pass
the function itself, f, and not its result, f(x).""",
    )


def test_inputs_of_jacfwd():
    refuses(
        lambda F, f: F.jacfwd(f)(2.0),
        """\
RuntimeError: jacfwd, by jvp(f, primals, tangents): Expected primals to only contain
Tensors, got <class 'float'>. Pass torch.tensor(value), or leave its argument out of
argnums.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.jacfwd(f)({"a": ones(2), "b": "text"}),
        """\
RuntimeError: jacfwd, by jvp(f, primals, tangents): Expected primals to only contain
Tensors, got <class 'str'>. Pass torch.tensor(value), or leave its argument out of
argnums.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.jacfwd(f)(INTEGERS),
        """\
ValueError: jacfwd, by jvp(f, primals, tangents): Expected primal to be floating point
or complex, but got: torch.int64. Convert it first, for example with x.float(), or
leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.jacfwd(f)(COMPLEX),
        """\
RuntimeError: jacfwd: Expected all inputs to be real but received complex tensor at
flattened input idx: 0. Use torch.view_as_real and torch.view_as_complex to take the
Jacobian of the real and imaginary parts, or use vjp or jvp.""",
    )
    refuses(
        lambda F, f: F.jacfwd(ones(2))(ones(2)),
        """\
TypeError: jacfwd: expected a function to transform, got <class 'torch.Tensor'>. Pass
the function itself, f, and not its result, f(x).""",
    )


def test_inputs_of_hessian():
    refuses(
        lambda F, f: F.hessian(f)(2.0),
        """\
RuntimeError: hessian, by jvp(f, primals, tangents): Expected primals to only contain
Tensors, got <class 'float'>. Pass torch.tensor(value), or leave its argument out of
argnums.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.hessian(f)({"a": ones(2), "b": "text"}),
        """\
RuntimeError: hessian, by jvp(f, primals, tangents): Expected primals to only contain
Tensors, got <class 'str'>. Pass torch.tensor(value), or leave its argument out of
argnums.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.hessian(f)(INTEGERS),
        """\
ValueError: hessian, by jvp(f, primals, tangents): Expected primal to be floating
point or complex, but got: torch.int64. Convert it first, for example with x.float(),
or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.hessian(f)(COMPLEX),
        """\
RuntimeError: hessian: Expected all inputs to be real but received complex tensor at
flattened input idx: 0. Use torch.view_as_real and torch.view_as_complex to take the
Jacobian of the real and imaginary parts, or use vjp or jvp.""",
    )
    refuses(
        lambda F, f: F.hessian(ones(2))(ones(2)),
        """\
TypeError: hessian: expected a function to transform, got <class 'torch.Tensor'>. Pass
the function itself, f, and not its result, f(x).""",
    )


def test_outputs_of_grad():
    fails(
        lambda F: F.grad(torch.sin)(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a scalar
Tensor, got tensor with 1 dims. Reduce it, for example with .sum(), or use vjp or
jacrev.""",
    )
    fails(
        lambda F: F.grad(lambda x: (x.sum(), x))(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a Tensor,
got <class 'tuple'>. For a pair (output, aux) pass has_aux=True; for several outputs
use vjp or jacrev.""",
    )
    fails(
        lambda F: F.grad(lambda x: x.sum().item())(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a Tensor,
got <class 'float'>. A number has no derivative: keep the result a tensor, without
.item().""",
    )
    fails(
        lambda F: F.grad(lambda x: None)(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a Tensor,
got <class 'NoneType'>. Does f return its result?""",
    )
    fails(
        lambda F: F.grad(torch.sum)(COMPLEX),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): grad can be implicitly created only
for real scalar outputs but got torch.complex64. Return the real part or the modulus,
or use vjp with a cotangent.""",
    )
    fails(
        lambda F: F.grad_and_value(torch.sin)(ones(2)),
        """\
RuntimeError: grad_and_value(f)(*args): Expected f(*args) to return a scalar Tensor,
got tensor with 1 dims. Reduce it, for example with .sum(), or use vjp or jacrev.""",
    )


def test_aux_of_grad():
    fails(
        lambda F: F.grad(torch.sum, has_aux=True)(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): output of function f should be a
tuple: (output, aux) if has_aux is True, got <class 'torch.Tensor'>. Return a pair, or
drop has_aux.""",
    )
    fails(
        lambda F: F.grad(lambda x: (x.sum(),) * 3, has_aux=True)(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): output of function f should be a
tuple: (output, aux) if has_aux is True, got a tuple of length 3. Return a pair, or
drop has_aux.""",
    )
    fails(
        lambda F: F.grad(lambda x: (x.sum(), "text"), has_aux=True)(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected tensors, got unsupported
type <class 'str'> in aux. Wrap numbers by torch.tensor, and keep other objects out of
the returned value.""",
    )


def test_outputs_of_jacobians():
    fails(
        lambda F: F.jacrev(lambda x: 1.0)(ones(2)),
        """\
RuntimeError: jacrev, by vjp(f, *primals): expected f(*primals) to return only
tensors, got unsupported type <class 'float'>. Wrap numbers by torch.tensor, and leave
out other objects.""",
    )
    fails(
        lambda F: F.jacrev(lambda x: None)(ones(2)),
        """\
RuntimeError: jacrev, by vjp(f, *primals): Expected f to be a function that has
non-empty output (got output = [None]). Does f return its result?""",
    )
    fails(
        lambda F: F.jacrev(lambda x: x.long())(ones(2)),
        """\
RuntimeError: jacrev, by vjp(f, *primals): All outputs of f must be floating-point or
complex Tensors, got Tensor with dtype torch.int64. Return it as aux, with
has_aux=True.""",
    )
    fails(
        lambda F: F.jacrev(lambda x: x * 1j)(ones(2)),
        """\
RuntimeError: jacrev: Expected all outputs to be real but received complex tensor at
flattened input idx: 0. Use torch.view_as_real and torch.view_as_complex to take the
Jacobian of the real and imaginary parts, or use vjp or jvp.""",
    )
    fails(
        lambda F: F.jacfwd(lambda x: [x, 2])(ones(2)),
        """\
RuntimeError: jacfwd, by jvp(f, primals, tangents): expected f(*primals) to return
only tensors, got unsupported type <class 'int'>. Wrap numbers by torch.tensor, and
leave out other objects.""",
    )
    fails(
        lambda F: F.jacfwd(lambda x: ())(ones(2)),
        """\
RuntimeError: jacfwd, by jvp(f, primals, tangents): Expected f to be a function that
has non-empty output (got output = []). Does f return its result?""",
    )
    fails(
        lambda F: F.jacfwd(lambda x: x * 1j)(ones(2)),
        """\
RuntimeError: jacfwd: Expected all outputs to be real but received complex tensor at
flattened input idx: 0. Use torch.view_as_real and torch.view_as_complex to take the
Jacobian of the real and imaginary parts, or use vjp or jvp.""",
    )
    fails(
        lambda F: F.hessian(lambda x: 1.0)(ones(2)),
        """\
RuntimeError: hessian, by jacrev, by vjp(f, *primals): expected f(*primals) to return
only tensors, got unsupported type <class 'float'>. Wrap numbers by torch.tensor, and
leave out other objects.""",
    )
    fails(
        lambda F: F.jacrev(torch.sin, has_aux=True)(ones(2)),
        """\
RuntimeError: jacrev, by vjp(f, *primals): output of function f should be a tuple:
(output, aux) if has_aux is True, got <class 'torch.Tensor'>. Return a pair, or drop
has_aux.""",
    )
    fails(
        lambda F: F.jacfwd(lambda x: (x, 1), has_aux=True)(ones(2)),
        """\
RuntimeError: jacfwd, by jvp(f, primals, tangents): Expected tensors, got unsupported
type <class 'int'> in aux. Wrap numbers by torch.tensor, and keep other objects out of
the returned value.""",
    )


def test_options_of_jacobians():
    refuses(
        lambda F, f: F.jacrev(f, chunk_size=0)(ones(2)),
        """\
ValueError: jacrev: `chunk_size` should be greater than 0. (got 0) It is the number of
rows or columns of the Jacobian to compute at a time; None is for all.""",
    )
    refuses(
        lambda F, f: F.jacrev(f, chunk_size=1.5)(ones(2)),
        """\
TypeError: jacrev: chunk_size should be None or an int greater than 0, got 1.5. It is
the number of rows or columns of the Jacobian to compute at a time.""",
    )
    refuses(
        lambda F, f: F.jacfwd(f, chunk_size=-1)(ones(2)),
        """\
ValueError: jacfwd: `chunk_size` should be greater than 0. (got -1) It is the number
of rows or columns of the Jacobian to compute at a time; None is for all.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.jacfwd(f, randomness="none")(ones(2)),
        """\
RuntimeError: jacfwd: Only allowed values for randomness are 'error', 'different', or
'same'. Got 'none'.""",
    )
    refuses(
        lambda F, f: F.hessian(f, chunk_size=0)(ones(2)),
        """\
ValueError: hessian: `chunk_size` should be greater than 0. (got 0) It is the number
of rows or columns of the Jacobian to compute at a time; None is for all.""",
        like_torch_func=False,
    )


def test_inputs_of_vjp():
    refuses(
        lambda F, f: F.vjp(f, 1.0),
        """\
ValueError: vjp(f, *primals): Thing passed to transform API must be Tensor, got <class
'float'> among the inputs to differentiate at [0]. Pass torch.tensor(value), or bind
what is not differentiated with functools.partial.""",
    )
    refuses(
        lambda F, f: F.vjp(f, ones(2), {"a": 3}),
        """\
ValueError: vjp(f, *primals): Thing passed to transform API must be Tensor, got <class
'int'> among the inputs to differentiate at [1]['a']. Pass torch.tensor(value), or
bind what is not differentiated with functools.partial.""",
    )
    refuses(
        lambda F, f: F.vjp(f, INTEGERS),
        """\
RuntimeError: vjp(f, *primals): only Tensors of floating point dtype can require
gradients, got an input of torch.int64 at [0]. Convert it first, for example with
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
Tensors, got Tensor with dtype torch.int64. Return it as aux, with has_aux=True.""",
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
of torch.complex64 and output 0 has a dtype of torch.float32.""",
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
[*]. Pass zeros for an input that stays fixed.""",
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
<class 'float'>. Pass torch.tensor(value), or bind what is not differentiated with
functools.partial.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2), ones(2)), (ones(2), None)),
        """\
RuntimeError: jvp(f, primals, tangents): Expected tangents to only contain Tensors,
got <class 'NoneType'>. Pass torch.tensor(value), or pass zeros for an input that
stays fixed.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2),), (ones(3),)),
        """\
RuntimeError: jvp(f, primals, tangents): Got a tangent that has a different size than
that of the original Tensor, this is not supported. The primal is of size [2] while
the tangent is of size [3]. Expand the tangent; it is not broadcast.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (INTEGERS,), (ones(2),)),
        """\
ValueError: jvp(f, primals, tangents): Expected primal to be floating point or
complex, but got: torch.int64. Convert it first, for example with x.float(), or bind
what is not differentiated with functools.partial.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2),), (INTEGERS,)),
        """\
ValueError: jvp(f, primals, tangents): Expected tangent to be floating point or
complex, but got: torch.int64. Convert it first, for example with x.float(), or pass
zeros for an input that stays fixed.""",
    )
    refuses(
        lambda F, f: F.jvp(f, (ones(2),), (COMPLEX,)),
        """\
ValueError: jvp(f, primals, tangents): Got a complex tangent (torch.complex64) for a
real primal (torch.float32). Pass its real part, or make the primal complex.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.jvp(None, (ones(2),), (ones(2),)),
        """\
TypeError: jvp: expected a function to transform, got <class 'NoneType'>. Pass the
function itself, f, and not its result, f(x).""",
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


def test_linearize():
    refuses(
        lambda F, f: F.linearize(f, 1.0),
        """\
ValueError: linearize(f, *primals): Thing passed to transform API must be Tensor, got
<class 'float'> among the inputs to differentiate at [0]. Pass torch.tensor(value), or
bind what is not differentiated with functools.partial.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.linearize(f, INTEGERS),
        """\
RuntimeError: linearize(f, *primals): only Tensors of floating point dtype can require
gradients, got an input of torch.int64 at [0]. Convert it first, for example with
x.float(), or bind what is not differentiated with functools.partial.""",
        like_torch_func=False,
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


def test_writes_into_captured_tensors():
    fails(
        lambda F: F.grad(writing_into(zeros(2)))(ones(2)),
        """\
RuntimeError: functx.grad: aten::copy_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, which would stay on the tape. Pass it to the
function as an argument, use the out-of-place operator, write into a clone, or detach
the value if it is a statistic.""",
    )
    fails(
        lambda F: F.vjp(writing_into(zeros(2)), ones(2)),
        """\
RuntimeError: functx.grad: aten::copy_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, which would stay on the tape. Pass it to the
function as an argument, use the out-of-place operator, write into a clone, or detach
the value if it is a statistic.""",
    )
    fails(
        lambda F: F.jvp(writing_into(zeros(2)), (ones(2),), (ones(2),)),
        """\
RuntimeError: functx.jvp: aten::copy_ would mutate a captured Tensor, or one computed
from captured ones only: it writes a value that depends on the input into a tensor
that does not belong to this transform (level N), so its tangent would be lost. Use
the out-of-place operator, or write into a clone or into a tensor that a factory
(torch.zeros, torch.empty...) makes inside the function.""",
    )
    fails(
        lambda F: F.vmap(F.grad(writing_into(zeros(2))))(ones(3, 2)),
        """\
RuntimeError: functx.grad: aten::copy_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, which would stay on the tape. Pass it to the
function as an argument, use the out-of-place operator, write into a clone, or detach
the value if it is a statistic.""",
    )
    fails(
        lambda F: F.grad(lambda x: x.add_(1).sum())(ones(2)),
        """\
RuntimeError: a leaf Variable that requires grad is being used in an in-place
operation.""",
    )


def test_rules_of_functions():
    fails(
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: x).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: the vmap staticmethod of Double has to return two things,
(output, out_dims), but returned a Tensor.""",
    )
    fails(
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: (x, 0, 0)).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: the vmap staticmethod of Double has to return two things,
(output, out_dims), but returned a tuple of 3.""",
    )
    fails(
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: (x, (0, 0))).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: the vmap staticmethod of Double returned out_dims=(0, 0),
which does not have the structure of the output. Give an int or None for each tensor,
or one for all.""",
    )
    fails(
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: (x, 5)).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: the batching rule of Double returned an output of shape
(3,) with out_dims 5, but no dimension of the batch size, 3, is there. Give None for
an output that is the same for all examples.""",
        like_torch_func=False,
    )
    fails(
        lambda F: F.vmap(double(True, vmap=lambda info, in_dims, x: (x, 0)).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: Double has a vmap staticmethod and generate_vmap_rule=True,
so it is not clear which rule is meant. Keep one of them.""",
    )
    fails(
        lambda F: F.jvp(double(jvp=lambda ctx, t: (t, t)).apply, (ones(2),), (ones(2),)),
        """\
RuntimeError: Double.jvp has to return one tangent for each output of forward, 1, and
returned 2. Return None for an output without one.""",
    )
    fails(
        lambda F: F.jvp(double(jvp=lambda ctx, t: t[:1]).apply, (ones(2),), (ones(2),)),
        """\
RuntimeError: Double.jvp returned a tangent of shape (1,) for an output of shape (2,).
They have to be equal.""",
    )


def test_modules_and_functionalize():
    refuses(
        lambda F, f: F.functionalize(f, remove="all")(ones(2)),
        """\
RuntimeError: functionalize(f, remove='mutations'): received invalid argument for
remove=all. Valid options are:      remove='mutations': all inplace and out= operators
will be removed from the program, and replaced with their out-of-place equivalents.
remove='mutations_and_views': In addition to the above, all aliasing operators {view}
will be replaced with their non-aliasing counterparts, {view}_copy.""",
    )
    fails(
        lambda F: F.stack_module_state([]),
        """RuntimeError: stack_module_state: Expected at least one model, got 0.""",
    )
    fails(
        lambda F: F.stack_module_state([linear(), linear().eval()]),
        """\
RuntimeError: stack_module_state: Expected all models to have the same training/eval
mode.""",
    )
    fails(
        lambda F: F.stack_module_state([linear(), torch.nn.Identity()]),
        """RuntimeError: stack_module_state: Expected all models to be of the same class.""",
    )
    fails(
        lambda F: F.functional_call(linear(), [1], (ones(2),)),
        """ValueError: Expected all elements of parameter_and_buffer_dicts to be dictionaries""",
    )
    fails(
        lambda F: F.functional_call(linear(), ({"weight": ones(2, 2)},) * 2, (ones(2),)),
        """\
ValueError: ['weight'] appeared in multiple dictionaries; behavior of functional call
is ambiguous""",
    )
