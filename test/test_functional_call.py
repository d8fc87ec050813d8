"""functional_call: every place of a module comes back, whatever its names, and however it ended.

The reference is the module itself, with its parameters and buffers overwritten in a copy.
"""

import copy
import types

import pytest
import torch
from _reference import assert_equal_trees, autograd_grad, randn, stack_trees
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import functx
from functx import dropin, functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap


class Twice(nn.Module):
    """A layer under two names, a batch norm used twice, and a weight that two layers share."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = self.a
        self.norm = nn.BatchNorm1d(3)
        self.again = nn.Sequential(self.norm)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.a.weight

    def forward(self, x):
        return self.again(self.tied(self.norm(self.b(self.a(x)).tanh())))


@pytest.fixture
def twice():
    torch.manual_seed(0)
    return Twice().double()


def state_of(module):
    """Other values for all that the module has, under the names without duplicates."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {n: v.detach() + (0.1 if v.is_floating_point() else 0) for n, v in named}


def applied(module, state):
    """A copy with these values."""
    model = copy.deepcopy(module)
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
    return model


def places(module):
    """Everything that is kept anywhere in the module, by identity."""
    return {
        (path, kind, name): value
        for path, each in module.named_modules(remove_duplicate=False)
        for kind in ("_parameters", "_buffers", "__dict__")
        for name, value in getattr(each, kind).items()
        if not name.startswith("_") and name != "training"
    }


@pytest.fixture
def unchanged():
    """Checks at the end that modules are what they were when it was called."""
    seen = []

    def watch(module):
        values = {key: value.detach().clone() for key, value in tensors(module)}
        seen.append((module, places(module), values))
        return module

    def tensors(module):
        return ((k, v) for k, v in places(module).items() if isinstance(v, torch.Tensor))

    yield watch
    for module, before, values in seen:
        after = places(module)
        assert list(after) == list(before)
        for key, value in before.items():
            assert after[key] is value, key
        for key, value in tensors(module):
            assert_close(value.detach(), values[key])


ALIASES = {
    "the first name": lambda s: s,
    "the second name": lambda s: {k.replace("a.", "b."): v for k, v in s.items()},
    "both": lambda s: {**s, "b.weight": s["a.weight"], "b.bias": s["a.bias"]},
    "every name of the norm": lambda s: {
        **s,
        **{f"again.0.{k[5:]}": v for k, v in s.items() if k.startswith("norm.")},
    },
    "the tied name": lambda s: {k.replace("a.weight", "tied.weight"): v for k, v in s.items()},
    "two dicts": lambda s: tuple(
        {k: v for k, v in s.items() if ("norm" in k) is f} for f in (False, True)
    ),
}


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("tie_weights", [True, False])
def test_whatever_the_name(twice, unchanged, alias, tie_weights):
    state, x = state_of(twice), randn(4, 3)
    model = applied(twice, state)
    if not tie_weights:
        model.tied.weight = nn.Parameter(twice.tied.weight.detach().clone())
        if alias == "the tied name":
            model.tied.weight, model.a.weight = model.a.weight, model.tied.weight
    given = ALIASES[alias](state)
    unchanged(twice)
    actual = functional_call(twice, given, (x,), tie_weights=tie_weights)
    assert_close(actual, model(x))
    # What the batch norm did is in the tensors that were given.
    assert_close(state["norm.running_mean"], model.norm.running_mean)
    assert state["norm.num_batches_tracked"] == 2
    assert len(list(twice.parameters())) == 5
    # And once more, which begins from where the first has left.
    assert_close(functional_call(twice, given, (x,), tie_weights=tie_weights), model(x))


def test_some_of_the_state(twice, unchanged):
    weight, x = randn(3, 3), randn(4, 3)
    model = applied(twice, {"a.weight": weight}).eval()
    unchanged(twice.eval())
    assert_close(functional_call(twice, {"b.weight": weight}, x), model(x))
    assert_close(functional_call(twice, {}, x), twice(x))


TRANSFORMS = {
    "grad": grad,
    "vjp": lambda f: lambda s: vjp(f, s)[1](torch.ones((), dtype=torch.float64))[0],
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "grad of grad": lambda f: grad(lambda s: grad(f)(s)["a.weight"].sum()),
    "jvp": lambda f: lambda s: jvp(f, (s,), (s,)),
    "hessian": lambda f: lambda s: hessian(lambda w: f({**s, "a.weight": w}))(s["a.weight"]),
}


def reference(name, loss, state):
    """The derivatives by `a.weight`, by plain autograd of a module in which it is one tensor."""
    w = state["a.weight"].clone().requires_grad_()
    (first,) = torch.autograd.grad(loss({**state, "a.weight": w}), w, create_graph=True)
    if name in ("grad of grad", "hessian"):
        rows = [torch.autograd.grad(e, w, retain_graph=True)[0] for e in first.flatten()]
        matrix = torch.stack(rows)
        return matrix.view(3, 3, 3, 3) if name == "hessian" else matrix.sum(0)
    return first.detach()


def written_out(x):
    def loss(s):
        h = x @ s["a.weight"].T + s["a.bias"]
        h = (h @ s["a.weight"].T + s["a.bias"]).tanh()
        h = normed(h, s) @ s["a.weight"].T + s["tied.bias"]
        return normed(h, s).square().sum()

    def normed(h, s):
        centred = (h - s["norm.running_mean"]) / (s["norm.running_var"] + 1e-5).sqrt()
        return centred * s["norm.weight"] + s["norm.bias"]

    return loss


def split(state):
    """Parameters, and buffers."""
    buffers = {name: value for name, value in state.items() if "running" in name or "num" in name}
    return {name: value for name, value in state.items() if name not in buffers}, buffers


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("batched", [False, True])
def test_inside_transforms(twice, unchanged, name, batched):
    unchanged(twice.eval())
    (params, buffers), xs = split(state_of(twice)), randn(2, 4, 3)

    def derivative(x):
        loss = lambda p: functional_call(twice, (p, buffers), x).square().sum()
        return TRANSFORMS[name](loss)(params)

    actual = vmap(derivative)(xs) if batched else derivative(xs[0])
    if name == "jvp":
        leaves = {k: v.clone().requires_grad_() for k, v in params.items()}
        losses = [written_out(x)(leaves | buffers) for x in (xs if batched else xs[:1])]
        slopes = [
            sum(
                (g * leaves[k].detach()).sum()
                for k, g in zip(leaves, torch.autograd.grad(one, leaves.values()), strict=True)
            )
            for one in losses
        ]
        expected = [torch.stack(losses).detach(), torch.stack(slopes)]
        assert_close([each.view(-1) for each in actual], expected)
        return
    actual = actual if name == "hessian" else actual["a.weight"]
    state = params | buffers
    expected = [reference(name, written_out(x), state) for x in (xs if batched else xs[:1])]
    assert_close(actual, torch.stack(expected) if batched else expected[0])


def test_an_ensemble_whose_members_have_a_layer_twice(unchanged):
    models = [unchanged(Twice().double().eval()) for _ in range(3)]
    params, buffers = functx.stack_module_state(models)
    x = randn(4, 3)
    outputs = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(params, buffers)
    assert_close(outputs, torch.stack([model(x) for model in models]))
    function, params, buffers = functx.combine_state_for_ensemble(models)
    assert_close(vmap(function, (0, 0, None))(params, buffers, x), outputs.detach())


def test_make_functional_of_a_layer_twice(twice, unchanged):
    unchanged(twice)
    x = randn(4, 3)
    function, params, buffers = functx.make_functional_with_buffers(twice)
    values = [p.detach() + 0.1 for p in params]
    model = applied(twice, dict(zip(function.param_names, values, strict=True)))
    stateless = places(function.stateless_model)
    for _ in range(2):  # the second call finds what the first has left
        assert_close(function(values, [b.clone() for b in buffers], x), model(x).detach())
        model = applied(model, dict(twice.named_buffers()))
    with pytest.raises(RuntimeError):
        function(values, buffers, x[:, :2])
    after = places(function.stateless_model)
    for key, value in stateless.items():
        if isinstance(value, torch.Tensor):
            assert after[key].device.type == "meta", key
    assert isinstance(function.stateless_model.a.weight, nn.Parameter)


# ---- how a call ends ----------------------------------------------------------------------------


class Failing(Twice):
    def forward(self, x):
        super().forward(x)
        raise KeyError("half-way")


@pytest.mark.parametrize("inside", [False, True])
def test_exceptions(unchanged, inside):
    module = unchanged(Failing().double().eval())
    state = state_of(module)

    def call(x):
        return functional_call(module, {**state, "b.bias": state["a.bias"]}, (x,))

    with pytest.raises(KeyError, match="half-way"):
        (vmap(call) if inside else call)(randn(2, 4, 3) if inside else randn(4, 3))


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"a.weight": torch.ones(3, 3), "b.bias": 1.0}, TypeError, "not an instance of torch.Tens"),
        ({"a.weight": torch.ones(3, 3), "a.training": torch.ones(())}, TypeError, "`training`: Tr"),
        (
            {"a.weight": torch.ones(3, 3), "c.bias": torch.ones(3)},
            AttributeError,
            "no attribute `c",
        ),
        (
            {"a.weight": torch.ones(3, 3), "a.bias.x": torch.ones(3)},
            TypeError,
            "submodule `a.bias`",
        ),
        ({"a.weight": torch.ones(3, 3), "": torch.ones(3)}, KeyError, "empty string"),
        (
            {"a.weight": torch.ones(3, 3), "b.weight": torch.ones(3, 3)},
            ValueError,
            "multiple values for keys .*'a.weight', 'b.weight', 'tied.weight'.*tie_weights=False",
        ),
    ],
)
def test_errors_come_before_anything_is_replaced(twice, unchanged, state, error, message):
    unchanged(twice)
    with pytest.raises(error, match=message):
        functional_call(twice, state, (torch.ones(4, 3),))


def test_strict(twice, unchanged):
    unchanged(twice.eval())
    x, state = randn(4, 3), state_of(twice)
    assert_close(functional_call(twice, state, x, strict=True), applied(twice, state)(x))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*'no'.*\n.*Missing key.*'norm.bias'"):
        functional_call(twice, {"a.weight": randn(3, 3), "no": x}, x, strict=True)
    with pytest.raises(RuntimeError, match=r"Missing key.*'b.weight'"):
        functional_call(twice, state, x, strict=True, tie_weights=False)


def test_jitted_and_data_parallel_modules_are_refused():
    linear = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"DataParallel.*module.module"):
        functional_call(nn.DataParallel(linear), {}, torch.ones(1, 2))
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(linear)
    with pytest.raises(RuntimeError, match="Jitted modules"):
        functional_call(scripted, {}, torch.ones(1, 2))


# ---- what forward does to the module -----------------------------------------------------------


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()))
        self.me = nn.ModuleList()
        self.scale = torch.tensor(2.0)  # neither a parameter nor a buffer

    def forward(self, x):
        self.count = self.count + 1
        self.total += x.sum()
        return x * self.scale * self.count


def test_buffers_bound_anew_and_written_in_place(unchanged):
    module = unchanged(Counter())
    state = {"count": torch.tensor(3.0), "total": torch.tensor(1.0), "scale": torch.tensor(5.0)}
    total = state["total"]
    assert_close(functional_call(module, state, torch.ones(2)), torch.full((2,), 20.0))
    assert state["count"] == 4
    assert state["total"] is total
    assert total == 3


def test_a_layer_in_two_places_binds_its_buffer_twice(unchanged):
    counter = Counter()
    module = unchanged(nn.Sequential(counter, counter))
    for name in ("0", "1"):
        state = {f"{name}.count": torch.zeros(()), f"{name}.total": torch.zeros(())}
        assert_close(functional_call(module, state, torch.ones(2)), torch.full((2,), 8.0))
        assert state[f"{name}.count"] == 2


def test_calls_of_the_same_module_inside(unchanged):
    linear = unchanged(nn.Linear(2, 2, bias=False))
    outer, inner, x = torch.eye(2), 2 * torch.eye(2), torch.ones(2)

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, x):
            once = functional_call(linear, {"weight": inner}, x)
            with pytest.raises(RuntimeError):
                functional_call(linear, {"weight": inner}, x[:1])
            return self.linear(once)

    assert_close(functional_call(Nested(), {"linear.weight": outer}, x), 2 * x)


class Binding(nn.Linear):
    """Replaces its parameter by a plain tensor, as spectral norm of old does."""

    def forward(self, x):
        weight = self.weight
        del self.weight
        self.weight = weight * 2
        return super().forward(x)


def test_a_parameter_that_forward_takes_apart():
    module = Binding(2, 2, bias=False)
    weight, x = module.weight, torch.ones(2)
    assert_close(functional_call(module, {"weight": torch.eye(2)}, x), 2 * x)
    assert module.weight is weight
    assert set(module._parameters) == {"weight", "bias"}
    assert "weight" not in vars(module)


def test_attributes_that_are_not_there_yet(unchanged):
    module = nn.Identity()
    module.forward = types.MethodType(lambda self, x: x * self.extra, module)
    unchanged(module)
    assert functional_call(module, {"extra": torch.tensor(3.0)}, torch.ones(())) == 3
    assert functional_call(module, {"extra": nn.Parameter(torch.tensor(3.0))}, torch.ones(())) == 3
    assert not hasattr(module, "extra")


def test_none_and_what_is_none(unchanged):
    module = unchanged(nn.Linear(2, 2, bias=False))
    state = {"weight": torch.eye(2), "bias": torch.ones(2)}
    assert_close(functional_call(module, state, torch.ones(2)), torch.full((2,), 2.0))
    biased = unchanged(nn.Linear(2, 2))
    state = {"weight": torch.eye(2), "bias": None}
    assert_close(functional_call(biased, state, torch.ones(2)), torch.ones(2))


def test_parametrizations(unchanged):
    module = nn.utils.parametrizations.orthogonal(nn.Linear(2, 2, bias=False)).double()
    unchanged(module)
    w, x = randn(2, 2), randn(2)
    assert_close(functional_call(module, {"weight": w}, x), w @ x)
    assert_close(grad(lambda w: functional_call(module, {"weight": w}, x).sum())(w), x.expand(2, 2))
    assert_close(vmap(lambda w: functional_call(module, {"weight": w}, x))(w[None]), (w @ x)[None])
    name = "parametrizations.weight.original"
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.parametrizations.weight.original.copy_(w)
    assert_close(functional_call(module, {name: w}, x), other(x))
    expected = autograd_grad(lambda w: functional_call(other, {name: w}, x).square().sum(), w)[0]
    actual = grad(lambda w: functional_call(module, {name: w}, x).square().sum())(w)
    assert_close(actual, expected)


class Wrapper(nn.Module):
    """Like DistributedDataParallel: everything is one further down."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args):
        return self.module(*args)


def test_wrappers(twice, unchanged):
    unchanged(twice.eval())
    x, state = randn(4, 3), state_of(twice)
    wrapped = {f"module.{name}": value for name, value in state.items()}
    assert_close(functional_call(Wrapper(twice), wrapped, x), applied(twice, state)(x))


class Saving(nn.Module):
    """Computes all again in the backward pass, when the module has its own state back."""

    def __init__(self, saves):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.saves = saves

    def forward(self, x):
        run = lambda x: self.second(self.first(x).tanh()).sin()
        return checkpoint(run, x, use_reentrant=False) if self.saves else run(x)


@pytest.mark.parametrize(
    "derivative", ["autograd", "grad", "vmap(grad)", "grad(grad)", "jvp(grad)"]
)
@pytest.mark.parametrize("around", [1, 2])
def test_checkpoints_are_recomputed_with_the_same_parameters(unchanged, derivative, around):
    saving, plain = (Saving(saves).double() for saves in (True, False))
    state = {name: value.detach() + 0.3 for name, value in saving.named_parameters()}
    xs = randn(2, 4, 3)
    unchanged(saving)

    def loss(model, x):
        if around == 1:
            return lambda p: functional_call(model, p, x).square().sum()
        # A module that calls one in turn: what is replaced inside is not what is replaced outside.
        outer = nn.Module()
        outer.scale = nn.Parameter(torch.ones(()).double())
        outer.forward = lambda p: functional_call(model, p, x).square().sum() * outer.scale
        scale = torch.tensor(3.0).double()
        return lambda p: functional_call(outer, {"scale": scale}, p)

    def by_autograd(f, p):
        leaves = {name: value.clone().requires_grad_() for name, value in p.items()}
        values = torch.autograd.grad(f(leaves), leaves.values(), create_graph=True)
        return leaves, dict(zip(leaves, values, strict=True))

    def expected(x):
        leaves, first = by_autograd(loss(plain, x), state)
        if "(grad)" in derivative and derivative != "vmap(grad)":
            total = sum(value.sum() for value in first.values())
            second = torch.autograd.grad(total, leaves.values())
            return dict(zip(leaves, second, strict=True))
        return {name: value.detach() for name, value in first.items()}

    gradient = grad(loss(saving, xs[0]))
    if derivative == "autograd":
        actual = {k: v.detach() for k, v in by_autograd(loss(saving, xs[0]), state)[1].items()}
    elif derivative == "grad":
        actual = gradient(state)
    elif derivative == "vmap(grad)":
        actual = vmap(lambda x: grad(loss(saving, x))(state))(xs)
    elif derivative == "grad(grad)":
        actual = grad(lambda p: sum(v.sum() for v in gradient(p).values()))(state)
    else:
        ones = {name: torch.ones_like(value) for name, value in state.items()}
        actual = jvp(gradient, (state,), (ones,))[1]
    wanted = stack_trees([expected(x) for x in xs]) if "vmap" in derivative else expected(xs[0])
    assert_equal_trees(actual, wanted)


def test_compiled(twice, unchanged):
    unchanged(twice.eval())
    x, state = randn(4, 3), state_of(twice)
    compiled = torch.compile(
        lambda s, x: functional_call(twice, s, x), backend="eager", fullgraph=True
    )
    assert_close(compiled(state, x), applied(twice, state)(x))
    assert_close(twice(x), applied(twice, {})(x))


# ---- as a program that imports torch.func gets it ----------------------------------------------


def test_dropin(twice, unchanged):
    unchanged(twice)
    x, state = randn(4, 3), state_of(twice)
    given = {**state, "b.weight": state["a.weight"], "again.0.weight": state["norm.weight"]}
    with dropin.installed():
        outputs = [torch.func.functional_call(twice, given, x)]
        with pytest.warns(FutureWarning, match="torch.nn.utils.stateless.functional_call"):
            outputs.append(torch.nn.utils.stateless.functional_call(twice, given, x))
        outputs.append(torch.nn.utils.stateless._functional_call(twice, given, x))
        with torch.nn.utils.stateless._reparametrize_module(twice, given, True, stack_weights=True):
            outputs.append(twice(x))
    expected = applied(twice, state_of(twice))(x)
    for output in outputs:
        assert_close(output, expected)
