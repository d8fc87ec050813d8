"""What the errors say about writes into tensors from outside of a transform, and random draws."""

import torch
from _messages import fails, ones, zeros
from torch.nn.functional import batch_norm, scaled_dot_product_attention


def writing_into(captured):
    return lambda x: captured.copy_(x).sum()


def adding_to(captured):
    return lambda x: captured.add_(x)


def setting_an_item_of(captured):
    return lambda x: captured.__setitem__(0, x.sum())


def test_random_operators():
    fails(
        lambda F: F.vmap(lambda x: x + torch.rand(2))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::rand draws random numbers, and randomness="error", the default, does not allow
that. Pass randomness="different" to vmap (or jacfwd) for a draw per example or
randomness="same" for one that all examples share, or draw outside of it.""",
    )
    fails(
        lambda F: F.vmap(torch.nn.functional.dropout)(ones(3, 2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::dropout draws random numbers, and randomness="error", the default, does not
allow that. Pass randomness="different" to vmap (or jacfwd) for a draw per example or
randomness="same" for one that all examples share, or draw outside of it.""",
    )
    fails(
        lambda F: F.jacfwd(lambda x: x * torch.rand(2))(ones(2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::rand draws random numbers, and randomness="error", the default, does not allow
that. Pass randomness="different" to vmap (or jacfwd) for a draw per example or
randomness="same" for one that all examples share, or draw outside of it.""",
    )
    fails(
        lambda F: F.vmap(torch.nn.Dropout())(ones(3, 2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::dropout draws random numbers, and randomness="error", the default, does not
allow that. Pass randomness="different" to vmap (or jacfwd) for a draw per example or
randomness="same" for one that all examples share, or draw outside of it.""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.distributions.Categorical(x).sample())(ones(3, 2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::multinomial draws random numbers, and randomness="error", the default, does not
allow that. Pass randomness="different" to vmap (or jacfwd) for a draw per example or
randomness="same" for one that all examples share, or draw outside of it.""",
    )
    fails(
        lambda F: F.vmap(
            lambda x: F.vmap(lambda y: torch.randn_like(y), randomness="different")(x)
        )(ones(3, 2)),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::randn_like draws random numbers, and randomness="error", the default, does not
allow that. Pass randomness="different" to vmap (or jacfwd) for a draw per example or
randomness="same" for one that all examples share, or draw outside of it.""",
    )
    fails(
        lambda F: F.vmap(lambda x: scaled_dot_product_attention(x, x, x, dropout_p=0.5))(
            ones(3, 1, 2, 4)
        ),
        """\
RuntimeError: functx.vmap: called random operation while in randomness error mode:
aten::scaled_dot_product_attention draws random numbers, and randomness="error", the
default, does not allow that. Pass randomness="different" to vmap (or jacfwd) for a
draw per example or randomness="same" for one that all examples share, or draw outside
of it.""",
    )
    fails(
        lambda F: F.vmap(F.vmap(torch.nn.functional.dropout, randomness="none"))(ones(3, 2)),
        """\
RuntimeError: vmap: Only allowed values for randomness are 'error', 'different', or
'same'. Got 'none'.""",
    )


def test_random_numbers_for_one_tensor_that_all_examples_share():
    fails(
        lambda F: F.vmap(lambda x: (zeros().normal_(), x)[1], randomness="different")(ones(3)),
        """\
RuntimeError: functx.vmap: Cannot ask for different inplace randomness on an unbatched
tensor: aten::normal_ writes into self, which is the same for every example. Use an
operator that returns a new tensor (torch.rand, torch.randn_like...), make the tensor
from a batched tensor x, for example by x.new_empty(...), or pass randomness="same".""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros().bernoulli_(x), randomness="different")(ones(3)),
        """\
RuntimeError: functx.vmap: Cannot ask for different inplace randomness on an unbatched
tensor: aten::bernoulli_.Tensor writes into self, which is the same for every example.
Use an operator that returns a new tensor (torch.rand, torch.randn_like...), make the
tensor from a batched tensor x, for example by x.new_empty(...), or pass
randomness="same".""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros().bernoulli_(x), randomness="same")(ones(3)),
        """\
RuntimeError: functx.vmap: aten::bernoulli_(self, *extra_args) is not possible: it
writes into self, which is the same for every example, but an argument differs between
examples. Use the out-of-place operator instead, or make self from a batched tensor x,
for example by x.new_zeros(...).""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.dropout_(ones(), 0.5, True) + x, randomness="different")(
            ones(3)
        ),
        """\
RuntimeError: functx.vmap: aten::mul_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or make self from a batched tensor x, for example by
x.new_zeros(...).""",
    )
    fails(
        lambda F: F.vmap(lambda x: x + torch.rand(2, out=zeros(2)), randomness="different")(
            ones(3)
        ),
        """\
RuntimeError: functx.vmap: Cannot ask for different inplace randomness on an unbatched
tensor: aten::rand.out writes into out, which is the same for every example. Use an
operator that returns a new tensor (torch.rand, torch.randn_like...), make the tensor
from a batched tensor x, for example by x.new_empty(...), or pass randomness="same".""",
    )


def test_writes_of_a_batch_into_one_tensor():
    fails(
        lambda F: F.vmap(lambda x: zeros(2).add_(x))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::add_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or make self from a batched tensor x, for example by
x.new_zeros(...).""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros(2).copy_(x))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::copy_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or make self from a batched tensor x, for example by
x.new_zeros(...), before it is filled by self[i] = y.""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros(2).__setitem__(0, x[0]))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::copy_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or make self from a batched tensor x, for example by
x.new_zeros(...), before it is filled by self[i] = y.""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros(2).index_put_((torch.tensor([0]),), x[:1]))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::index_put_(self, *extra_args) is not possible: it
writes into a tensor that is the same for every example (self), but an argument
differs between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or make self from a batched tensor x, for example by
x.new_zeros(...).""",
    )
    fails(
        lambda F: F.vmap(lambda x: zeros(2).masked_fill_(x > 0, 1.0))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::masked_fill_(self, *extra_args) is not possible: it
writes into a tensor that is the same for every example (self), but an argument
differs between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or make self from a batched tensor x, for example by
x.new_zeros(...).""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch.add(x, 1, out=zeros(2)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::add.out writes into a tensor that is the same for
every example, but an argument differs between examples, so the result would have to
be a batch of tensors. Use the operator that returns a new tensor instead, or write
into one that was made from a batched tensor x, for example by x.new_zeros(...).""",
    )
    fails(
        lambda F: F.vmap(lambda x: torch._foreach_add_([zeros(2)], [x]))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::_foreach_add_.List writes into a tensor that is the
same for every example, but an argument differs between examples, so the result would
have to be a batch of tensors. Use the operator that returns a new tensor instead, or
write into one that was made from a batched tensor x, for example by x.new_zeros(...).""",
    )
    fails(
        lambda F: F.vmap(lambda x: F.vmap(lambda y: x.add_(y))(ones(4, 2)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: aten::add_(self, *extra_args) is not possible: it writes
into a tensor that is the same for every example (self), but an argument differs
between examples, so the result would have to be a batch of tensors. Use the
out-of-place operator instead, or make self from a batched tensor x, for example by
x.new_zeros(...).""",
    )


def test_writes_into_captured_tensors():
    fails(
        lambda F: F.grad(writing_into(zeros(2)))(ones(2)),
        """\
RuntimeError: functx.grad: aten::copy_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, and would tie it to a tape that ends with the
transform. Pass it to the function as an argument, use the out-of-place operator,
write into a clone, or detach the value if it is a statistic.""",
    )
    fails(
        lambda F: F.vjp(writing_into(zeros(2)), ones(2)),
        """\
RuntimeError: functx.grad: aten::copy_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, and would tie it to a tape that ends with the
transform. Pass it to the function as an argument, use the out-of-place operator,
write into a clone, or detach the value if it is a statistic.""",
    )
    fails(
        lambda F: F.jvp(writing_into(zeros(2)), (ones(2),), (ones(2),)),
        """\
RuntimeError: functx.jvp: aten::copy_ would mutate a captured Tensor, or one computed
from captured ones only: it writes a value that depends on the input into a tensor
that does not belong to this transform (level N), so its tangent would be lost. Pass
it to the transform as one of the primals, use the out-of-place operator, or write
into a clone or into a tensor that a factory (torch.zeros, torch.empty...) makes
inside the function.""",
    )
    fails(
        lambda F: F.vmap(F.grad(writing_into(zeros(2))))(ones(3, 2)),
        """\
RuntimeError: functx.grad: aten::copy_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, and would tie it to a tape that ends with the
transform. Pass it to the function as an argument, use the out-of-place operator,
write into a clone, or detach the value if it is a statistic.""",
    )
    fails(
        lambda F: F.grad(lambda x: x.add_(1).sum())(ones(2)),
        """\
RuntimeError: a leaf Variable that requires grad is being used in an in-place
operation.""",
    )
    fails(
        lambda F: F.jvp(F.grad(writing_into(zeros(2))), (ones(2),), (ones(2),)),
        """\
RuntimeError: functx.grad: aten::copy_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, and would tie it to a tape that ends with the
transform. Pass it to the function as an argument, use the out-of-place operator,
write into a clone, or detach the value if it is a statistic.""",
    )
    fails(
        lambda F: F.grad(setting_an_item_of(zeros(2)))(ones(2)),
        """\
RuntimeError: functx.grad: aten::copy_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, and would tie it to a tape that ends with the
transform. Pass it to the function as an argument, use the out-of-place operator,
write into a clone, or detach the value if it is a statistic.""",
    )
    fails(
        lambda F: F.jacrev(adding_to(zeros(2)))(ones(2)),
        """\
RuntimeError: functx.grad: aten::add_ would mutate a captured Tensor: it writes a
value that is being differentiated into a tensor from outside of the function that
grad (or vjp, jacrev...) transforms, and would tie it to a tape that ends with the
transform. Pass it to the function as an argument, use the out-of-place operator,
write into a clone, or detach the value if it is a statistic.""",
    )
    fails(
        lambda F: F.jacfwd(adding_to(zeros(2)))(ones(2)),
        """\
RuntimeError: functx.jvp: aten::add_ would mutate a captured Tensor, or one computed
from captured ones only: it writes a value that depends on the input into a tensor
that does not belong to this transform (level N), so its tangent would be lost. Pass
it to the transform as one of the primals, use the out-of-place operator, or write
into a clone or into a tensor that a factory (torch.zeros, torch.empty...) makes
inside the function.""",
    )


def test_data_of_a_tensor_outside_of_vmap():
    fails(
        lambda F: F.vmap(lambda x: setattr(x, "data", zeros(2)))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: mutating directly with `.data` under vmap transform is not
allowed unless x and y of x.data = y both belong to it: otherwise one can't have the
value of the other. Write x.copy_(y) for the numbers in it, or use y in the place of
x.""",
    )
    fails(
        lambda F: F.vmap(lambda x: setattr(zeros(2), "data", x))(ones(3, 2)),
        """\
RuntimeError: functx.vmap: mutating directly with `.data` under vmap transform is not
allowed unless x and y of x.data = y both belong to it: otherwise one can't have the
value of the other. Write x.copy_(y) for the numbers in it, or use y in the place of
x.""",
    )


def test_running_statistics_of_a_batch():
    fails(
        lambda F: F.vmap(lambda x: batch_norm(x, zeros(2), ones(2), training=True))(ones(3, 4, 2)),
        """\
RuntimeError: functx.vmap: batch_norm got a batched tensor as input while the
running_mean or running_var, which training mode updates in place, is the same for
every example. Use GroupNorm instead, create the module with
track_running_stats=False, or take the statistics out of a finished one by
functx.experimental.replace_all_batch_norm_modules_(module). In evaluation mode
(module.eval()) it works as it is; buffers that differ between examples, from
functx.stack_module_state, are updated.""",
    )
    fails(
        lambda F: F.vmap(torch.nn.BatchNorm1d(2))(ones(3, 4, 2)),
        """\
RuntimeError: functx.vmap: batch_norm got a batched tensor as input while the
running_mean or running_var, which training mode updates in place, is the same for
every example. Use GroupNorm instead, create the module with
track_running_stats=False, or take the statistics out of a finished one by
functx.experimental.replace_all_batch_norm_modules_(module). In evaluation mode
(module.eval()) it works as it is; buffers that differ between examples, from
functx.stack_module_state, are updated.""",
    )
    fails(
        lambda F: F.vmap(
            F.grad(lambda x: torch.nn.InstanceNorm1d(2, track_running_stats=True)(x).sum())
        )(ones(3, 4, 2, 5)),
        """\
RuntimeError: functx.vmap: batch_norm got a batched tensor as input while the
running_mean or running_var, which training mode updates in place, is the same for
every example. Use GroupNorm instead, create the module with
track_running_stats=False, or take the statistics out of a finished one by
functx.experimental.replace_all_batch_norm_modules_(module). In evaluation mode
(module.eval()) it works as it is; buffers that differ between examples, from
functx.stack_module_state, are updated.""",
    )
