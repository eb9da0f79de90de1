"""Read a run's metrics.csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Series:
    """One metric over a run: `steps` (n,) and `values` (n,)."""

    steps: np.ndarray
    values: np.ndarray


def read_metrics(path: Path) -> dict[str, Series]:
    """Every metric of the file; rows that do not carry a metric are left out of its series.

    Of several values at one step the last counts: a training that goes on looks at the probe again.
    """
    rows = read_rows(path)
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    return {name: _series(rows, name) for name in names}


def read_rows(path: Path) -> list[dict[str, float]]:
    """The file's rows with what each carries; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(stream)
        ]


def _series(rows: list[dict[str, float]], name: str) -> Series:
    found = {int(row["step"]): row[name] for row in rows if name in row}
    return Series(np.array([*found], dtype=int), np.array([*found.values()], dtype=float))
