"""Gradients and Jacobians: what the errors about outputs and options say."""

import torch
from _messages import fails, ones, refuses

COMPLEX = torch.ones(2, dtype=torch.complex64)


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
    fails(
        lambda F: F.grad(lambda x: [x.sum()])(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a Tensor,
got <class 'list'>. For a pair (output, aux) pass has_aux=True; for several outputs
use vjp or jacrev.""",
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
    fails(
        lambda F: F.grad(lambda x: [x.sum(), x], has_aux=True)(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): output of function f should be a
tuple: (output, aux) if has_aux is True, got <class 'list'>. Return a pair, or drop
has_aux.""",
    )
    fails(
        lambda F: F.grad(lambda x: (x.sum(), None), has_aux=True)(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected tensors, got unsupported
type <class 'NoneType'> in aux. Wrap numbers by torch.tensor, and keep other objects
out of the returned value.""",
    )
    fails(
        lambda F: F.grad(lambda x: (x, x), has_aux=True)(ones(2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a scalar
Tensor, got tensor with 1 dims. Reduce it, for example with .sum(), or use vjp or
jacrev.""",
    )
    fails(
        lambda F: F.grad_and_value(lambda x: (x.sum(), 1), has_aux=True)(ones(2)),
        """\
RuntimeError: grad_and_value(f)(*args): Expected tensors, got unsupported type <class
'int'> in aux. Wrap numbers by torch.tensor, and keep other objects out of the
returned value.""",
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
complex Tensors, got Tensor with dtype torch.int64. Leave it out of the result, or
return it as aux where has_aux is an option.""",
    )
    fails(
        lambda F: F.jacrev(lambda x: x * 1j)(ones(2)),
        """\
RuntimeError: jacrev: Expected all outputs to be real but received complex tensor at
flattened output idx: 0. Use torch.view_as_real and torch.view_as_complex to take the
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
flattened output idx: 0. Use torch.view_as_real and torch.view_as_complex to take the
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
    fails(
        lambda F: F.hessian(lambda x: x.long())(ones(2)),
        """\
RuntimeError: hessian, by jacrev, by vjp(f, *primals): All outputs of f must be
floating-point or complex Tensors, got Tensor with dtype torch.int64. Leave it out of
the result, or return it as aux where has_aux is an option.""",
    )
    fails(
        lambda F: F.hessian(lambda x: x * 1j)(ones(2)),
        """\
RuntimeError: hessian, by jacrev: Expected all outputs to be real but received complex
tensor at flattened output idx: 0. Use torch.view_as_real and torch.view_as_complex to
take the Jacobian of the real and imaginary parts, or use vjp or jvp.""",
    )
    fails(
        lambda F: F.jacfwd(torch.sin, has_aux=True)(ones(2)),
        """\
RuntimeError: jacfwd, by jvp(f, primals, tangents): output of function f should be a
tuple: (output, aux) if has_aux is True, got <class 'torch.Tensor'>. Return a pair, or
drop has_aux.""",
    )


def test_options_of_jacobians():
    refuses(
        lambda F, f: F.jacrev(f, chunk_size=0)(ones(2)),
        """\
ValueError: jacrev: `chunk_size` should be greater than 0. (got 0) It is the number of
rows of the Jacobian to compute at a time, None for all.""",
    )
    refuses(
        lambda F, f: F.jacrev(f, chunk_size=1.5)(ones(2)),
        """\
TypeError: jacrev: chunk_size should be None or an int greater than 0, got 1.5. It is
the number of rows of the Jacobian to compute at a time, None for all.""",
    )
    refuses(
        lambda F, f: F.jacfwd(f, chunk_size=-1)(ones(2)),
        """\
ValueError: jacfwd: `chunk_size` should be greater than 0. (got -1) It is the number
of columns of the Jacobian to compute at a time, None for all.""",
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
of columns of the Jacobian to compute at a time, None for all.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.jacrev(f, chunk_size="a")(ones(2)),
        """\
TypeError: jacrev: chunk_size should be None or an int greater than 0, got 'a'. It is
the number of rows of the Jacobian to compute at a time, None for all.""",
    )
    refuses(
        lambda F, f: F.jacrev(f, chunk_size=-2)(ones(2)),
        """\
ValueError: jacrev: `chunk_size` should be greater than 0. (got -2) It is the number
of rows of the Jacobian to compute at a time, None for all.""",
    )


def test_under_other_transforms():
    fails(
        lambda F: F.vmap(F.grad(torch.sin))(ones(3, 2)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a scalar
Tensor, got tensor with 1 dims. Reduce it, for example with .sum(), or use vjp or
jacrev.""",
    )
    fails(
        lambda F: F.grad(F.vmap(torch.sin))(ones(3)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a scalar
Tensor, got tensor with 1 dims. Reduce it, for example with .sum(), or use vjp or
jacrev.""",
    )
    fails(
        lambda F: F.grad(F.jacrev(torch.sin))(ones(3)),
        """\
RuntimeError: grad, by grad_and_value(f)(*args): Expected f(*args) to return a scalar
Tensor, got tensor with 2 dims. Reduce it, for example with .sum(), or use vjp or
jacrev.""",
    )
    fails(
        lambda F: F.jacrev(F.jacrev(lambda x: x.sum().item()))(ones(3)),
        """\
RuntimeError: jacrev, by vjp(f, *primals): expected f(*primals) to return only
tensors, got unsupported type <class 'float'>. Wrap numbers by torch.tensor, and leave
out other objects.""",
    )
    fails(
        lambda F: F.vmap(F.jacrev(lambda x: x.long()))(ones(3)),
        """\
RuntimeError: jacrev, by vjp(f, *primals): All outputs of f must be floating-point or
complex Tensors, got Tensor with dtype torch.int64. Leave it out of the result, or
return it as aux where has_aux is an option.""",
    )
    fails(
        lambda F: F.vmap(lambda x: F.jvp(torch.sin, (x,), (x.sum(),)))(ones(3, 2)),
        """\
RuntimeError: jvp(f, primals, tangents): Got a tangent that has a different size than
that of the original Tensor for argument 0, this is not supported. The primal is of
size [2] while the tangent is of size []. Expand the tangent; it is not broadcast.""",
    )
    fails(
        lambda F: F.vmap(lambda x: F.vjp(torch.sin, x)[1](x.sum()))(ones(3, 2)),
        """\
RuntimeError: vjp_fn of vjp(f, *primals): Mismatch in shape: cotangent 0 has a shape
of () and output 0 has a shape of (2,). Expand the cotangent; it is not broadcast.""",
    )
    fails(
        lambda F: F.vmap(F.jacfwd(lambda x: x * torch.rand(2)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::rand draws random numbers, and randomness="error", the default, does not allow
that. Pass randomness="different" to vmap (or jacfwd) for a draw per example or
randomness="same" for one that all examples share, or draw outside of it.""",
    )
