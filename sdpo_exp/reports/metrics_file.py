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
    """Every metric of the file; rows that do not carry a metric are left out of its series."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in (rows[0] if rows else {}) if name != "step"]
    return {name: _series(rows, name) for name in names}


def _series(rows: list[dict[str, str]], name: str) -> Series:
    pairs = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return Series(np.array(steps, dtype=int), np.array(values, dtype=float))
