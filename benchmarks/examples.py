"""Steps of the programs in `examples/`, in double precision as they run there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .report import Report
from .timing import Thunk
from .workload import Workload, report

NAME = "examples"
TITLE = "Steps of the example programs"
FOLDER = Path(__file__).resolve().parent.parent / "examples"


def load(name: str) -> ModuleType:
    """An example as a module: the folder holds scripts, which import their neighbour `common`."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)


def private_gradients(api: ModuleType) -> Thunk:
    example = load("dp_sgd")
    images, labels, *_ = load("common").digits(128)
    model = example.make_model()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    clip_and_sum = example.clipped_sum(api, model, 1.0)
    return lambda: clip_and_sum(parameters, images, labels)


def ensemble_gradients(api: ModuleType) -> Thunk:
    example = load("ensembling")
    images, labels, *_ = load("common").digits(example.TRAINING)
    predict, parameters = example.members(api, 16)
    batches = torch.randint(len(images), (16, 32))
    differentiate = example.gradients(api, predict)
    return lambda: differentiate(parameters, images[batches], labels[batches])


def tangent_kernel(way: str) -> Callable[[ModuleType], Thunk]:
    def build(api: ModuleType) -> Thunk:
        example = load("empirical_ntk")
        predict, parameters = example.make_network(api)
        images, *_ = load("common").digits(8)
        kernel = getattr(example, way)(api, predict)
        return lambda: kernel(parameters, images, images)

    return build


def meta_gradient(api: ModuleType) -> Thunk:
    example = load("maml_sinusoids")
    parameters, tasks = example.make_parameters(), example.draw_tasks(25)
    differentiate = api.grad_and_value(example.meta_loss(api, 0.01))
    return lambda: differentiate(parameters, tasks)


def potential_gradient(api: ModuleType) -> Thunk:
    example = load("lennard_jones")
    potential, parameters = example.make_potential(api)
    clusters = example.draw_clusters(api, 32)
    differentiate = api.grad_and_value(example.training_loss(api, potential))
    return lambda: differentiate(parameters, clusters)


def residual_gradient(laplacian: str) -> Callable[[ModuleType], Thunk]:
    def build(api: ModuleType) -> Thunk:
        example = load("poisson_pinn")
        field, parameters = example.make_field(api)
        points = torch.rand(128, 2)
        differentiate = api.grad_and_value(example.residual_loss(api, field, laplacian))
        return lambda: differentiate(parameters, points)

    return build


def influence(task: str) -> Callable[[ModuleType], Thunk]:
    def build(api: ModuleType) -> Thunk:
        example = load("influence")
        images, labels, *_ = load("common").digits(example.TRAINING)
        training = example.Training(api, images.flatten(1), labels, 0.01)
        weights, direction = 0.1 * torch.randn(2, 65, example.CLASSES)
        shares = torch.ones(len(images))
        calls = {
            "product": lambda: training.hessian_product(weights, shares, direction),
            "gradients": lambda: training.per_example(weights, training.features, labels),
        }
        return calls[task]

    return build


def workload(name: str, build: Callable[[ModuleType], Thunk]) -> Workload:
    """On the CPU: the examples don't know about devices."""

    def in_double(api: ModuleType, device: torch.device) -> Thunk:
        double_precision = load("common").double_precision
        with double_precision():
            run = build(api)

        def call() -> Any:
            with double_precision():
                return run()

        return call

    return Workload(name, in_double)


WORKLOADS = [
    workload("dp_sgd: clipped gradients of 128", private_gradients),
    workload("ensembling: gradients of 16 members", ensemble_gradients),
    workload("empirical_ntk: contraction, 8 x 8", tangent_kernel("by_contraction")),
    workload("empirical_ntk: NTK-vector products, 8 x 8", tangent_kernel("by_products")),
    workload("maml_sinusoids: gradient over 25 tasks", meta_gradient),
    workload("lennard_jones: gradient over 32 clusters", potential_gradient),
    workload("poisson_pinn: gradient, hessian", residual_gradient("hessian")),
    workload("poisson_pinn: gradient, jvp(grad)", residual_gradient("jvp")),
    workload("influence: Hessian-vector product", influence("product")),
    workload("influence: gradients of 500 examples", influence("gradients")),
]


def run(seconds: float) -> list[Report]:
    return [report(NAME, TITLE, WORKLOADS, seconds=seconds)]
