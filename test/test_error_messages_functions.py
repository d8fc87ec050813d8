"""What the errors say about rules of autograd.Function, about modules and functionalize."""

import torch
from _messages import fails, ones, refuses
from torch.autograd.function import once_differentiable


def linear():
    return torch.nn.Linear(2, 2)


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


def test_vmap_rules_of_functions():
    fails(
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: x).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: the vmap staticmethod of Double has to have two returns,
(output, out_dims), but returned a Tensor.""",
    )
    fails(
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: (x, 0, 0)).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: the vmap staticmethod of Double has to have two returns,
(output, out_dims), but returned a tuple of 3.""",
    )
    fails(
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: (x, (0, 0))).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: the vmap staticmethod of Double returned an incompatible
(output, out_dims) tuple: out_dims=(0, 0) does not fit the structure of the output, *.
Give an int or None for each tensor, or one for all.""",
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
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: (x, "a")).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: the batching rule of Double returned 'a' in out_dims for a
tensor. Give the position of its batch dimension, or None.""",
        like_torch_func=False,
    )
    fails(
        lambda F: F.vmap(double(vmap=lambda info, in_dims, x: (1.0, None)).apply)(ones(3)),
        """\
ValueError: vmap(apply, ...): `apply` must only return Tensors, got type <class
'float'>. Set out_dims to None for an output that is the same for every example.""",
    )
    fails(
        lambda F: F.vmap(double(True, vmap=lambda info, in_dims, x: (x, 0)).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: Double has both generate_vmap_rule=True and an overridden
vmap staticmethod, so it is not clear which rule is meant. Keep one of them.""",
    )
    fails(
        lambda F: F.vmap(double(True, forward=lambda x: x.numpy()).apply)(ones(3)),
        """\
RuntimeError: functx.vmap: .numpy() was called on a tensor inside vmap, which stands
for others and has no memory of its own. Return it from the transformed function and
convert the result, or look at it with functx.debug_unwrap.""",
    )


def test_derivatives_of_functions():
    fails(
        lambda F: F.jvp(double(jvp=lambda ctx, t: (t, t)).apply, (ones(2),), (ones(2),)),
        """\
RuntimeError: functx.jvp: Double.jvp has to return one tangent for each output of
forward (expected 1 but got 2). Return None for an output without one.""",
    )
    fails(
        lambda F: F.jvp(double(jvp=lambda ctx, t: t[:1]).apply, (ones(2),), (ones(2),)),
        """\
RuntimeError: functx.jvp: Double.jvp returned a tangent of shape (1,) for an output of
shape (2,). They have to be equal.""",
    )
    fails(
        lambda F: F.jvp(double(jvp=lambda ctx, t: 1.0).apply, (ones(2),), (ones(2),)),
        """\
RuntimeError: functx.jvp: Double.jvp has to return a Tensor or None for each output of
forward, and returned <class 'float'>.""",
    )
    fails(
        lambda F: F.jvp(double().apply, (ones(2),), (ones(2),)),
        """\
NotImplementedError: functx.jvp: Double has no jvp staticmethod, and none can be
derived, since there is no backward. Define jvp(ctx, *tangents) to use it with forward
mode AD.""",
    )
    fails(
        lambda F: F.jvp(
            double(backward=once_differentiable(lambda ctx, g: g)).apply, (ones(2),), (ones(2),)
        ),
        """\
NotImplementedError: functx.jvp: Double has no jvp staticmethod, and none can be
derived, since backward is once_differentiable. Define jvp(ctx, *tangents) to use it
with forward mode AD.""",
    )
    fails(
        lambda F: F.grad(lambda x: double().apply(x).sum())(ones(2)),
        """\
NotImplementedError: You must implement either the backward or vjp method for your
custom autograd.Function to use it with backward mode AD.""",
    )
    fails(
        lambda F: F.grad(lambda x: double(backward=lambda ctx, g: (g, g)).apply(x).sum())(ones(2)),
        """\
RuntimeError: function DoubleBackward returned an incorrect number of gradients
(expected 1, got 2)""",
    )
    fails(
        lambda F: F.grad(lambda x: double(backward=lambda ctx, g: g[:1]).apply(x).sum())(ones(2)),
        """\
RuntimeError: Function DoubleBackward returned an invalid gradient at index 0 - got
[1] but expected shape compatible with [2]""",
    )
    fails(
        lambda F: F.grad(lambda x: double(backward=lambda ctx, g: 1.0).apply(x).sum())(ones(2)),
        """RuntimeError: expected Variable or None (got float)""",
    )
    fails(
        lambda F: F.grad(
            F.grad(
                lambda x: double(backward=once_differentiable(lambda ctx, g: g * 2)).apply(x) ** 2
            )
        )(ones()),
        """\
RuntimeError: functx: trying to differentiate twice a function that was marked with
@once_differentiable. Remove the mark if its backward is made of differentiable
operators.""",
        like_torch_func=False,
    )
    fails(
        lambda F: F.vmap(F.grad(lambda x: double(backward=lambda ctx, g: (g, g)).apply(x).sum()))(
            ones(3, 2)
        ),
        """\
RuntimeError: function DoubleBackward returned an incorrect number of gradients
(expected 1, got 2)""",
        like_torch_func=False,
    )
    fails(
        lambda F: F.grad(
            lambda x: (
                double(setup_context=lambda ctx, inputs, output: ctx.save_for_backward(1.0))
                .apply(x)
                .sum()
            )
        )(ones(2)),
        """TypeError: save_for_backward can only save variables, but argument 0 is of type float""",
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
        """\
ValueError: functional_call(module, parameter_and_buffer_dicts, args, kwargs):
Expected all elements of parameter_and_buffer_dicts to be dictionaries, got [<class
'int'>]. Pass dicts of tensors by their names.""",
    )
    fails(
        lambda F: F.functional_call(linear(), ({"weight": ones(2, 2)},) * 2, (ones(2),)),
        """\
ValueError: functional_call(module, parameter_and_buffer_dicts, args, kwargs):
['weight'] appeared in multiple dictionaries; behavior of functional call is
ambiguous. Give each name in one of them.""",
    )
    fails(
        lambda F: F.stack_module_state([torch.nn.Linear(2, 2), torch.nn.Linear(3, 2)]),
        """\
RuntimeError: stack expects each tensor to be equal size, but got [2, 2] at entry 0
and [2, 3] at entry 1""",
    )
    fails(
        lambda F: F.functional_call(linear(), 3, (ones(2),)),
        """\
ValueError: functional_call(module, parameter_and_buffer_dicts, args, kwargs):
Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got
<class 'int'>. Pass dict(module.named_parameters()) or what looks like it.""",
    )
    fails(
        lambda F: F.functional_call(linear(), {"w": ones(2)}, (ones(2),), strict=True),
        """\
RuntimeError: Error(s) in reparametrizing for Linear:         Unexpected key(s): 'w'.
Missing key(s): 'bias', 'weight'. Give each parameter and buffer by its name in
named_parameters() or named_buffers(), or call with strict=False.""",
    )
