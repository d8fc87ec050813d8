"""A table that is printed row by row and can be saved as JSON and Markdown."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass
class Report:
    """The rows of one benchmark: ``rows`` as printed, ``records`` as saved in the JSON file."""

    name: str
    title: str
    columns: list[str]
    widths: list[int]
    rows: list[list[str]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def print_header(self) -> None:
        print(f"\n{self.title}", flush=True)
        self._print_row(self.columns)

    def add(self, cells: list[str], record: dict[str, Any], *, missed: bool = False) -> None:
        """Keep and print one row; ``missed`` says that it is worse than its target."""
        self.rows.append(cells)
        self.records.append(record)
        if missed:
            self.missed.append(cells[0])
        self._print_row(cells, note="  <- misses its target" if missed else "")

    def print_summary(self) -> None:
        count = len(self.rows)
        print(f"{count - len(self.missed)} of {count} reach their target", flush=True)

    def save(self, folder: Path = RESULTS) -> list[Path]:
        """Write ``<name>.json`` and ``<name>.md`` and return their paths."""
        folder.mkdir(exist_ok=True)
        where = environment()
        as_json, as_markdown = folder / f"{self.name}.json", folder / f"{self.name}.md"
        content = {"title": self.title, "environment": where, "rows": self.records}
        as_json.write_text(json.dumps(content, indent=2) + "\n")
        setup = ", ".join(f"{key} {value}" for key, value in where.items())
        as_markdown.write_text(f"# {self.title}\n\n{self.markdown()}\n\nMeasured with {setup}.\n")
        return [as_json, as_markdown]

    def markdown(self) -> str:
        rule = ["---", *("---:" for _ in self.columns[1:])]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in [self.columns, rule, *self.rows])

    def _print_row(self, cells: list[str], note: str = "") -> None:
        first, *others = cells
        texts = [first.ljust(self.widths[0])]
        texts += [cell.rjust(width) for cell, width in zip(others, self.widths[1:], strict=True)]
        print(" ".join(texts) + note, flush=True)


def environment() -> dict[str, str]:
    """What the figures depend on, for whoever reads a saved table."""
    where = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": _cpu_name(),
        "threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        where["gpu"] = torch.cuda.get_device_name()
    return where


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
