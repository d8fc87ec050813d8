"""In-place writes under grad and jvp: into what the function made, not into what it captured."""

import copy
import threading

import pytest
import torch
from _reference import randn
from torch import nn
from torch.testing import assert_close

import functx

REFUSAL = "would mutate a captured Tensor"

WRITES = {
    "copy_": lambda y, x: y.copy_(x),
    "+=": lambda y, x: y.__iadd__(x),
    "sub_": lambda y, x: y.sub_(x, alpha=2),
    "mul_": lambda y, x: y.mul_(x),
    "div_": lambda y, x: y.div_(x),
    "lerp_": lambda y, x: y.lerp_(x, 0.5),
    "addcmul_": lambda y, x: y.addcmul_(x, x),
    "addmv_": lambda y, x: y.addmv_(torch.eye(4, dtype=x.dtype), x),
    "clamp_": lambda y, x: y.clamp_(max=x),
    "fill_": lambda y, x: y.fill_(x[0]),
    "element": lambda y, x: y.__setitem__(0, x[0]),
    "slice": lambda y, x: y.__setitem__(slice(1, 3), x[1:3]),
    "mask": lambda y, x: y.__setitem__(y > -9, x),
    "indices": lambda y, x: y.__setitem__(torch.tensor([0, 2]), x[:2]),
    "index_add_": lambda y, x: y.index_add_(0, torch.tensor([1, 1]), x[:2]),
    "scatter_add_": lambda y, x: y.scatter_add_(0, torch.tensor([1, 1]), x[:2]),
    "masked_fill_": lambda y, x: y.masked_fill_(y > -9, x.sum()),
    "masked_scatter_": lambda y, x: y.masked_scatter_(y > -9, x),
    "through a view": lambda y, x: y.view(2, 2)[0].add_(x[:2]),
}

TRANSFORMS = {
    "grad": lambda F, f, x: F.grad(f)(x),
    "vjp": lambda F, f, x: F.vjp(f, x)[1](torch.ones((), dtype=x.dtype))[0],
    "jacrev": lambda F, f, x: F.jacrev(f)(x),
    "jvp": lambda F, f, x: F.jvp(f, (x,), (torch.ones_like(x),))[1],
    "jacfwd": lambda F, f, x: F.jacfwd(f)(x),
}
# torch.func's jacfwd has not all the operators.
REFERENCES = {**TRANSFORMS, "jacfwd": TRANSFORMS["jacrev"]}
every_transform = pytest.mark.parametrize("transform", TRANSFORMS)


def assert_refused(transform, f, x=None, captured=()):
    """By functx as by torch.func, before anything was written."""
    x = randn(4) if x is None else x
    captured = list(captured)
    before = [(t.detach().clone(), t._version, t.grad_fn) for t in captured]
    for F in (functx, torch.func):
        message = REFUSAL if F is functx else "mutate a captured Tensor"
        with pytest.raises(RuntimeError, match=message):
            TRANSFORMS[transform](F, f, x)
    for tensor, (value, version, grad_fn) in zip(captured, before, strict=True):
        assert_close(tensor.detach(), value)
        assert (tensor._version, tensor.grad_fn) == (version, grad_fn)


def assert_accepted(transform, f, x=None):
    """With the result that torch.func has."""
    x = randn(4) if x is None else x
    actual = TRANSFORMS[transform](functx, f, x)
    assert_close(actual, REFERENCES[transform](torch.func, f, x))
    assert not actual.requires_grad


@every_transform
@pytest.mark.parametrize("name", WRITES)
def test_writes(name, transform):
    write = WRITES[name]
    y = randn(4)

    def into_captured(x):
        write(y, x)
        return (x * y).sum()

    def into_own(x):
        own = torch.ones(4, dtype=x.dtype)
        write(own, x)
        return (x * own).sum()

    assert_refused(transform, into_captured, captured=[y])
    assert_accepted(transform, into_own)


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("buffer", randn(4))
        self.parameter = nn.Parameter(randn(4), requires_grad=False)
        self.listed = [randn(4)]


GLOBAL = torch.ones(4, dtype=torch.float64)
HOLDER = Holder()
CAPTURED = {
    "global": lambda: GLOBAL,
    "buffer": lambda: HOLDER.buffer,
    "frozen parameter": lambda: HOLDER.parameter,
    "list": lambda: HOLDER.listed[0],
    "made before, through an alias": lambda: HOLDER.buffer.view(4),
}


@every_transform
@pytest.mark.parametrize("name", CAPTURED)
def test_wherever_the_tensor_is_held(name, transform):
    f = lambda x: (CAPTURED[name]().add_(x) * x).sum()
    assert_refused(transform, f, captured=[CAPTURED[name]()])


ARGUMENTS = {
    "tensor": lambda F, x, y: F.grad(lambda x, y: (x * y.add_(x)).sum())(x, y),
    "keyword": lambda F, x, y: F.grad(lambda x, y: (x * y.mul_(x)).sum())(x, y=y),
    "nested": lambda F, x, y: F.grad(lambda x, d: (x * d["a"][0].add_(x)).sum())(x, {"a": [y]}),
    "first of two": lambda F, x, y: F.grad(lambda y, x: (x * y.add_(x)).sum(), argnums=1)(y, x),
    "one of a tuple": lambda F, x, y: F.grad(lambda x, y, z: (y.add_(x) * z).sum(), (0, 2))(
        x, y, x.clone()
    ),
    "view of it": lambda F, x, y: F.grad(lambda x, y: (x[:2] * y[2:].add_(x[:2])).sum())(x, y),
    "itself a view": lambda F, x, y: F.grad(lambda x, y: (x[:2] * y.mul_(x[:2])).sum())(x, y[:2]),
    "with aux": lambda F, x, y: F.grad(lambda x, y: (y.add_(x).sum(), y * x), has_aux=True)(x, y),
    "jacrev": lambda F, x, y: F.jacrev(lambda x, y: x * y.add_(x))(x, y),
    "jacrev in chunks": lambda F, x, y: F.jacrev(lambda x, y: x * y.mul_(x), chunk_size=3)(x, y),
    "vmap": lambda F, x, y: F.vmap(F.grad(lambda x, y: (x * y.add_(x)).sum()))(
        x.unflatten(0, (2, 2)), y.unflatten(0, (2, 2))
    ),
    "grad of grad": lambda F, x, y: F.grad(
        lambda x, y: F.grad(lambda x, y: (x * y.mul_(x)).pow(2).sum())(x, y).sum()
    )(x, y),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_are_not_differentiated(name):
    """They are the function's own. The caller sees the change, and nothing else of the call."""
    call, x = ARGUMENTS[name], randn(4)
    y = randn(4)
    expected, expected_y = y.clone(), y.clone()
    for _ in range(2):  # the second time y must not be on the tape of the first
        expected = call(torch.func, x, expected_y)
        assert_close(call(functx, x, y), expected)
        assert_close(y, expected_y)
        assert not y.requires_grad


def test_the_argument_that_is_differentiated_is_captured_where_it_is_not_the_parameter():
    x = randn(4)
    for F in (functx, torch.func):
        with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
            F.grad(lambda z: (x.add_(z) * z).sum())(x)
        with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
            F.grad(lambda w, z: (x.add_(z) * w).sum(), argnums=(0, 1))(x, randn(4))


def test_an_argument_of_the_inner_function_that_the_outer_one_captured():
    y = randn(4)

    def f(F, x):
        return F.grad(lambda x, y: (x * y.add_(x)).sum())(x, y).sum()

    for F in (functx, torch.func):
        with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
            F.grad(lambda x, F=F: f(F, x))(randn(4))
    assert not y.requires_grad


def test_an_argument_stays_on_a_tape_of_the_users():
    """What is written to it depends on a weight that the caller may differentiate by."""
    for F in (functx, torch.func):
        weight, y = torch.full((4,), 2.0, dtype=torch.float64).requires_grad_(), randn(4)
        x = randn(4)
        F.grad(lambda x, y, weight=weight: (x * y.add_(x * weight)).sum())(x, y)
        y.sum().backward()
        assert_close(weight.grad, x)


def test_a_tensor_on_a_tape_of_the_users():
    leaf = randn(4).requires_grad_()
    y = leaf * 2
    assert_refused("grad", lambda x: (y.mul_(x) * x).sum(), captured=[y])


OWN = {
    "factory": lambda x, c: torch.zeros(4, dtype=x.dtype),
    "new_zeros": lambda x, c: c.new_zeros(4),
    "clone": lambda x, c: c.clone(),
    "deepcopy": lambda x, c: copy.deepcopy(c),
    "numbers": lambda x, c: torch.tensor([1.0, 2, 3, 4], dtype=x.dtype),
    "conversion": lambda x, c: c.float().double(),
    "detached clone": lambda x, c: c.clone().detach(),
}
ARRAY = torch.ones(4, dtype=torch.float64).numpy()
# Of captured values only: plain tensors to jvp, which holds no tangent for them.
COMPUTED = {
    "product": lambda x, c: c * 2,
    "several outputs": lambda x, c: torch.sort(c)[0],
    "numpy": lambda x, c: torch.from_numpy(ARRAY.copy()),
    "no_grad": lambda x, c: torch.no_grad()(lambda: c * 2)(),
}


@pytest.mark.parametrize(
    ("name", "transform"),
    [(n, t) for n in OWN for t in TRANSFORMS]
    + [(n, t) for n in COMPUTED for t in ("grad", "vjp", "jacrev")],
)
def test_whatever_the_function_has_made(name, transform):
    make = {**OWN, **COMPUTED}[name]
    constant = randn(4)

    def f(x):
        own = make(x, constant)
        own.mul_(x)
        own[1:3].add_(x[0])
        return own.square().sum()

    assert_accepted(transform, f)


@pytest.mark.parametrize("transform", ["grad", "vjp", "jacrev"])
def test_own_tensors_that_live_on(transform):
    """Nobody can tell where they will be kept, so that is no reason to refuse."""
    kept = []

    def f(x):
        own = torch.zeros(4, dtype=x.dtype)
        kept.append(own)
        own.add_(x)
        HOLDER.state = own
        HOLDER.state.mul_(x)
        return own.sum()

    assert_accepted(transform, f)
    assert_close(kept[0].detach(), kept[1].detach())


def test_a_long_function():
    """More births than are kept in order, at addresses that are used again and again."""
    y = randn(4)

    def f(x, captured):
        first = torch.zeros(4, dtype=x.dtype)
        for _ in range(20_000):
            last = first.view(4)
        last.add_(x)
        first.mul_(x)
        if captured:
            y.add_(x)
        return first.sum()

    x = randn(4)
    assert_close(functx.grad(f)(x, False), 2 * x)
    with pytest.raises(RuntimeError, match=REFUSAL):
        functx.grad(f)(x, True)


@pytest.mark.parametrize("outer", ["grad", "jvp", "vmap"])
def test_a_tensor_of_the_outer_function(outer):
    """It is the outer function's own, and captured by the inner one."""

    def f(x, F, where):
        own = x * 1 if outer == "vmap" else torch.ones(4, dtype=x.dtype)

        def inner(z):
            if where == "inside":
                own.mul_(z)
            made = z.new_ones(4)
            made.mul_(z)
            return (made * own).sum()

        result = F.grad(inner)(x)
        if where == "after":
            own.mul_(x)
            result = result * own
        return result.sum()

    def run(F, where):
        x = randn(4)
        if outer == "grad":
            return F.grad(f)(x, F, where)
        if outer == "jvp":
            return F.jvp(lambda x: f(x, F, where), (x,), (x,))[1]
        return F.vmap(lambda x: f(x, F, where))(torch.stack([x, 2 * x]))

    for F in (functx, torch.func):
        with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
            run(F, "inside")
    for where in ("nowhere", "after"):
        torch.manual_seed(0)
        actual = run(functx, where)
        torch.manual_seed(0)
        assert_close(actual, run(torch.func, where))


def test_what_an_inner_transform_returns_is_the_outer_functions_own():
    def f(x):
        gradient, value = functx.grad_and_value(lambda z: z.square().sum())(x.detach())
        value.add_(x.sum())
        gradient.mul_(x)
        return value * gradient.sum()

    x = randn(4)
    by_hand = lambda x: (x.detach().square().sum() + x.sum()) * (2 * x.detach() * x).sum()
    assert_close(functx.grad(f)(x), torch.func.grad(by_hand)(x))


def test_mapping_over_a_captured_tensor():
    y = randn(3)

    def f(F, x):
        return F.vmap(lambda row: row.add_(x.sum()))(y).sum()

    for F in (functx, torch.func):
        with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
            F.grad(lambda x, F=F: f(F, x))(randn(4))
    assert not y.requires_grad


def test_statistics_and_counters():
    """A value that is no part of the derivative may go anywhere. torch.func refuses these."""
    count, total, mean = torch.zeros(()), randn(4), torch.zeros(4, dtype=torch.float64)

    def f(x):
        count.add_(1)
        total.mul_(0.5).add_(x.detach())
        with torch.no_grad():
            mean.lerp_(x, 0.25)
        return x.square().sum()

    x = randn(4)
    expected = 0.5 * total + x
    assert_close(functx.grad(f)(x), 2 * x)
    assert_close((count, total, mean), (torch.ones(()), expected, x / 4))
    assert not total.requires_grad
    assert not mean.requires_grad


@pytest.mark.parametrize("transform", ["grad", "jvp"])
def test_batch_norm_in_training(transform):
    """torch.func refuses it, since the layer counts its calls in a buffer."""
    norm = nn.BatchNorm1d(3).double()
    plain = copy.deepcopy(norm)
    x = randn(5, 3)
    leaf = x.clone().requires_grad_()
    plain(leaf).pow(3).sum().backward()
    result = TRANSFORMS[transform](functx, lambda x: norm(x).pow(3).sum(), x)
    expected = leaf.grad if transform == "grad" else leaf.grad.sum()
    assert_close(result, expected)
    assert_close(dict(norm.named_buffers()), dict(plain.named_buffers()))


def test_a_kernel_may_write_where_it_likes():
    """What an operator writes to is between the caller and the operator."""

    @torch.library.custom_op("functx_captured_test::keep", mutates_args=("into",))
    def keep(x: torch.Tensor, into: torch.Tensor) -> None:
        into.copy_(x)

    y, x = randn(4), randn(4)
    assert_close(functx.grad(lambda x: (keep(x, y), x.sum())[1])(x), torch.ones_like(x))
    assert_close(y.detach(), x)


def test_writes_outside_of_the_transform_are_nobodys_business():
    weight = randn(4).requires_grad_()
    y = randn(4)
    functx.grad(torch.sum)(randn(4))
    y.add_(weight)
    assert y.requires_grad
    z = randn(4)
    with pytest.raises(ZeroDivisionError):
        functx.grad(lambda x: 1 / 0)(randn(4))
    z.add_(weight)
    assert z.requires_grad


def test_another_thread_is_outside_of_the_transform():
    y, weight = randn(4), randn(4).requires_grad_()

    def f(x):
        thread = threading.Thread(target=lambda: y.add_(weight))
        thread.start()
        thread.join()
        return x.sum()

    functx.grad(f)(randn(4))
    assert y.requires_grad


def test_beside_torch_func():
    """functx.grad around torch.func.vmap and the other way round: nothing is refused wrongly."""

    def own(x):
        y = torch.zeros(4, dtype=x.dtype)
        y = y + x.detach() * 0
        y.add_(x)
        return (y * y).sum()

    x = randn(3, 4)
    assert_close(functx.grad(lambda x: torch.func.vmap(own)(x).sum())(x), 2 * x)
    assert_close(torch.func.vmap(functx.grad(own))(x), 2 * x)
