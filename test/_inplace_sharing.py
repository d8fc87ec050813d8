"""Writes into memory that others see: those who share a tangent, bases and views of all kinds."""

import torch
from _inplace_cases import Cases

case = Cases()


# ---- who shares a tangent ------------------------------------------------------------------------


@case(lambda x: torch.cat([3 * x * x, x * x + 1]))
def a_sum_with_a_constant_keeps_its_tangent(x):
    y = x * x
    z = y + 1
    y.mul_(3)
    return torch.cat([y, z])


@case(lambda x: torch.cat([x * x, 3 * x * x + 3]))
def and_so_does_the_summand(x):
    y = x * x
    z = y + 1
    z.mul_(3)
    return torch.cat([y, z])


@case(lambda x: torch.cat([x[:1] ** 2 * 3, x[1:] ** 2, x * x + 1]))
def written_through_a_view(x):
    y = x * x
    z = y + 1
    y[0].mul_(3)
    return torch.cat([y, z])


@case(lambda x: torch.cat([x * x, 1 + x[:1] ** 2 * 3, 1 + x[1:] ** 2]))
def the_sum_is_written_through_a_view(x):
    y = x * x
    z = y + 1
    z[0].sub_(1).mul_(3).add_(1)
    return torch.cat([y, z])


@case(lambda x: torch.cat([x * x, 2 * x * x, x * x, x * x + 1, -(x * x)]))
def many_share_one(x):
    y = x * x
    a, b, c, d = y - 0, y + 0.0, y.clone(), y + 1
    a.mul_(2)
    e = d.sub_(1)
    e.neg_()
    return torch.cat([y, a, b, c + 1, e])


@case(lambda x: (x * x).expand(2, 3) * torch.tensor([[1.0], [1.0]]).double())
def broadcast_to_a_larger_one(x):
    y = x * x
    z = y + torch.zeros(2, 3).double()
    y[1:].mul_(3)
    z[0].add_(1)
    return z - torch.tensor([[1.0], [0.0]]).double()


@case(lambda x: torch.cat([x - x.detach().trunc(), x]))
def pointwise_operators_that_pass_it_on(x):
    y = x.frac()
    y[0] += 1
    return torch.cat([y - torch.tensor([1.0, 0, 0]).double(), x])


@case(lambda x: torch.cat([x[:1] * 0 + 1, x[1:], x.sin()]))
def the_input_is_not_written_to(x):
    y = x + 0
    y[0] = 1
    return torch.cat([y, x.sin()])


@case(lambda x: torch.cat([x * 2, x * x, x]))
def copied_from(x):
    y = torch.zeros(3, dtype=x.dtype) + 0 * x
    y.copy_(x)
    z = y + 0
    y.mul_(2)
    z.mul_(x)
    return torch.cat([y, z, x])


@case(lambda x: torch.cat([x * x * x, x.flip(0) ** 2]))
def a_view_that_was_added_to(x):
    y = x * x
    view = y.flip(0).view(3)
    z = view + 2
    y.mul_(x)
    view.zero_()
    return torch.cat([y, z - 2])


@case(lambda x: x * 3 + 2)
def in_a_loop(x):
    y = x + 0
    for _ in range(2):
        y[1:] += x[1:]
        y[0] += x[0]
        y += 1
    return y


# ---- without a tangent first -----------------------------------------------------------------


@case(lambda x: torch.stack([x[0] * 0, x.prod(), x[0] * 0]))
def an_entry_of_a_constant(x):
    y = x * 0
    y[1] = x.prod()
    return y


@case(lambda x: torch.stack([x[0] * 0, x.prod(), x[0] * 0]))
def an_entry_of_new_zeros(x):
    y = x.new_zeros(3)
    y[1] = x.prod()
    return y


@case(lambda x: torch.stack([x[0].detach() * x[0], x.prod() * x[1], x[2].detach() * x[2]]))
def an_entry_of_a_detached_copy(x):
    y = x.detach() * 1
    y[1] = x.prod()
    return y * x


@case(lambda x: torch.stack([x[0].sign() * x[2] * x[0], x.prod() * x[1], x[2].sign() * x[2]]))
def an_entry_of_what_has_no_tangent(x):
    y = x.sign()
    y[1] = x.prod()
    y[0].mul_(x[2])
    return y * x


@case(lambda x: torch.cat([(x * x)[1:], (x * x)[1:2], x * x]))
def the_base_is_written_and_views_see_it(x):
    y = x.new_zeros(3)
    view = y[1:]
    view_of_view = view[0]
    y.copy_(x * x)
    return torch.cat([view, view_of_view[None], y])


@case(
    lambda x: torch.cat(
        [
            (x[:2] * x[1:]),
            torch.stack([x[0] * 0, x[0] * x[1]]),
            torch.stack([x[0] * 0, x[0] * x[1], x[1] * x[2]]),
        ]
    )
)
def a_view_is_written_and_base_and_sibling_see_it(x):
    y = x.new_zeros(3)
    view, sibling = y[1:], y[:2]
    view.add_(x[:2] * x[1:])
    return torch.cat([view, sibling, y])


@case(lambda x: torch.cat([x, torch.stack([x[0] * 0, x[0].sin(), x[1].sin()]), x[:2].sin()]))
def it_becomes_a_constant_in_between(x):
    y = x * x
    view = y[1:]
    y.zero_()
    z = y + x
    view.copy_(x[:2].sin())
    return torch.cat([z, y, view])


@case(lambda x: torch.cat([x * 0, x[1:], x]))
def a_constant_again(x):
    y = x * x
    view = y[1:]
    y.fill_(2.0)
    z = view + x[1:]
    y.sub_(2)
    return torch.cat([y, z - 2, x])


@case(lambda x: x * x.prod() * x[0])
def of_no_dimensions(x):
    total = x.new_zeros(())
    total += x.prod()
    total.mul_(x[0])
    return x * total


# ---- kinds of views --------------------------------------------------------------------------


@case()
def diagonals(x):
    y = x.new_zeros(3, 3)
    y.diagonal().copy_(x * x)
    y.diagonal(1).add_(x[:2])
    return (y @ y).sum(0)


@case()
def transposes(x):
    y = x.new_ones(3, 2)
    y.t()[0].mul_(x)
    y.mT[1].add_(x * x[0])
    return (y * y).sum(1)


@case()
def permutations(x):
    y = x.new_zeros(2, 3, 2)
    y.permute(2, 0, 1)[1, 0].copy_(x.exp())
    y[..., 1].mul_(x)
    y.swapaxes(0, 1)[:, 1, 0] = x * x
    return y.sum((0, 2))


@case()
def reshapes(x):
    y = x.new_zeros(2, 3)
    y.view(-1)[2:5].copy_(x * x)
    y.reshape(3, 2)[0].add_(x[0])
    return y.sum(0)


@case()
def windows(x):
    y = x.new_zeros(4)
    y.unfold(0, 2, 2)[1].copy_(x[1:] * x[0])
    y.unfold(0, 2, 1)[1].mul_(x[0])
    return y


@case()
def strides(x):
    y = x.new_zeros(3, 3)
    y.as_strided((3,), (4,)).copy_(x * x)
    y[1:].as_strided((2,), (1,), 6).add_(x[:2])
    return y.sum(0) * x


@case()
def views_of_views(x):
    y = x.new_zeros(4, 4)
    a = y[1:]
    b = a.t()
    c = b[:2]
    d = c.diagonal()
    d.copy_(x[:2] * x[1:])
    a[0].add_(x[0])
    y.mul_(x[2])
    return torch.stack([d.sum(), c.sum() + b.sum() * x[0], a.sum()])


@case(
    lambda x: x**3 * x[0],
    forward_only=True,
)
def unbound(x):
    y = x.new_zeros(2, 3)
    a, b = y.unbind(0)
    a.copy_(x)
    b.copy_(a * x)
    a.mul_(x[0] * x)
    return y[0] * y[1] / x


@case(
    lambda x: torch.cat([x[:2] ** 2 * x[2] ** 2, x[2:] ** 2, x * x]),
    forward_only=True,
)
def split(x):
    y = x.new_zeros(6)
    a, b = y.chunk(2)
    b.copy_(x * x)
    a.add_(b)
    c, d = y.split([2, 4])
    c.mul_(d[0])
    return y


@case(
    lambda x: torch.cat(
        [(x * x).square() - x.sin().square(), (x * x).square() + x.sin().square(), -x.sin()]
    )
)
def real_and_imaginary_parts(x):
    y = torch.zeros(3, dtype=torch.complex128) + 0 * x
    conjugate = y.conj()
    y.real.copy_(x * x)
    y.imag.add_(x.sin())
    return torch.cat([(y * y).real, (conjugate * y).real, conjugate.imag])


@case(
    lambda x: torch.cat([3 * x * x * x**2 - x**6, x * x, x**2 * x]),
    forward_only=True,
)
def complex_numbers_as_pairs(x):
    y = torch.complex(x, x * 0)
    pairs = torch.view_as_real(y)
    pairs[:, 1].copy_(x * x)
    z = (y * y * y).imag
    y.mul_(x)
    return torch.cat([z, pairs[:, 0], pairs[:, 1] * 1])


@case(
    lambda x: torch.cat([x * x, x**3]),
    forward_only=True,
)
def pairs_as_complex_numbers(x):
    y = x.new_zeros(3, 2)
    z = torch.view_as_complex(y)
    y[:, 0] = x
    y[:, 1].add_(x * x)
    z.mul_(torch.complex(x, torch.ones_like(x)))
    return torch.cat([y[:, 0] + x * x, y[:, 1] - x])


@case()
def in_place_views(x):
    y = x.outer(x * x)
    y.t_()
    y[0].mul_(x)
    y.unsqueeze_(0)
    y[0, 1, 1] = x.prod()
    y.squeeze_(0).transpose_(0, 1)
    return y.sum(0)
