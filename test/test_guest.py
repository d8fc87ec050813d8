"""A program that imports functx and uses no transform has PyTorch as it was.

What is changed is changed before the first transform, and reaches those who got hold of something
before. Each test is a program of its own, since an import can't be undone.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(program):
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_import_changes_nothing():
    run("""
import _guest
# What `import functx` imports of PyTorch adds names to its modules.
import torch.fx.experimental.proxy_tensor, torch.func, functorch.experimental.control_flow
attributes, insides = _guest.attributes(), _guest.insides()
slots, others = _guest.slots(), _guest.others()
import functx
assert _guest.changed(attributes, _guest.attributes()) == []
assert _guest.insides() == insides
assert _guest.slots() == slots
assert _guest.others() == others
""")


def test_the_import_leaves_the_dispatcher_alone():
    run("""
import torch, functx
keys = ["TESTING_ONLY_GenericWrapper", "TESTING_ONLY_GenericMode", "PrivateUse3", "DeferredInit"]
for key in keys:
    library = torch.library.Library("_", "IMPL", key)
    library.fallback(lambda *args, **kwargs: None)
    library._destroy()
sine = torch.ops.aten.sin.default
assert not any(torch._C._dispatch_has_kernel_for_dispatch_key(sine.name(), key) for key in keys)
assert functx.vmap(torch.sin)(torch.zeros(2)).tolist() == [0, 0]
assert torch._C._dispatch_has_kernel_for_dispatch_key(sine.name(), keys[0])
""")


def test_attributes_stay_the_objects_that_they_are():
    run("""
import _guest, torch, functx
attributes = _guest.attributes()
functx.vmap(functx.grad(torch.sin))(torch.zeros(2))
changed = {name for _, name in _guest.changed(attributes, _guest.attributes())}
assert changed == {"_CheckpointFrame", "_recomputation_hook"}, changed
""")


def test_tables_of_overridden_functions_still_match():
    run("""
import torch, functx
METHODS = ["numpy", "tolist", "new_tensor", "__repr__", "__format__", "__deepcopy__"]
HANDLED = {getattr(torch.Tensor, name): name for name in METHODS}
HANDLED |= {torch.linspace: "linspace", torch.Tensor.data.__get__: "data"}

class Known(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return HANDLED[function]

functx.vmap(torch.sin)(torch.zeros(2))
x = torch.zeros(()).as_subclass(Known)
assert [x.numpy(), x.tolist(), x.new_tensor(1), repr(x), f"{x}", x.__deepcopy__({})] == METHODS
assert x.data == "data"
assert torch.linspace(x, 1, 3) == "linspace"
""")


FUNCTION = """
import torch, functx

class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2

cube = Cube.apply
assert cube(torch.tensor(2.0, requires_grad=True)).grad_fn.name() == "CubeBackward"
"""


@pytest.mark.parametrize(
    "program",
    [
        f"""{FUNCTION}
x = torch.tensor([1.0, 2.0])
assert functx.vmap(functx.grad(cube))(x).tolist() == [3, 12]
assert functx.vmap(functx.grad(functx.grad(cube)))(x).tolist() == [6, 12]
assert functx.jvp(cube, (x,), (x,))[1].tolist() == [3, 24]
""",
        """
from torch import linspace
import functx, torch
f = lambda end: linspace(torch.tensor(0.0), end, 3)
assert functx.jacrev(f)(torch.tensor(1.0)).tolist() == [0, 0.5, 1]
""",
        """
import functx, torch
from functx import dropin
with dropin.installed():
    f = lambda x: torch.cond(x > 0, torch.negative, torch.clone, (x,))
    assert torch.func.vmap(f)(torch.tensor([1.0, -2.0])).tolist() == [-1, -2]
""",
        """
from torch import cond
import functx, torch
f = lambda x: cond(x > 0, torch.negative, torch.clone, (x,))
assert functx.vmap(f)(torch.tensor([1.0, -2.0])).tolist() == [-1, -2]
""",
        """
from torch import Tensor, tensor
numpy, tolist, as_text = Tensor.numpy, Tensor.tolist, Tensor.__repr__
import functx
texts = []
def f(x):
    texts.append(as_text(x))
    for read in (numpy, tolist, x.numpy, x.tolist):
        try:
            read(x) if read in (numpy, tolist) else read()
        except RuntimeError as error:
            texts.append(str(error))
    return x
functx.vmap(f)(tensor([1.0]))
assert texts[0].startswith("BatchedTensor"), texts
assert len(texts) == 5 and all("inside vmap" in text for text in texts[1:]), texts
""",
        """
from torch.autograd import grad
import functx, torch
def f(x):
    x = x.detach().requires_grad_()
    return grad(x.sin(), x)[0]
x = torch.tensor([0.0, 1.0])
torch.testing.assert_close(functx.vmap(f)(x), x.cos())
""",
    ],
    ids=["apply", "linspace", "cond and dropin", "cond", "methods of tensors", "autograd.grad"],
)
def test_what_was_taken_hold_of_before(program):
    run(program)


def test_a_method_that_somebody_else_has_replaced():
    run("""
import torch, functx

def replace(prefix, plain):
    torch.Tensor.__repr__ = lambda self, **kwargs: prefix + plain(self)

replace("their own ", torch.Tensor.__repr__)
texts = []
functx.vmap(lambda x: (texts.append(repr(x)), x)[1])(torch.zeros(2))
assert texts[0].startswith("BatchedTensor"), texts
assert repr(torch.zeros(1)) == "their own tensor([0.])"
""")


def test_saved_tensor_hooks_entered_before():
    run("""
import functx, torch
from threading import Thread
from torch.autograd.graph import saved_tensors_hooks

def before_and_after():
    packed = []
    def pack(tensor):
        packed.append(0)
        return tensor.detach()
    f = lambda x: (x.sin() ** 2).sum()
    x, t = torch.tensor([0.5, 2.0]), torch.ones(2)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        found = functx.jvp(functx.grad(f), (x,), (t,))[1]
        again = functx.jvp(functx.grad(f), (x,), (t,))[1]
    expected = 2 * torch.cos(2 * x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(again, expected)
    assert packed
    done.append(0)

done = []
before_and_after()
thread = Thread(target=before_and_after)
thread.start()
thread.join()
assert len(done) == 2
""")


def test_modules_with_other_parameters_need_no_transform():
    """A checkpoint that is recomputed after the call is recomputed with what it was made with."""
    run("""
import torch, functx
from torch.utils.checkpoint import checkpoint

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 2)

    def forward(self, x):
        return checkpoint(lambda x: self.inner(x).tanh(), x, use_reentrant=False)

net, x = Net(), torch.ones(2, requires_grad=True)
other = {name: torch.full_like(value, 0.1) for name, value in net.named_parameters()}
found, = torch.autograd.grad(functx.functional_call(net, other, (x,)).sum(), x)
net.load_state_dict(other)
expected, = torch.autograd.grad(net(x).sum(), x)
torch.testing.assert_close(found, expected)
""")


def test_many_threads_at_once():
    run(f"""{FUNCTION}
from threading import Barrier, Thread
barrier, results = Barrier(8), []
def work():
    barrier.wait()
    results.append(functx.vmap(functx.grad(cube))(torch.tensor([1.0, 2.0])).tolist())
threads = [Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert results == [[3, 12]] * 8, results
""")


KEYS = [
    "DeferredInit",
    "TESTING_ONLY_GenericMode",
    "TESTING_ONLY_GenericWrapper",
    "PrivateUse2",
    "PrivateUse3",
    "AutogradPrivateUse3",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_taken(key):
    run(f"""
import torch
library = torch.library.Library("_", "IMPL", "{key}")
library.fallback(lambda *args, **kwargs: None)
try:
    import functx
except ImportError as error:
    assert "dispatch key {key} is taken" in str(error) and "in a process that" in str(error)
else:
    assert False
library._destroy()
import functx
assert functx.vmap(torch.neg)(torch.ones(2)).tolist() == [-1, -1]
""")


def test_a_backend_that_is_taken():
    run("""
import torch
library = torch.library.Library("aten", "IMPL", "PrivateUse3")
library.impl("sin", lambda x: x)
try:
    import functx
except ImportError as error:
    assert "PrivateUse3" in str(error) and "a kernel for aten::sin" in str(error), error
else:
    assert False
""")


def test_a_key_that_is_taken_later():
    run("""
import torch, functx
library = torch.library.Library("_", "IMPL", "DeferredInit")
library.fallback(lambda *args, **kwargs: None)
for _ in range(2):
    try:
        functx.vmap(torch.neg)(torch.ones(2))
    except RuntimeError as error:
        assert "dispatch key DeferredInit is taken" in str(error)
    else:
        assert False
library._destroy()
assert functx.vmap(torch.neg)(torch.ones(2)).tolist() == [-1, -1]
""")


BREAKS = """
import copy, sys, warnings
import torch, torch._dynamo
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
warnings.simplefilter("ignore")
if sys.argv[1] != "plain":
    import functx
if sys.argv[1] == "used":
    functx.vmap(functx.grad(torch.sin))(torch.zeros(2))

class Sine(torch.autograd.Function):
    forward = staticmethod(lambda ctx, x: x.sin())
    backward = staticmethod(lambda ctx, gradient: gradient)

def hooks(x):
    y = x + 1
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        y = y.sin() * y
    return y * 2

def gradient(x):
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad((x * x).sum(), x)[0] + 1

def backward(x):
    (x.sin() * x).sum().backward()
    return x + 1

programs = [
    hooks, gradient, backward,
    lambda x: x + x.detach().tolist()[0],
    lambda x: x + torch.from_numpy(x.detach().numpy()),
    lambda x: copy.deepcopy(x.detach()) + 1,
    lambda x: x.data + 1,
    lambda x: (repr(x), x + 1)[1],
    lambda x: (f"{x.sum()}", x + 1)[1],
    lambda x: Sine.apply(x) + 1,
    lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False) + 1,
    lambda x: torch.linspace(0, 1, 3) + x,
    lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)),
    lambda x: x.new_tensor([1.0]) + x[0],
]
for program in programs:
    torch._dynamo.reset()
    counters.clear()
    backend = CompileCounterWithBackend("eager")
    torch.compile(program, backend=backend)(torch.ones(3, requires_grad=True))
    print(backend.frame_count, backend.op_count, sum(counters["graph_break"].values()))
"""


@pytest.mark.slow
def test_compiled_code_breaks_no_more_often():
    plain, imported, used = (
        run(f"import sys; sys.argv = ['', '{state}']\n{BREAKS}").split("\n")
        for state in ("plain", "imported", "used")
    )
    assert imported == plain
    # Frames of ours are left out, where Dynamo would try those of PyTorch.
    for ours, theirs in zip(used, plain, strict=True):
        (*graphs, breaks), (*expected, allowed) = ours.split(), theirs.split()
        assert graphs == expected
        assert int(breaks) <= int(allowed)
