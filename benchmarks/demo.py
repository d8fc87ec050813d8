"""The demonstration, ``python -m benchmarks.demo``: runs the notebook, times it, draws a chart."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import matplotlib
import nbformat
import torch
from nbclient import NotebookClient

from . import seed_workloads
from .report import Report

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "jacobians_hessians.ipynb"
CHART = ROOT / "docs" / "images" / "jacobians.png"
SECONDS_PER_ROW = 0.5


def main() -> None:
    torch.set_num_threads(1)
    start = time.perf_counter()
    print(f"executing {NOTEBOOK.relative_to(ROOT)}: each result in it is asserted", flush=True)
    cells = execute(NOTEBOOK)
    print(f"{cells} code cells ran, every check holds ({time.perf_counter() - start:.0f} s)")
    (table,) = seed_workloads.run(SECONDS_PER_ROW)
    draw(table, CHART)
    print(f"\nwrote the chart of these timings: {CHART}")


def execute(notebook: Path) -> int:
    """Run a notebook in a scratch folder, leaving the file as it is; returns its code cells."""
    content = nbformat.read(notebook, as_version=4)
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    quiet = ["--log-level=ERROR"]
    with tempfile.TemporaryDirectory() as scratch:
        resources = {"metadata": {"path": scratch}}
        client = NotebookClient(content, timeout=300, resources=resources, extra_arguments=quiet)
        client.execute(env={**os.environ, "PYTHONPATH": search})
    return sum(cell.cell_type == "code" for cell in content.cells)


def draw(table: Report, path: Path) -> None:
    """A dot for each side of each workload on a logarithmic axis, and the ratio beside them."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = table.records[::-1]
    positions = range(len(rows))
    ours = [row["ours_us"] for row in rows]
    theirs = [row["theirs_us"] for row in rows]
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(rows) + 1.2), layout="constrained")
    axes.hlines(positions, ours, theirs, color="#cccccc", linewidth=4, zorder=1)
    axes.scatter(theirs, positions, s=55, color="#d55e00", label="torch.func", zorder=2)
    axes.scatter(ours, positions, s=55, color="#0072b2", label="functx", zorder=3)
    for at, row in zip(positions, rows, strict=True):
        slowest = max(row["ours_us"], row["theirs_us"])
        axes.text(slowest * 1.25, at, f"{row['ratio']:.1f}x", va="center", fontsize=9)
    axes.set_yticks(positions, [row["name"] for row in rows])
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel("µs per call on one CPU thread; beside it, how many times faster functx is")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
