"""Every public name of functorch and torch.func is in functx, with the same signature."""

import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

import functx

MODULES = {
    "functorch": "functx",
    "functorch.experimental": "functx.experimental",
    "functorch.experimental.control_flow": "functx.experimental.control_flow",
    "functorch.experimental.ops": "functx.experimental.ops",
    "functorch.compile": "functx.compile",
    "functorch.einops": "functx.einops",
    "torch.func": "functx",
}
# What functx's functions take besides, by keyword only.
MORE = {"hessian": {"chunk_size"}, "jacfwd": {"chunk_size"}}


def public_names(module):
    return [
        name
        for name in getattr(module, "__all__", dir(module))
        if not name.startswith("_") and not isinstance(getattr(module, name), ModuleType)
    ]


def names():
    for theirs in MODULES:
        for name in public_names(importlib.import_module(theirs)):
            yield pytest.param(theirs, name, id=f"{theirs}.{name}")


@pytest.mark.parametrize(("module", "name"), list(names()))
def test_name_and_signature(module, name):
    theirs = getattr(importlib.import_module(module), name)
    ours = getattr(importlib.import_module(MODULES[module]), name)
    if not callable(theirs) or ours is theirs:
        return
    expected = dict(inspect.signature(theirs).parameters)
    actual = dict(inspect.signature(ours).parameters)
    for extra in MORE.get(name, set()) - expected.keys():
        parameter = actual.pop(extra)
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is None
    # The annotations may say more than theirs.
    assert [(p.name, p.kind, p.default) for p in actual.values()] == [
        (p.name, p.kind, p.default) for p in expected.values()
    ]


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_what_is_public_is_documented(module):
    for name in importlib.import_module(module).__all__:
        value = getattr(importlib.import_module(module), name)
        if getattr(value, "__module__", "").startswith("functx"):
            assert value.__doc__, name


def test_the_transforms_are_our_own():
    for name in ["vmap", "grad", "grad_and_value", "vjp", "jvp", "linearize", "jacrev", "jacfwd"]:
        assert getattr(functx, name).__module__.startswith("functx."), name
    assert functx.experimental.chunk_vmap.__module__.startswith("functx.")


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_what_takes_long_is_imported_on_demand():
    code = """
import sys, functx
print("torch._functorch.compilers" in sys.modules, "functx.dropin" in sys.modules)
functx.compile.nop, functx.experimental.chunk_vmap, functx.dropin.install
print("functx.compile" in sys.modules)
"""
    assert run(code).split() == ["False", "False", "True"]


def test_an_unknown_name():
    with pytest.raises(AttributeError, match=r"functx.*no attribute 'nothing'"):
        functx.nothing  # noqa: B018


# ---- Helpers inside of transforms ---------------------------------------------------------------


def in_transforms(f, expected, x):
    """`f` of one example gives `expected` of it, in each transform and in nests of them."""
    batch = torch.stack([x, 2 * x])
    assert_close(functx.vmap(f)(batch), torch.stack([expected(x), expected(2 * x)]))
    gradient = torch.autograd.functional.vjp(lambda x: expected(x).sin().sum(), x)[1]
    assert_close(functx.grad(lambda x: f(x).sin().sum())(x), gradient)
    tangent = torch.autograd.functional.jvp(expected, x, x.cos())[1]
    assert_close(functx.jvp(f, (x,), (x.cos(),))[1], tangent)
    jacobian = torch.autograd.functional.jacobian(expected, x)
    assert_close(functx.vmap(functx.jacrev(f))(x[None])[0], jacobian)
    assert_close(functx.jacfwd(f)(x), jacobian)


def in_place(x):
    y = x.clone()
    y.mul_(3)[0].add_(x.prod())
    return y * x


def out_of_place(x):
    return torch.cat([(3 * x[:1] + x.prod()), 3 * x[1:]]) * x


X = torch.tensor([[0.3, -1.2, 0.7], [1.5, 0.2, -0.4]], dtype=torch.float64)


def test_functionalize_inside():
    in_transforms(functx.functionalize(in_place), out_of_place, X)


@pytest.mark.parametrize("remove", ["mutations", "mutations_and_views"])
def test_functionalize_around(remove):
    def hvp(x):
        return functx.jvp(functx.grad(lambda x: in_place(x).sum()), (x,), (x,))[1]

    expected = functx.jvp(functx.grad(lambda x: out_of_place(x).sum()), (X,), (X,))[1]
    assert_close(functx.functionalize(hvp, remove=remove)(X), expected)
    traced = functx.make_fx(functx.functionalize(functx.vmap(in_place), remove=remove))(X)
    operators = {node.target for node in traced.graph.nodes if node.op == "call_function"}
    assert not any(op._schema.is_mutable for op in operators)
    assert_close(traced(X + 1), torch.stack([out_of_place(x) for x in X + 1]))


def test_functionalize_writes_its_argument():
    x = X.clone()
    functx.functionalize(lambda x: x.add_(1))(x)
    assert_close(x, X + 1)


REARRANGED = {
    "a b -> b a": lambda x: x.t(),
    "a b -> (b a)": lambda x: x.t().reshape(-1),
    "a ... -> ... 1 a": lambda x: x.t()[:, None],
    "... -> (...)": lambda x: x.reshape(-1),
    "(a c) b -> c a b": lambda x: x.reshape(1, 2, 3).transpose(0, 1),
}


@pytest.mark.parametrize("pattern", REARRANGED)
def test_rearrange(pattern):
    sizes = {"a": 1} if "c" in pattern else {}
    in_transforms(lambda x: functx.einops.rearrange(x, pattern, **sizes), REARRANGED[pattern], X)


@pytest.mark.parametrize(
    ("pattern", "sizes", "reason"),
    [
        ("a b", {}, "->"),
        ("a -> a", {}, "has 2 dimensions, the left side 1"),
        ("a b c ... -> a b c ...", {}, "has 2 dimensions, the left side 3"),
        ("a b -> a", {}, "both sides"),
        ("a ... -> a", {}, "both sides"),
        ("a a -> a", {}, "once"),
        ("a b -> a b b", {}, "once"),
        ("(a b -> a b", {}, "not closed"),
        ("a b) -> a b", {}, r"'\)'"),
        ("a 2 -> a", {}, "'2'"),
        ("a 1 -> a", {}, "size 3 can't be"),
        ("(a c) b -> a c b", {}, "sizes of all axes but one"),
        ("(a c) b -> a c b", {"a": 3}, "divide"),
        ("(...) b -> ... b", {}, "parentheses"),
        ("a b -> a b", {"c": 2}, "no axis c"),
    ],
)
def test_rearrange_refuses(pattern, sizes, reason):
    with pytest.raises(ValueError, match=f"rearrange.*{reason}"):
        functx.rearrange(X, pattern, **sizes)


def test_rearrange_stacks():
    assert_close(functx.rearrange([X, X + 1], "n a b -> a (n b)"), torch.cat([X, X + 1], 1))


def model():
    torch.manual_seed(1)
    layers = torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.BatchNorm1d(4, affine=True)
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 1)).double().eval()


def test_functional_call_and_make_functional():
    net = model()
    expected = torch.autograd.grad(net(X).square().sum(), list(net.parameters()))
    params = dict(net.named_parameters())
    gradient = functx.grad(lambda p: functx.functional_call(net, p, (X,)).square().sum())(params)
    assert_close(tuple(gradient.values()), expected)
    func, weights, buffers = functx.make_functional_with_buffers(net)
    gradient = functx.grad(lambda w: func(w, buffers, X).square().sum())(weights)
    assert_close(gradient, expected)
    per_sample = functx.vmap(
        functx.grad(lambda w, x: func(w, buffers, x[None]).square().sum()), in_dims=(None, 0)
    )(weights, X)
    assert_close(tuple(g.sum(0) for g in per_sample), expected)
    linear, weights = functx.make_functional(torch.nn.Linear(3, 2).double())
    tangent = functx.jvp(lambda w: linear(w, X), (weights,), (weights,))[1]
    assert_close(tangent, linear(weights, X))


def test_ensembles():
    nets = [torch.nn.Linear(3, 2).double() for _ in range(4)]
    expected = torch.stack([net(X) for net in nets])
    func, weights, buffers = functx.combine_state_for_ensemble(nets)
    assert_close(functx.vmap(func, (0, 0, None))(weights, buffers, X), expected)
    params, buffers = functx.stack_module_state(nets)
    call = lambda p, b: functx.functional_call(nets[0], (p, b), (X,))
    assert_close(functx.vmap(call)(params, buffers), expected)


def test_replace_all_batch_norm_modules():
    net = functx.replace_all_batch_norm_modules_(model().train())
    batches = torch.stack([X, X.sin()])
    expected = torch.stack([net(x) for x in batches])
    assert_close(functx.vmap(net)(batches), expected)


def test_make_fx_of_a_nest():
    per_sample = functx.vmap(functx.grad(lambda x: x.sin().prod()))
    traced = functx.make_fx(per_sample)(X)
    y = X + 1
    expected = torch.stack([x.cos() * x.sin().prod() / x.sin() for x in y])
    assert_close(traced(y), expected)


def test_chunk_vmap():
    chunks = []

    def f(x, y):
        chunks.append(1)
        return x * y.sum(), x

    x = torch.arange(10.0).reshape(5, 2)
    for count, calls in [(1, 1), (2, 2), (4, 3), (5, 5), (9, 5)]:
        chunks.clear()
        actual = functx.experimental.chunk_vmap(f, (0, None), (1, 0), chunks=count)(x, x[0])
        assert_close(actual, ((x * x[0].sum()).t(), x))
        assert len(chunks) == calls
    with pytest.raises(ValueError, match="chunk"):
        functx.experimental.chunk_vmap(f, chunks=0)


def test_debug_unwrap():
    def f(x):
        once = functx.debug_unwrap(x, recurse=False)
        assert functx._C.is_wrapper(once)
        plain = functx.debug_unwrap(x)
        assert not functx._C.is_wrapper(plain)
        assert (once.shape, plain.shape) == ((2, 3), (2, 2, 3)) or x.shape == (3,)
        return x

    functx.vmap(functx.vmap(f))(torch.stack([X, X]))
    assert functx.debug_unwrap(X) is X


# ---- linearize ----------------------------------------------------------------------------------


def g(x):
    return {"a": x.sin() * x.sum(0), "b": (x.prod(), x)}


def test_linearize_is_jvp():
    t = X.cos()
    output, jvp_fn = functx.linearize(g, X)
    expected, tangent = torch.autograd.functional.jvp(
        lambda x: (g(x)["a"], g(x)["b"][0], x.clone()), X, t
    )
    tangents = jvp_fn(t)
    assert_close((output["a"], *output["b"]), expected)
    assert_close((tangents["a"], *tangents["b"]), tangent)
    assert_close(jvp_fn(2 * t)["a"], 2 * tangents["a"])


def test_linearize_calls_the_function_once():
    calls = []

    def f(x):
        calls.append(1)
        return x.exp()

    _, jvp_fn = functx.linearize(f, X)
    for scale in range(3):
        assert_close(jvp_fn(scale * X), scale * X * X.exp())
    assert calls == [1]


def test_linearize_of_several_pytrees():
    f = lambda p, x: p["w"] * x + p["b"]
    p = {"w": X, "b": X.sin()}
    output, jvp_fn = functx.linearize(f, p, X.cos())
    assert_close(output, f(p, X.cos()))
    assert_close(jvp_fn({"w": X, "b": X + 1}, X), X * X.cos() + X + 1 + X * X)


def h(x):
    return x.sin().sum(-1) * x.prod(-1)


def tangent_of_h(x, t):
    return x.cos().mul(t).sum(-1) * x.prod(-1) + x.sin().sum(-1) * (x.prod(-1, True) / x * t).sum(
        -1
    )


def test_linearize_in_a_nest():
    t = X.exp()
    tangent = lambda x, t: functx.linearize(h, x)[1](t)
    assert_close(functx.vmap(tangent)(X, t), tangent_of_h(X, t))
    expected = torch.autograd.functional.vjp(lambda x: tangent_of_h(x, t).sum(), X)[1]
    assert_close(functx.grad(lambda x: tangent(x, t).sum())(X), expected)
    expected = torch.autograd.functional.jvp(lambda x: tangent_of_h(x, t), X, t)[1]
    assert_close(functx.jvp(lambda x: tangent(x, t), (X,), (t,))[1], expected)
    assert_close(functx.linearize(lambda x: tangent(x, t), X)[1](t), expected)
    leaf = X.clone().requires_grad_()
    expected = torch.autograd.grad(tangent_of_h(leaf, t).sum(), leaf)
    assert_close(torch.autograd.grad(tangent(leaf, t).sum(), leaf), expected)


def test_linearize_leaves_no_tape_behind():
    output, jvp_fn = functx.linearize(h, X)
    assert not output.requires_grad
    assert not jvp_fn(X).requires_grad
    batch = functx.vmap(jvp_fn)(X[None])
    assert not batch.requires_grad
    leaf = X.clone().requires_grad_()
    assert jvp_fn(leaf).requires_grad
    assert functx.linearize(h, leaf)[1](X).requires_grad
    assert functx.linearize(lambda x: h(x * leaf), X)[1](X).requires_grad


def test_linearize_inside_of_torch_func():
    t = X.exp()
    expected = torch.autograd.functional.vjp(lambda x: tangent_of_h(x, t).sum(), X)[1]
    assert_close(torch.func.grad(lambda x: functx.linearize(h, x)[1](t).sum())(X), expected)
    assert_close(torch.func.vmap(lambda x: functx.linearize(h, x)[1](x))(X), tangent_of_h(X, X))


def test_linear_maps_in_transforms():
    _, jvp_fn = functx.linearize(h, X)
    ts = torch.stack([X, X.exp(), X.cos()])
    assert_close(functx.vmap(jvp_fn)(ts), torch.stack([tangent_of_h(X, t) for t in ts]))
    assert_close(functx.jvp(jvp_fn, (X,), (ts[1],))[1], tangent_of_h(X, ts[1]))
    transposed = functx.vjp(jvp_fn, X)[1](torch.ones(2, dtype=X.dtype))[0]
    assert_close(transposed, torch.autograd.functional.vjp(lambda x: h(x).sum(), X)[1])


def test_linearize_of_complex_and_constant_functions():
    z = torch.complex(X, X.cos())
    f = lambda z: z.abs() * z.conj() + z**2
    assert_close(
        functx.linearize(f, z)[1](z.conj()), torch.autograd.functional.jvp(f, z, z.conj())[1]
    )
    one = torch.ones((), dtype=X.dtype)
    assert_close(functx.linearize(lambda x: one, X)[1](X), one - 1)


@pytest.mark.parametrize(
    ("tangents", "reason"),
    [
        ((X, X), "to have the same argspec as the primals"),
        ((X[0],), r"tangent:0 with shape .* doesn't match the shape"),
        ((X.float(),), r"tangent:0 with dtype .* doesn't match the dtype"),
        ((X.to("meta"),), r"tangent:0 with device .* doesn't match the device"),
        ((1.0,), "torch.tensor"),
    ],
)
def test_linearize_refuses(tangents, reason):
    _, jvp_fn = functx.linearize(torch.sin, X)
    with pytest.raises(RuntimeError, match=reason):
        jvp_fn(*tangents)
