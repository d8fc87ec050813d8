"""`functx.dropin`: programs that import functorch or torch.func, unchanged, on functx."""

import importlib
import os
import subprocess
import sys
import unittest.mock
import warnings

import pytest
import torch
from _reference import randn
from torch.testing import assert_close

import functx
from functx import dropin
from functx.dropin._patches import PRIVATE, PUBLIC, SUCCESSORS, _module, _ours

ATTRIBUTES = [
    (module, name)
    for name, modules in {**PUBLIC, **PRIVATE}.items()
    for module in modules
    if hasattr(_module(module), name)
]


@pytest.fixture
def installed():
    with dropin.installed():
        yield


def is_ours(function):
    return function.__module__.startswith("functx.")


# ---- Install and uninstall ----------------------------------------------------------------------


def test_uninstall_restores_every_attribute():
    modules = {module: _module(module) for module, _ in ATTRIBUTES}
    before = {name: dict(vars(module)) for name, module in modules.items()}
    classes = {name: type(module) for name, module in modules.items()}
    for _ in range(2):
        dropin.install()
        dropin.install()  # twice is once
        dropin.uninstall()
        dropin.uninstall()
    for name, module in modules.items():
        assert type(module) is classes[name]
        after = vars(module)
        assert list(after) == list(before[name])
        assert all(after[key] is value for key, value in before[name].items())


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.usefixtures("installed")
def test_public_names(name):
    present = [module for module in PUBLIC[name] if hasattr(_module(module), name)]
    assert present
    for module in present:
        assert importlib.import_module(module) is sys.modules[module]
        function = getattr(importlib.import_module(module), name)
        ours = _ours(name)
        assert function is ours or function.__wrapped__ is ours
        namespace = {}
        exec(f"from {module} import {name} as imported", namespace)
        assert namespace["imported"] is function


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.usefixtures("installed")
def test_private_names(name):
    for module in PRIVATE[name]:
        if not hasattr(_module(module), name):
            continue
        namespace = {}
        if module in sys.modules:
            exec(f"import {module}; from {module} import {name} as imported", namespace)
        else:
            exec("import torch", namespace)
        exec(f"attribute = {module}.{name}", namespace)
        assert is_ours(namespace["attribute"])
        assert is_ours(namespace.get("imported", namespace["attribute"]))
        # PyTorch itself sees its own.
        as_pytorch = {"__name__": "torch.anything", "module": _module(module)}
        exec(f"attribute = module.{name}", as_pytorch)
        assert not is_ours(as_pytorch["attribute"])


def test_context_managers_nest():
    original = torch.func.vmap
    with dropin.installed():
        with dropin.installed():
            assert is_ours(torch.func.vmap)
        assert is_ours(torch.func.vmap)
    assert torch.func.vmap is original
    with pytest.raises(KeyError), dropin.installed():
        raise KeyError
    assert torch.func.vmap is original


@pytest.mark.usefixtures("installed")
def test_mocks_of_what_is_replaced():
    from torch._functorch import vmap as module

    with unittest.mock.patch("torch._functorch.vmap.restore_vmap", 1):
        assert module.restore_vmap == 1
    assert is_ours(module.restore_vmap)
    with unittest.mock.patch("torch.vmap", 1):
        assert torch.vmap == 1
    assert is_ours(torch.vmap)


@pytest.mark.parametrize("name", ["grad", "jacrev", "hessian", "functionalize", *SUCCESSORS])
@pytest.mark.usefixtures("installed")
def test_deprecation_warnings(name):
    """Those of functorch, and no others."""
    import functorch

    successor = SUCCESSORS.get(name, f"torch.func.{name}")
    argument = torch.nn.Linear(1, 1) if "make" in name else torch.sin
    argument = [torch.nn.Linear(1, 1)] if "combine" in name else argument
    with pytest.warns(FutureWarning, match=f"functorch.{name}.*{successor}") as caught:
        getattr(functorch, name)(argument)
    assert [warning.filename for warning in caught] == [__file__]
    if name not in SUCCESSORS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            getattr(torch.func, name)(argument)


# ---- Whole programs -----------------------------------------------------------------------------

PROGRAM = """
import sys
{imports}
import torch

assert functorch.vmap.__module__ == "functx.vmap" == vmap.__module__ == torch.vmap.__module__
assert F.grad.__module__ == "functx.grad"
assert E.jvp.__module__ == "functx.jvp"
levels = []

def f(x):
    import functx
    levels.append([level.kind for level in functx._C.active_levels()])
    return x.sin().sum()

x = torch.randn(3, 4)
assert torch.allclose(vmap(F.grad(f))(x), x.cos())
assert levels == [["vmap", "grad"]], levels
print(__name__, sys.argv[1:])
"""
IMPORTS = [
    "import functorch",
    "from functorch import vmap",
    "import torch.func as F",
    "import functorch.experimental as E",
]


def python(*arguments, **options):
    root = os.path.dirname(os.path.dirname(os.path.abspath(functx.__file__)))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": root},
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("order", [IMPORTS, IMPORTS[::-1], ["import torch", *IMPORTS]])
def test_running_a_script(tmp_path, order):
    script = tmp_path / "script.py"
    (tmp_path / "neighbour.py").write_text("")
    script.write_text(PROGRAM.format(imports="\n".join(["import neighbour", *order])))
    result = python("-m", "functx.dropin", script, "-m", "--flag")
    assert (result.stdout, result.returncode) == ("__main__ ['-m', '--flag']\n", 0), result.stderr


def test_running_a_module(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM.format(imports="\n".join(IMPORTS)))
    result = python("-m", "functx.dropin", "-m", "package", "1", cwd=tmp_path)
    assert (result.stdout, result.returncode) == ("__main__ ['1']\n", 0), result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["-m"], ["--help"]])
def test_running_nothing(arguments):
    result = python("-m", "functx.dropin", *arguments)
    assert result.returncode == 1
    assert "usage" in result.stderr


@pytest.mark.slow
def test_a_script_knows_its_file_as_from_python(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(__file__, sys.argv[1:])")
    expected = python("script.py", "a", cwd=tmp_path).stdout
    assert str(script) in expected
    assert python("-m", "functx.dropin", "script.py", "a", cwd=tmp_path).stdout == expected


def test_the_exit_status_of_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(3)")
    assert python("-m", "functx.dropin", script).returncode == 3


@pytest.mark.slow
def test_installing_after_the_imports(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import functorch, torch
from torch.func import vmap
from functx import dropin
dropin.install()
print(vmap.__module__, torch.func.vmap.__module__, functorch.vmap.__module__)
dropin.uninstall()
print(torch.func.vmap is vmap)
""")
    assert python(script).stdout.split() == ["torch.func", "functx.vmap", "functx.vmap", "True"]


@pytest.mark.slow
def test_the_pytest_plugin(tmp_path):
    check = "assert vmap.__module__ == 'functx.vmap'"
    (tmp_path / "conftest.py").write_text(f"from torch.func import vmap\n{check}")
    (tmp_path / "test_it.py").write_text(f"""
from functorch import vmap
from torch._C._functorch import is_batchedtensor

def test_it():
    {check}
    assert is_batchedtensor.__module__.startswith("functx")
""")
    plugin = ["-p", "functx.dropin", "-p", "no:cacheprovider"]
    for workers in ([], ["-n", "1"]):
        result = python("-m", "pytest", *plugin, *workers, tmp_path, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    assert python("-m", "pytest", *plugin[2:], tmp_path, cwd=tmp_path).returncode != 0


# ---- What functx asks PyTorch while it is installed ----------------------------------------------


class Scaled(torch.autograd.Function):
    """x * y, with derivatives that are deliberately twice as large, and a rule for each transform.

    It counts the calls of the latter.
    """

    rules = 0

    @staticmethod
    def forward(x, y):
        return x * y

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        return 2 * grad * y, 2 * grad * x

    @staticmethod
    def jvp(ctx, dx, dy):
        x, y = ctx.saved_tensors
        return 2 * (dx * y + dy * x)

    @staticmethod
    def vmap(info, in_dims, x, y):
        Scaled.rules += 1
        assert (info.batch_size, in_dims) == (3, (0, None))
        return Scaled.apply(x, y), 0


@pytest.mark.usefixtures("installed")
def test_the_rules_of_an_autograd_function():
    from torch.func import grad, jacfwd, jvp, vmap

    x, y = randn(3, 4), randn(4)
    f = lambda x: Scaled.apply(x, y)
    before = Scaled.rules
    assert_close(vmap(f)(x), x * y)
    assert_close(vmap(grad(lambda x: f(x).sum()))(x), (2 * y).expand(3, 4))
    assert Scaled.rules >= before + 2
    assert_close(jvp(f, (x,), (x,))[1], 2 * x * y)
    assert_close(jacfwd(lambda x: Scaled.apply(x, x))(y), (4 * y).diag())


# ---- PyTorch's own use of transforms ------------------------------------------------------------


@pytest.mark.usefixtures("installed")
def test_vectorised_autograd():
    x = randn(3)
    functional = torch.autograd.functional
    for vectorize in (True, False):
        assert_close(functional.jacobian(torch.sin, x, vectorize=vectorize), x.cos().diag())
        hessian = functional.hessian(lambda x: x.sin().sum(), x, vectorize=vectorize)
        assert_close(hessian, -x.sin().diag())
    leaf = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(torch.sin, (leaf,), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(torch.sin, (leaf,), check_batched_grad=True)
    (rows,) = torch.autograd.grad(leaf.sin(), leaf, torch.eye(3).double(), is_grads_batched=True)
    assert_close(rows, x.cos().diag())


@pytest.mark.usefixtures("installed")
def test_compiled_code_keeps_the_transforms_that_the_compiler_knows():
    from torch.func import grad, jvp, vmap

    x = randn(3, 4)
    f = lambda x: x.sin().sum()
    programs = [
        (lambda x: vmap(grad(f))(x), x.cos()),
        (lambda x: torch.vmap(f)(x), x.sin().sum(1)),
        (lambda x: torch.func.hessian(f)(x[0]), -x[0].sin().diag()),
        (lambda x: jvp(torch.sin, (x,), (x,))[1], x * x.cos()),
        (lambda x: torch.func.vjp(torch.sin, x)[1](x)[0], x * x.cos()),
        (lambda x: torch.func.jacfwd(f)(x[1]), x[1].cos()),
    ]
    for program, expected in programs:
        compiled = torch.compile(program, fullgraph=True, backend="eager")
        assert_close(compiled(x), expected)
        with torch.compiler.set_stance("fail_on_recompile"):
            assert_close(compiled(x), expected)
        assert_close(program(x), expected)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["vmap", "grad", "jacrev", "jacfwd", "hessian"])
def test_a_transform_made_outside_of_compiled_code(name):
    transformed = getattr(torch.func, name)(lambda x: x.sin().sum())
    x = randn(3)
    expected = transformed(x)
    for program in (transformed, lambda x: transformed(x) * 1):
        compiled = torch.compile(program, fullgraph=True, backend="eager")
        assert_close(compiled(x), expected)
    assert_close(functx.vmap(transformed)(x[None])[0], expected)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_flex_attention():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def causal(batch, head, query, key):
        return query >= key

    q, k, v = torch.randn(3, 1, 2, 128, 16)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    for make in (create_block_mask, torch.compile(create_block_mask, backend="eager")):
        mask = make(causal, None, None, 128, 128, device="cpu")
        assert_close(flex_attention(q, k, v, block_mask=mask), expected)


@pytest.mark.usefixtures("installed")
def test_higher_order_operators():
    from functorch.experimental.control_flow import cond
    from torch._higher_order_ops.associative_scan import associative_scan

    x = randn(3, 4)
    sums = associative_scan(lambda a, b: a + b, x, 0, combine_mode="generic")
    assert_close(sums, x.cumsum(0))
    assert_close(cond(x.sum() > x.sum() + 1, torch.sin, torch.cos, (x,)), x.cos())


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.usefixtures("installed")
def test_cond(compiled):
    def f(x):
        return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))

    x = randn(6, 4)
    if compiled:
        g = torch.compile(f, fullgraph=True, backend="eager")
        assert_close(torch.stack([g(row) for row in x]), torch.stack([f(row) for row in x]))
    expected = torch.where(x.sum(1, True) > 0, x.sin(), x.cos())
    assert_close(torch.vmap(f)(x), expected)
    assert_close(torch.stack([f(row) for row in x]), expected)


# ---- Private helpers ----------------------------------------------------------------------------


def describe(x):
    """What the helpers say of a tensor, from the outside in."""
    from torch._C import _functorch

    layers = []
    while _functorch.is_functorch_wrapped_tensor(x):
        kind = "batched" if _functorch.is_batchedtensor(x) else "other"
        kind = "tracked" if _functorch.is_gradtrackingtensor(x) else kind
        level = _functorch.maybe_get_level(x)
        assert _functorch.dlevel(x) == (level if kind == "tracked" else 0)
        layers.append((kind, level, _functorch.maybe_get_bdim(x)))
        x = _functorch.get_unwrapped(x)
    return layers, tuple(x.shape), _functorch.maybe_get_level(x), _functorch.maybe_get_bdim(x)


NESTS = {
    "vmap": (lambda f: lambda x: torch.func.vmap(f)(x), [("batched", 1, 0)]),
    "grad": (lambda f: lambda x: torch.func.grad(f)(x), [("tracked", 1, -1)]),
    "jvp": (lambda f: lambda x: torch.func.jvp(f, (x,), (x,)), [("tracked", 1, -1)]),
    "vmap-grad": (
        lambda f: lambda x: torch.func.vmap(torch.func.grad(f))(x),
        [("tracked", 2, -1), ("batched", 1, 0)],
    ),
    "grad-vmap": (
        lambda f: lambda x: torch.func.grad(lambda x: torch.func.vmap(f)(x).sum())(x),
        [("batched", 2, 0), ("tracked", 1, -1)],
    ),
    "vmap-vmap": (
        lambda f: lambda x: torch.func.vmap(torch.func.vmap(f))(x),
        [("batched", 2, 0), ("batched", 1, 0)],
    ),
}


@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("library", ["torch.func", "functx"])
def test_what_the_helpers_see(nest, library):
    """Both libraries' own, in turn: functx is described as torch.func describes itself."""
    seen = []

    def f(x):
        seen.append(describe(x))
        return x.sum()

    x = randn(5, 3)
    transform, layers = NESTS[nest]
    if library == "functx":
        with dropin.installed():
            transform(f)(x)
    else:
        transform(f)(x)
    assert seen == [(layers, (5, 3), -1, -1)]


@pytest.mark.usefixtures("installed")
def test_levels_and_interpreters():
    from torch._C._functorch import TransformType, current_level, peek_interpreter_stack
    from torch._functorch.pyfunctorch import (
        retrieve_all_functorch_interpreters,
        retrieve_current_functorch_interpreter,
    )

    def f(x):
        interpreter = retrieve_current_functorch_interpreter()
        assert current_level() == interpreter.level() == 2
        assert interpreter.key() == peek_interpreter_stack().key() == TransformType.Grad
        outer = retrieve_all_functorch_interpreters()[0]
        assert outer.key() == TransformType.Vmap
        assert (outer.level(), outer.batch_size(), outer.randomness()) == (1, 5, "same")
        with pytest.raises(RuntimeError, match="register_vmap"):
            outer.lower()
        return x.sum()

    torch.vmap(torch.func.grad(f), randomness="same")(randn(5, 3))
    assert peek_interpreter_stack() is None
    assert torch._C._functorch.maybe_current_level() is None
    assert retrieve_all_functorch_interpreters() == []


@pytest.mark.usefixtures("installed")
def test_a_vmap_by_hand():
    from torch._C._functorch import is_dead_tensor_wrapper, unwrap_if_dead
    from torch._functorch.vmap import (
        _add_batch_dim,
        _remove_batch_dim,
        _vmap_decrement_nesting,
        _vmap_increment_nesting,
        restore_vmap,
        vmap_increment_nesting,
    )

    x = randn(4, 5, 3)
    level = _vmap_increment_nesting(5, "error")
    try:
        inner = _add_batch_dim(x, -2, level)
        assert inner.shape == (4, 3)
        result = _remove_batch_dim(inner.sum(0), level, 5, 1)
    finally:
        assert _vmap_decrement_nesting() == level
    assert_close(result, x.sum(0).t())
    assert is_dead_tensor_wrapper(inner)
    assert unwrap_if_dead(inner).shape == (5, 4, 3)
    with vmap_increment_nesting(2, "same") as level:
        assert level == 1
    with pytest.raises(RuntimeError, match="no active level 1"):
        _add_batch_dim(x, 0, 1)
    values, dims = restore_vmap(lambda a, b: (a * 2, b), (1, None), 5, "error")(x, x[0, 0])
    assert (values[0].shape, dims) == ((5, 4, 3), (0, None))
    assert_close(values[0], 2 * x.movedim(1, 0))


class Box:
    """A container that is no pytree."""

    def __init__(self, tensor):
        self.tensor = tensor


@pytest.mark.usefixtures("installed")
def test_a_library_that_replaces_the_helpers_of_vmap(monkeypatch):
    """The way tensordict teaches vmap its containers."""
    module = torch._functorch.vmap
    unwrap = module._unwrap_batched

    def process(in_dims, args, func):
        return args[0].tensor.shape[0], [0], [args[0].tensor], None

    def create(in_dims, args, level, spec):
        return (Box(module._add_batch_dim(args[0], in_dims[0], level)),)

    def unwrap_boxes(output, out_dims, level, size, func):
        return Box(unwrap(output.tensor, out_dims, level, size, func))

    monkeypatch.setattr(module, "_process_batched_inputs", process)
    monkeypatch.setattr(module, "_create_batched_inputs", create)
    monkeypatch.setattr(module, "_unwrap_batched", unwrap_boxes)
    x = randn(3, 4)
    f = lambda box: Box(box.tensor.sum() * box.tensor)
    assert_close(torch.vmap(f, out_dims=1)(Box(x)).tensor, (x * x.sum(1, True)).t())
    assert torch._C._are_functorch_transforms_active() is False
    monkeypatch.undo()
    assert_close(torch.vmap(torch.sum)(x), x.sum(1))


@pytest.mark.usefixtures("installed")
def test_a_grad_by_hand():
    from torch._functorch.eager_transforms import (
        _autograd_grad,
        _create_differentiable,
        _undo_create_differentiable,
        _unwrap_for_grad,
        _vjp_with_argnums,
        _wrap_all_tensors,
        _wrap_for_grad,
        grad_increment_nesting,
    )

    x = randn(3)
    with grad_increment_nesting() as level:
        inner = _wrap_for_grad(x, level)
        value = inner.sin().sum()
        (gradient,) = _autograd_grad((value,), (inner,))
        value, gradient = _unwrap_for_grad(value, level), _unwrap_for_grad(gradient, level)
    assert_close((value, gradient), (x.sin().sum(), x.cos()))
    assert not value.requires_grad
    with grad_increment_nesting() as level:  # as torch.func.grad is written
        inner = _wrap_all_tensors({"x": x, "n": 2, "i": torch.tensor(3)}, level)
        _create_differentiable(inner["x"], level)
        value = (inner["x"] ** inner["n"] * inner["i"]).sum()
        gradients = _autograd_grad((value,), [inner["x"]])
        value, *gradients = _undo_create_differentiable((value, *gradients), level)
    assert_close((value, gradients), (3 * x.square().sum(), [6 * x]))
    assert not value.requires_grad
    _, vjp_fn = _vjp_with_argnums(torch.mul, x, x.cos(), argnums=1)
    assert_close(vjp_fn(x), x * x)


@pytest.mark.usefixtures("installed")
def test_a_jvp_by_hand_is_refused():
    for enter in (
        torch._C._functorch._jvp_increment_nesting,
        torch._functorch.eager_transforms.jvp_increment_nesting,
        torch._functorch.eager_transforms.enter_jvp_nesting,
    ):
        with pytest.raises(RuntimeError, match=r"torch\.func\.jvp"):
            enter()


@pytest.mark.usefixtures("installed")
def test_the_switches_of_the_loop():
    helpers = torch._C._functorch
    library = torch.library.Library("functx_dropin_test", "FRAGMENT")
    library.define("plus_one(Tensor x) -> Tensor")
    library.impl("plus_one", lambda x: x + 1, "CPU")
    call = torch.vmap(torch.ops.functx_dropin_test.plus_one)
    x = randn(3)
    assert helpers._is_vmap_fallback_enabled()
    try:
        helpers._set_vmap_fallback_enabled(False)
        assert not helpers._is_vmap_fallback_enabled()
        with pytest.raises(RuntimeError, match=r"plus_one.*register_batching_rule"):
            call(x)
        helpers._set_vmap_fallback_enabled(True)
        helpers._set_vmap_fallback_warning_enabled(False)
        assert_close(call(x), x + 1)
        helpers._set_vmap_fallback_warning_enabled(True)
        with pytest.warns(UserWarning, match="plus_one"):
            call(x)
    finally:
        helpers._set_vmap_fallback_enabled(True)
        helpers._set_vmap_fallback_warning_enabled(True)
        library._destroy()
