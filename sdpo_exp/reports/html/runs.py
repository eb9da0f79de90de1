"""One run as a page shows it; what is broken or absent is named, never raised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from sdpo_exp.reports.audit import PREFIX
from sdpo_exp.reports.html.files import Scores, attempt, read_scores, read_series
from sdpo_exp.reports.metrics_file import Series
from sdpo_exp.reports.run_records import RunRecord, metrics_of

_TAIL = 0.2
FINISHED = "finished"


@dataclass(frozen=True, eq=False)
class Run:
    """What a run's files say.

    Attributes:
        record: the files' own words.
        status, reason, seed, name, model, objective, safeguard: as in the record; "?" and None
            where nobody knows.
        started: ISO 8601 with seconds, or empty.
        config: resolved; empty where `config.yaml` is missing or broken.
        numbers: as `run_records.metrics_of`; of an unfinished run, what it had reached.
        series: of `metrics.csv`, by metric.
        scores: of `scores.csv`.
        warnings: its own.
        missing: what it does not have and a finished run usually has, in words.
    """

    record: RunRecord
    status: str
    reason: str
    seed: int | None
    name: str
    model: str
    objective: str
    safeguard: str
    started: str
    config: Mapping[str, Any]
    numbers: Mapping[str, float]
    series: Mapping[str, Series]
    scores: Scores
    warnings: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.record.folder

    @property
    def label(self) -> str:
        """`<cell>/<time>`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def finished(self) -> bool:
        """Whether its numbers are those of a whole run."""
        return self.status == FINISHED

    @property
    def steps(self) -> int:
        """Optimiser steps that it has logged."""
        return max((int(s.steps[-1]) for s in self.series.values() if len(s.steps)), default=0)

    @property
    def environment(self) -> Mapping[str, Any]:
        """`environment.json`; empty where it is missing or broken."""
        nothing: dict[str, Any] = {}
        return attempt(lambda: dict(self.record.environment), nothing)

    @property
    def command(self) -> str:
        """What trains it again, or empty."""
        return attempt(lambda: self.record.command or "", "")


def view_of(record: RunRecord) -> Run:
    """The run of a record, in whatever state its folder is."""
    nothing: dict[str, Any] = {}
    series = read_series(record.folder / "metrics.csv")
    scores = read_scores(record.folder / "scores.csv")
    config = attempt(lambda: dict(record.config), nothing)
    numbers = _numbers(record, series, scores)
    return Run(
        record=record,
        status=attempt(lambda: record.status, "unknown"),
        reason=attempt(lambda: record.reason, ""),
        seed=attempt(lambda: record.seed, None),
        name=attempt(lambda: record.name, "?"),
        model=attempt(lambda: record.model, "?"),
        objective=attempt(lambda: record.objective, "?"),
        safeguard=attempt(lambda: record.safeguard, "?"),
        started=attempt(lambda: _started(record), ""),
        config=config,
        numbers=numbers,
        series=series,
        scores=scores,
        warnings=tuple(attempt(lambda: record.warnings, [])),
        missing=tuple(_missing(record, config, numbers, series, scores)),
    )


def _started(record: RunRecord) -> str:
    return datetime.fromtimestamp(record.started_at).isoformat(timespec="seconds")


def _numbers(record: RunRecord, series: Mapping[str, Series], scores: Scores) -> dict[str, float]:
    """The summary's numbers; where there is none, the same means of what was logged so far."""
    nothing: dict[str, float] = {}
    told = attempt(lambda: metrics_of(record.summary), nothing)
    last = max((int(s.steps[-1]) for s in series.values() if len(s.steps)), default=0)
    so_far = {name: _so_far(name, one, last) for name, one in series.items() if len(one.steps)}
    found = {**so_far, **_changes(scores), **told}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _so_far(name: str, series: Series, last: int) -> float:
    if name.startswith(("probe/", "eval/")):
        return float(series.values[-1])
    if name.startswith(PREFIX):
        return float(np.mean(series.values))
    tail = series.values[series.steps > last * (1 - _TAIL)]
    return float(np.mean(tail if len(tail) else series.values[-1:]))


def _changes(scores: Scores) -> dict[str, float]:
    found = {}
    for metric in scores.metrics:
        if images := scores.common(metric):
            base, tuned = scores.base[metric], scores.tuned[metric]
            found[f"eval/{metric}"] = float(np.mean([tuned[i] for i in images]))
            found[f"eval/{metric}_change"] = float(np.mean([tuned[i] - base[i] for i in images]))
    return found


def _missing(
    record: RunRecord,
    config: Mapping[str, Any],
    numbers: Mapping[str, float],
    series: Mapping[str, Series],
    scores: Scores,
) -> list[str]:
    # Pictures may be drawn without being scored.
    pictures = bool(scores.tuned) or (record.folder / "samples" / "tuned").is_dir()
    told = {
        "configuration (config.yaml)": bool(config),
        "trajectories (metrics.csv)": any(len(s.steps) for s in series.values()),
        "held-out probe": "probe/winner_minus_ref" in numbers,
        "evaluated images (scores.csv)": pictures,
    }
    return [what for what, there in told.items() if not there]
