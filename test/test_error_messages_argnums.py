"""Derivatives: what the errors about argnums and the arguments they name say."""

import torch
from _messages import ones, refuses

INTEGERS = torch.ones(2, dtype=torch.int64)
COMPLEX = torch.ones(2, dtype=torch.complex64)


def test_argnums_of_grad():
    refuses(
        lambda F, f: F.grad(f, argnums=2)(ones(2), ones(2)),
        """\
RuntimeError: grad: Got argnum=2, but only 2 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=(0, -2))(ones(2), ones(2)),
        """\
RuntimeError: grad: argnums elements must be unique, got (0, -2) for 2 positional
inputs. Name each argument once.""",
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
RuntimeError: grad: Got argnum=0, but only 0 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=None)(ones(2)),
        """\
RuntimeError: grad: argnums must be int or Tuple[int, ...], got: <class 'NoneType'>.
Write argnums=0 for the first argument, argnums=(0, 1) for the first two.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=-2)(ones(2)),
        """\
RuntimeError: grad: Got argnum=-2, but only 1 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.grad(f)(),
        """\
RuntimeError: grad: Got argnum=0, but only 0 positional inputs. Differentiated
arguments must be passed by position, not by keyword.""",
    )


def test_argnums_of_grad_and_value():
    refuses(
        lambda F, f: F.grad_and_value(f, argnums=2)(ones(2), ones(2)),
        """\
RuntimeError: grad_and_value: Got argnum=2, but only 2 positional inputs.
Differentiated arguments must be passed by position, not by keyword.""",
    )
    refuses(
        lambda F, f: F.grad_and_value(f, argnums=(0, -2))(ones(2), ones(2)),
        """\
RuntimeError: grad_and_value: argnums elements must be unique, got (0, -2) for 2
positional inputs. Name each argument once.""",
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
RuntimeError: grad_and_value: Got argnum=0, but only 0 positional inputs.
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
ValueError: grad: Thing passed to transform API must be Tensor, got <class 'float'>
for argument 0. Pass torch.tensor(value), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.grad(f)({"a": ones(2), "b": "text"}),
        """\
ValueError: grad: Thing passed to transform API must be Tensor, got <class 'str'> for
argument 0 at ['b']. Pass torch.tensor(value), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.grad(f)(INTEGERS),
        """\
RuntimeError: grad: only Tensors of floating point dtype can require gradients, got
torch.int64 for argument 0. Convert it first, for example with x.float(), or leave its
argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.grad(ones(2))(ones(2)),
        """\
TypeError: grad: expected a function to transform, got <class 'torch.Tensor'>. Pass
the function itself, f, and not its result, f(x).""",
    )
    refuses(
        lambda F, f: F.grad(f)(None),
        """\
ValueError: grad: Thing passed to transform API must be Tensor, got <class 'NoneType'>
for argument 0. Pass torch.tensor(value), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=(2, 0))([3.0], ones(2), ones(2)),
        """\
ValueError: grad: Thing passed to transform API must be Tensor, got <class 'float'>
for argument 0 at [0]. Pass torch.tensor(value), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.grad(f, argnums=-1)(ones(2), ones(2) > 0),
        """\
RuntimeError: grad: only Tensors of floating point dtype can require gradients, got
torch.bool for argument 1. Convert it first, for example with x.float(), or leave its
argument out of argnums.""",
    )


def test_inputs_of_jacrev():
    refuses(
        lambda F, f: F.jacrev(f)(2.0),
        """\
ValueError: jacrev: Thing passed to transform API must be Tensor, got <class 'float'>
for argument 0. Pass torch.tensor(value), or leave its argument out of argnums.""",
    )
    refuses(
        lambda F, f: F.jacrev(f)({"a": ones(2), "b": "text"}),
        """\
ValueError: jacrev: Thing passed to transform API must be Tensor, got <class 'str'>
for argument 0 at ['b']. Pass torch.tensor(value), or leave its argument out of
argnums.""",
    )
    refuses(
        lambda F, f: F.jacrev(f)(INTEGERS),
        """\
RuntimeError: jacrev: only Tensors of floating point dtype can require gradients, got
torch.int64 for argument 0. Convert it first, for example with x.float(), or leave its
argument out of argnums.""",
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
RuntimeError: jacfwd: Expected primals to only contain Tensors, got <class 'float'>
for argument 0. Pass torch.tensor(value), or leave its argument out of argnums.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.jacfwd(f)({"a": ones(2), "b": "text"}),
        """\
RuntimeError: jacfwd: Expected primals to only contain Tensors, got <class 'str'> for
argument 0 at ['b']. Pass torch.tensor(value), or leave its argument out of argnums.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.jacfwd(f)(INTEGERS),
        """\
ValueError: jacfwd: Expected primal to be floating point or complex, but got:
torch.int64 for argument 0. Convert it first, for example with x.float(), or leave its
argument out of argnums.""",
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
RuntimeError: hessian: Expected primals to only contain Tensors, got <class 'float'>
for argument 0. Pass torch.tensor(value), or leave its argument out of argnums.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.hessian(f)({"a": ones(2), "b": "text"}),
        """\
RuntimeError: hessian: Expected primals to only contain Tensors, got <class 'str'> for
argument 0 at ['b']. Pass torch.tensor(value), or leave its argument out of argnums.""",
        like_torch_func=False,
    )
    refuses(
        lambda F, f: F.hessian(f)(INTEGERS),
        """\
ValueError: hessian: Expected primal to be floating point or complex, but got:
torch.int64 for argument 0. Convert it first, for example with x.float(), or leave its
argument out of argnums.""",
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
