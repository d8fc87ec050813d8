"""torch.compile around transforms and inside of them."""

import contextlib
import logging
import subprocess
import sys
import warnings

import pytest
import torch
from _closed_forms import CASES, square_of_sine
from _reference import autograd_grad, randn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

import functx

each = pytest.mark.parametrize("name", CASES)
FEW = ["vmap", "grad", "vmap-grad", "jvp", "jacrev", "hessian"]
with_backends = pytest.mark.parametrize(
    ("name", "backend"),
    [(name, "eager") for name in CASES] + [(name, "aot_eager") for name in FEW],
)


@pytest.fixture(autouse=True)
def nothing_compiled_yet():
    torch._dynamo.reset()


@contextlib.contextmanager
def log_of_dynamo():
    """What the compiler has to say, at the level of warnings."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("torch._dynamo")
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)


# ---- Around transforms --------------------------------------------------------------------------


@with_backends
def test_a_transform_in_compiled_code(name, backend):
    """The graph breaks there; what is around is compiled, and nobody warns of anything."""
    case = CASES[name]
    counter = CompileCounterWithBackend(backend)

    @torch.compile(backend=counter)
    def program(x):
        return case.transform(square_of_sine)(x + 1) * 2

    with log_of_dynamo() as records, warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (randn(4, 3), randn(6, 3)):
            assert_close(program(x), 2 * case.expected(x + 1))
    assert not records, records[0].getMessage()
    assert counter.frame_count > 0
    targets = {node.target for graph in counter.graphs for node in graph.graph.nodes}
    assert not targets & {torch.sin, "sin", torch.square, "square"}


@each
def test_a_compiled_transform(name):
    """It runs as it is."""
    x, case = randn(4, 3), CASES[name]
    assert_close(
        torch.compile(case.transform(square_of_sine), backend="eager")(x), case.expected(x)
    )


def test_one_transform_is_one_graph_break():
    gradient = functx.vmap(functx.grad(lambda x: square_of_sine(x).sum()))
    explanation = torch._dynamo.explain(lambda x: gradient(x + 1) * 2)(randn(4, 3))
    assert (explanation.graph_break_count, explanation.graph_count) == (1, 2)


def test_fullgraph_says_how():
    program = torch.compile(lambda x: functx.vmap(torch.sin)(x), backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="nonstrict_trace"):
        program(randn(3))


def test_a_pullback_in_compiled_code():
    x, y = randn(3), randn(3)

    @torch.compile(backend="eager")
    def program(x, y):
        output, vjp_fn = functx.vjp(torch.sin, x * 2)
        return output + vjp_fn(y)[0]

    assert_close(program(x, y), (2 * x).sin() + y * (2 * x).cos())


# ---- Transforms in the graph --------------------------------------------------------------------


def loss(parameters, x):
    return (parameters["weight"] @ x + parameters["bias"]).sin().sum()


def per_sample_gradients(parameters, x):
    slopes = (x @ parameters["weight"].T + parameters["bias"]).cos()
    return {"weight": slopes[:, :, None] * x[:, None], "bias": slopes}


@pytest.mark.parametrize(
    "backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_a_transform_in_the_graph(backend):
    gradients = torch._dynamo.nonstrict_trace(functx.vmap(functx.grad(loss), (None, 0)))
    parameters, x = {"weight": randn(2, 3), "bias": randn(2)}, randn(5, 3)
    program = torch.compile(lambda p, x: gradients(p, 2 * x), backend=backend, fullgraph=True)
    assert_close(program(parameters, x), per_sample_gradients(parameters, 2 * x))
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_close(program(parameters, 3 * x), per_sample_gradients(parameters, 6 * x))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_backward_through_a_transform_in_the_graph(backend):
    gradients = torch._dynamo.nonstrict_trace(functx.vmap(functx.grad(loss), (None, 0)))
    weight, bias, x = randn(2, 3), randn(2), randn(5, 3)

    @torch.compile(backend=backend, fullgraph=True)
    def norm(weight, bias, x):
        return gradients({"weight": weight, "bias": bias}, x)["weight"].square().sum()

    def expected(weight, bias, x):
        return per_sample_gradients({"weight": weight, "bias": bias}, x)["weight"].square().sum()

    leaves = [t.clone().requires_grad_() for t in (weight, bias, x)]
    norm(*leaves).backward()
    assert_close(tuple(leaf.grad for leaf in leaves), autograd_grad(expected, weight, bias, x))


@pytest.mark.parametrize("name", FEW)
def test_a_graph_that_make_fx_recorded_is_compiled(name):
    case = CASES[name]
    recorded = functx.make_fx(case.transform(square_of_sine))(randn(4, 3))
    x = randn(4, 3)
    assert_close(torch.compile(recorded, backend="aot_eager", fullgraph=True)(x), case.expected(x))


# ---- Compiled functions inside ------------------------------------------------------------------


def on_views(f):
    """The same function, called on views of its arguments."""
    return lambda x: f(x[None])[0]


@with_backends
def test_a_compiled_function_inside(name, backend):
    """Silently, whether it is compiled there or not; and elsewhere it is compiled as ever."""
    x, case = randn(4, 3), CASES[name]
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(square_of_sine, backend=counter)
    with log_of_dynamo() as records:
        for f in (compiled, compiled, on_views(compiled)):
            assert_close(case.transform(f)(x), case.expected(x))
    assert not records, records[0].getMessage()
    torch._dynamo.reset()
    counter.clear()
    assert_close(compiled(x), square_of_sine(x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", FEW)
def test_compiled_inside_first_and_outside_later(name):
    """Dynamo must not have given up on the function when it saw our tensors."""
    x, case = randn(4, 3), CASES[name]
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(square_of_sine, backend=counter)
    case.transform(compiled)(x)
    counter.clear()
    with torch.no_grad():
        assert_close(compiled(x), square_of_sine(x))
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", ["grad", "vjp", "jacrev"])
def test_one_derivative_runs_compiled_code(name):
    """With no wrapper around, the function sees plain tensors, and is compiled for them."""
    x, case = randn(4, 3), CASES[name]
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(square_of_sine, backend=counter)
    assert_close(case.transform(compiled)(x), case.expected(x))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_dynamo_is_told_whenever_it_is_loaded():
    """Before functx, after it, and inside of a transform."""
    use = "assert functx.vmap(torch.compile(lambda x: x[None], backend='eager'))(x).shape == (3, 1)"
    programs = [
        f"import torch, torch._dynamo, functx; x = torch.ones(3); {use}",
        f"import torch, functx; x = torch.ones(3); {use}",
        "import torch, functx; functx.vmap(lambda x: torch.compile(torch.sin)(x))(torch.ones(3))",
    ]
    for program in programs:
        result = subprocess.run(
            [sys.executable, "-c", "import sys; " + program],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""


def test_a_compiled_module_inside():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    compiled = torch.compile(model.double(), backend="eager")
    xs = randn(5, 3)
    expected = torch.stack([autograd_grad(lambda x: model(x).sum(), x)[0] for x in xs])
    assert_close(functx.vmap(functx.grad(lambda x: compiled(x).sum()))(xs).detach(), expected)
