"""A run's tables, read as far as they are whole: runs are looked at while they write."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from sdpo_exp.reports.metrics_file import Series

_T = TypeVar("_T")
_BROKEN = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, csv.Error)


@dataclass(frozen=True)
class Scores:
    """`scores.csv`: by metric and the image's index, of base and tuned; prompts by index."""

    prompts: dict[int, str] = field(default_factory=dict)
    base: dict[str, dict[int, float]] = field(default_factory=dict)
    tuned: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """In the order of the file."""
        return list(self.tuned)

    def common(self, metric: str) -> list[int]:
        """Images that the metric judged of both models."""
        return sorted(self.base.get(metric, {}).keys() & self.tuned.get(metric, {}).keys())


def attempt(call: Callable[[], _T], default: _T) -> _T:
    """What the call returns, or the default where a file does not hold what it should."""
    try:
        return call()
    except _BROKEN:
        return default


def read_series(path: Path) -> dict[str, Series]:
    """Every metric of `metrics.csv`; broken rows and what is no finite number are left out."""
    header, rows = _rows(path)
    if "step" not in header:
        return {}
    place = header.index("step")
    rows = [row for row in rows if row[place].isdigit()]
    steps = np.array([int(row[place]) for row in rows], dtype=int)
    columns = zip(header, zip(*rows, strict=True), strict=True) if rows else ()
    return {name: _series(steps, column) for name, column in columns if name != "step"}


def _series(steps: np.ndarray, column: Sequence[str]) -> Series:
    values = np.array([_number(cell) for cell in column])
    kept = np.isfinite(values)
    return Series(steps[kept], values[kept])


def read_scores(path: Path) -> Scores:
    """The whole rows of `scores.csv`."""
    header, rows = _rows(path)
    found = Scores()
    if header[:3] != ["model", "index", "prompt"]:
        return found
    for model, index, prompt, *cells in rows:
        if model not in ("base", "tuned") or not index.isdigit():
            continue
        found.prompts[int(index)] = prompt
        table = found.base if model == "base" else found.tuned
        for name, cell in zip(header[3:], cells, strict=True):
            own = table.setdefault(name, {})
            if math.isfinite(value := _number(cell)):
                own[int(index)] = value
    return found


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header, and the rows as long as it: the last may be half written."""

    def read() -> list[list[str]]:
        with path.open(newline="", encoding="utf-8", errors="replace") as stream:
            return list(csv.reader(stream))

    nothing: list[list[str]] = []
    header, *rows = attempt(read, nothing) or [[]]
    return header, [row for row in rows if len(row) == len(header)]


def _number(cell: str) -> float:
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        return math.nan
