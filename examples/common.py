"""What the examples share: a command line, the digits, and how results are shown."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")


def command_line(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--api", default="functx", help="where the transforms come from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="save a plot there")
    return parser


@contextmanager
def double_precision() -> Iterator[None]:
    """Rounding stays far below what is printed: runs with two APIs can be compared."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def transforms(options: argparse.Namespace) -> Iterator[ModuleType]:
    """The module named by `--api`, for a seeded run in double precision, on one thread.

    The models are so small that threads would mostly wait for each other.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    try:
        with double_precision():
            yield importlib.import_module(options.api)
    finally:
        torch.set_num_threads(threads)


def digits(training: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """So many 8x8 images of scikit-learn's and their labels to train on; all others to test on.

    The images are (1, 8, 8), between 0 and 1. They are shuffled the same way every time.
    """
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(data.images).to(torch.get_default_dtype())[order, None] / 16
    labels = torch.from_numpy(data.target)[order]
    return images[:training], labels[:training], images[training:], labels[training:]


def progress(steps: Iterable[T], title: str) -> Iterable[T]:
    """A progress bar, where someone is looking at the terminal."""
    return tqdm(steps, desc=title, disable=None, leave=False)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(-1) == labels).double().mean().item()


def show(numbers: Mapping[str, float]) -> None:
    width = max(map(len, numbers))
    for name, value in numbers.items():
        print(f"{name:{width}}  {value:.6g}")


def save_plot(path: Path, draw: Callable[[Figure], None], width: float = 9) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.6), layout="constrained")
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print("wrote", path)
