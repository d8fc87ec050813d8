"""The programs in `examples/`: each reaches its goal and agrees with its torch.func run."""

import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import functx
from functx import dropin

FOLDER = Path(__file__).resolve().parent.parent / "examples"

SHORT = {
    "dp_sgd": ["--steps=10"],
    "ensembling": ["--steps=20", "--members=4"],
    "empirical_ntk": ["--pairs=6", "--training=20", "--test=20"],
    "maml_sinusoids": ["--steps=20"],
    "lennard_jones": ["--steps=20", "--clusters=40"],
    "poisson_pinn": ["--steps=20"],
    "influence": ["--ridge=0.1", "--retrained=3"],
}
APIS = ["functx", "torch.func"]

# What a run with the defaults has to reach.
GOALS = {
    "dp_sgd": lambda n: n["test accuracy"] >= 0.9 and n["epsilon"] <= 4,
    "ensembling": lambda n: (
        n["ensemble's accuracy"] > n["best member's accuracy"]
        and n["ensemble's accuracy"] >= n["mean member's accuracy"] + 0.02
        and n["ensemble's test loss"] < n["mean member's test loss"]
    ),
    "empirical_ntk": lambda n: (
        n["difference of the two ways"] < 1e-12 and n["accuracy of kernel regression"] >= 0.85
    ),
    "maml_sinusoids": lambda n: n["loss on new tasks"] < 0.2 * n["loss on new tasks, untrained"],
    "lennard_jones": lambda n: (
        n["largest error of grad's forces"] < 1e-10
        and n["relative error of forces"] < 0.01
        and n["relative error of energies"] < 0.01
        and n["largest sum of forces"] < 1e-10
    ),
    "poisson_pinn": lambda n: n["relative L2 error"] < 0.005,
    "influence": lambda n: n["rank correlation"] > 0.98,
}


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Where a script finds its neighbour `common`, as when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))


def load(name):
    return importlib.import_module(name)


def both(name, arguments):
    """The numbers of a run with each API; they have to agree."""
    main = load(name).main
    ours, theirs = (main([*arguments, f"--api={api}"]) for api in APIS)
    assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    return ours


def test_every_script_is_tested():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"common"}
    assert scripts == set(SHORT) == set(GOALS)


@pytest.mark.parametrize("name", SHORT)
def test_a_short_run_agrees_and_plots(name, tmp_path):
    plot = tmp_path / "plots" / "plot.png"
    both(name, SHORT[name])
    load(name).main([*SHORT[name], f"--plot={plot}"])
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", GOALS)
def test_the_promised_result(name):
    numbers = both(name, [])
    assert GOALS[name](numbers), numbers


@pytest.mark.parametrize("name", SHORT)
def test_under_the_dropin_torch_func_is_functx(name):
    main = load(name).main
    with dropin.installed():
        numbers = main([*SHORT[name], "--api=torch.func"])
    assert_close(numbers, main(SHORT[name]), rtol=1e-12, atol=1e-14)


def test_a_run_leaves_no_setting_behind():
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    load("poisson_pinn").main(["--steps=1"])
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (dtype, threads)


@pytest.mark.slow
def test_as_a_script():
    paths = filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")])
    done = subprocess.run(
        [sys.executable, FOLDER / "poisson_pinn.py", "--steps=2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "relative L2 error" in done.stdout
    assert done.stderr == ""


def test_the_laplacians_agree():
    by_hessian, by_jvp = (
        both("poisson_pinn", ["--steps=20", f"--laplacian={way}"]) for way in ("hessian", "jvp")
    )
    assert_close(by_hessian, by_jvp, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("rate", "noise"), [(0.09, 2.0), (0.01, 1.0), (0.5, 1.3)])
@pytest.mark.parametrize("order", [2, 7, 20])
def test_renyi_divergence_by_numerical_integration(rate, noise, order):
    """E[(mixture / normal)^order] over the normal, with densities summed on a fine grid."""
    z = torch.linspace(-60, 60, 600_001, dtype=torch.float64)
    normal, shifted = -(z**2) / (2 * noise**2), -((z - 1) ** 2) / (2 * noise**2)
    mixture = torch.logaddexp(math.log1p(-rate) + normal, math.log(rate) + shifted)
    log_moment = (order * mixture - (order - 1) * normal).logsumexp(0) - normal.logsumexp(0)
    actual = load("dp_sgd").renyi_divergence(rate, noise, order)
    assert actual == pytest.approx(log_moment.item() / (order - 1), rel=1e-8)


def test_renyi_divergence_without_subsampling():
    """At rate 1 an order costs order / (2 noise^2) in each step."""
    actual = load("dp_sgd").renyi_divergence(1 - 1e-15, 3.0, 8)
    assert actual == pytest.approx(8 / 18)


def test_tangent_kernel_by_plain_autograd():
    example = load("empirical_ntk")
    with load("common").double_precision():
        predict, parameters = example.make_network(functx)
        images, *_ = load("common").digits(3)
        kernel = example.by_contraction(functx, predict)(parameters, images, images)
    leaves = {name: value.requires_grad_() for name, value in parameters.items()}
    rows = []
    for image in images:
        outputs = predict(leaves, image)
        for output in outputs:
            slopes = torch.autograd.grad(output, leaves.values(), retain_graph=True)
            rows.append(torch.cat([slope.flatten() for slope in slopes]))
    jacobian = torch.stack(rows)
    assert_close(example.as_matrix(kernel), jacobian @ jacobian.T)


def test_hessian_products_and_conjugate_gradients_of_influence():
    example = load("influence")
    torch.manual_seed(0)
    features = torch.randn(30, 4, dtype=torch.float64)
    labels = torch.randint(example.CLASSES, (30,))
    training = example.Training(functx, features, labels, ridge=0.1)
    weights, vector = torch.randn(2, 5, example.CLASSES, dtype=torch.float64)
    shares = torch.ones(30, dtype=torch.float64)

    def plain_objective(weights):
        scores = features @ weights[:-1] + weights[-1]
        return torch.nn.functional.cross_entropy(scores, labels) + 0.05 * (weights**2).sum()

    dense = torch.autograd.functional.hessian(plain_objective, weights).reshape(50, 50)
    product = training.hessian_product(weights, shares, vector)
    assert_close(product.flatten(), dense @ vector.flatten())
    solved = training.inverse_hessian_product(weights, shares, vector)
    assert_close(solved.flatten(), torch.linalg.solve(dense, vector.flatten()))
