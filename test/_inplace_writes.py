"""Writes of all kinds, and programs made of them."""

import torch
from _inplace_cases import Cases

case = Cases()


# ---- kinds of writes -------------------------------------------------------------------------


@case()
def index_put(x):
    y = x.new_ones(4)
    y.index_put_((torch.tensor([0, 2, 2]),), x * x[0], accumulate=True)
    return y * y


@case()
def masks(x):
    mask = torch.tensor([True, False, True])
    y = x * 2
    y.masked_fill_(mask, x.prod())
    z = x.new_ones(3)
    z[:2].masked_fill_(mask[:2], x.prod())
    z.masked_scatter_(~mask, x * x)
    z[mask] *= x[:2]
    return y * z


@case()
def scatters(x):
    y = x.new_zeros(4)
    index = torch.tensor([0, 3, 1])
    y.scatter_(0, index, x * x)
    y.scatter_add_(0, index.flip(0), x.sin())
    y.index_copy_(0, torch.tensor([2]), x[:1] * x[1])
    y.index_add_(0, index, x)
    y.put_(torch.tensor([0]), x[:1] * x[2])
    y.index_fill_(0, torch.tensor([1]), x[0] * 1)
    return y * y


@case(
    lambda x: torch.ones(4).double().scatter_reduce(0, torch.tensor([0, 3, 0]), x * x, "sum") ** 2
)
def accumulation(x):
    y = x.new_ones(4)
    y.scatter_reduce_(0, torch.tensor([0, 3, 0]), x * x, "sum")
    return y * y


@case()
def products(x):
    y = x.new_zeros(3, 3)
    y.addmm_(x[:, None], x[None])
    y[0].addcmul_(x, x)
    y[1:].addr_(x[:2], x)
    return y.sum(0)


@case()
def pointwise(x):
    y = x.new_ones(3)
    y.lerp_(x * x, x[0])
    y[1:].pow_(2)
    y.div_(x.cos())
    y[:2].clamp_(-0.5, 0.5)
    y[2:].relu_()
    return y


@case()
def cumulations(x):
    y = x * x
    y.cumsum_(0)
    y[1:].cumprod_(0)
    return y


@case()
def running_statistics(x):
    buffer = x.new_zeros(3)
    buffer.lerp_(x * x, 0.1)
    buffer.mul_(0.9).add_(x, alpha=0.1)
    return buffer * x


@case()
def normalized_rows(x):
    y = x.outer(x)
    y.renorm_(2, 0, 0.3)
    return y.sum(0)


@case(lambda x: torch.cat([(x + 1) * (x.sin() * x * x + 1), x.exp()]))
def lists_of_tensors(x):
    a = [x * 1, x.sin()]
    alias = a[0] + 0
    torch._foreach_mul_(a, [x * 0 + 1, x * x])
    torch._foreach_add_(a, 1.0)
    torch._foreach_exp_([alias])
    return torch.cat([a[0] * a[1], alias])


@case(
    lambda x: (x * x) * x.sin(),
    forward_only=True,
)
def results_into_views(x):
    y = x.new_zeros(2, 3)
    torch.mul(x, x, out=y[1])
    torch.sin(x, out=y[0])
    return y.prod(0)


@case(
    lambda x: x * x.cos() * x,
    forward_only=True,
)
def results_into_columns(x):
    y = x.new_zeros(3, 2)
    torch.mul(x, x.cos(), out=y[:, 1])
    return (y * x[:, None]).sum(1)


@case(
    lambda x: torch.cat([x**3, x * 3]),
    forward_only=True,
)
def results_into_what_has_a_tangent(x):
    y = x * 3
    z = y + 0
    torch.mul(x, x, out=y[:])
    return torch.cat([y * x, z])


@case(
    lambda x: torch.cat([x.cumprod(0), torch.cat([x, x * x])[1:4], x.abs().sort().values]),
    forward_only=True,
)
def results_of_other_operators(x):
    y, z, values = x.new_zeros(3), x.new_zeros(6), x.new_zeros(3)
    torch.cumprod(x, 0, out=y)
    torch.cat([x, x * x], out=z)
    torch.sort(x.abs(), out=(values, x.new_zeros(3, dtype=torch.int64)))
    return torch.cat([y, z[1:4], values])


@case(
    lambda x: torch.where(torch.tensor([True, False, True]), x * x, x) * x,
    forward_only=True,
)
def results_of_a_choice(x):
    y = x.new_zeros(3)
    torch.where(torch.tensor([True, False, True]), x * x, x, out=y)
    return y * x


# ---- programs ----------------------------------------------------------------------------------


@case(
    lambda x: torch.stack(
        [x[0], x[0] * x[1] + x[0].sin(), (x[0] * x[1] + x[0].sin()) * x[2] + x[1].sin()]
    ),
    forward_only=True,
)
def a_recurrence(x):
    y = torch.empty_like(x)
    y[0] = x[0]
    for i in range(1, 3):
        y[i] = y[i - 1] * x[i] + x[i - 1].sin()
    return y


@case(
    lambda x: torch.stack(
        [x[0] * x[1], x[0] * x[1] * x[1] * x[2], x[0] * x[1] * x[1] * x[2] * x[2] * x[0]]
    ),
    forward_only=True,
)
def updates_of_entries(x):
    y = x.new_zeros(3)
    for i in range(3):
        y[i] += x[i] * x[(i + 1) % 3]
    for i in range(1, 3):
        y[i] *= y[i - 1]
    return y


@case(lambda x: torch.stack([x[1] ** 2, x[0] ** 2 * x[2], x[2] ** 2]))
def a_swap(x):
    y = x * x
    first = y[0].clone()
    y[0] = y[1]
    y[1] = first * x[2]
    return y


@case(
    lambda x: torch.stack([x[1] ** 2 * x[0], x[0] ** 2, x[1] ** 2]),
    forward_only=True,
)
def a_shift(x):
    y = x * x
    y[1:].copy_(y[:-1].clone())
    y[0] = y[2] * x[0]
    return y


@case(
    lambda x: (2 * x * x) ** 2,
    forward_only=True,
)
def with_itself(x):
    y = x * x
    y.add_(y)
    y.mul_(y)
    return y
