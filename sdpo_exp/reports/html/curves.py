"""Trajectories as the page draws them: thinned, rounded, with the mean over a cell's seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdpo_exp.evaluation.statistics import estimate
from sdpo_exp.reports.html.cells import Cell
from sdpo_exp.reports.html.runs import Run
from sdpo_exp.reports.metrics_file import Series

_POINTS = 300  # of a curve
_ALL_POINTS = 250_000  # of all curves together, so that many runs stay quick to open
_FEWEST = 60
_BIN = re.compile(r"probe/t([0-9.eE+-]+)/winner_minus_ref")


@dataclass(frozen=True)
class Panel:
    """A quantity along the training: a row of small plots, one for each row of the grid.

    `neutral` is drawn as a line; `sparse` are visits, drawn as marks and never smoothed.
    """

    key: str
    title: str
    told: str
    neutral: float | None = None
    sparse: bool = False
    second: str | None = None


PANELS = (
    Panel(
        "probe/winner_minus_ref", "Winner drift, held-out probe",
        "Above 0: the preferred image got worse.", 0.0, sparse=True,
    ),
    Panel(
        "pair/winner_minus_ref", "Winner drift, training pairs",
        "The same on the pairs of each step; noisy, as every step draws new noise levels.", 0.0,
    ),
    Panel(
        "probe/margin", "Margin, held-out probe",
        "How far winner and loser were separated. It grows also when both get worse.", 0.0,
        sparse=True,
    ),
    Panel(
        "safeguard/lambda_mean", "Lambda, applied",
        "Weight of the loser's gradient. Dotted: what the rule would have given, where it was not "
        "applied.", 1.0, second="safeguard/lambda_would_be",
    ),
    Panel("train/loss", "Training loss", "Losses of different objectives do not compare."),
    Panel(
        "probe/implicit_accuracy", "Implicit accuracy, held-out probe",
        "Share of pairs that the policy orders as labelled.", 0.5, sparse=True,
    ),
    Panel(
        "pair/implicit_accuracy", "Implicit accuracy, training pairs",
        "The same on the pairs of each step.", 0.5,
    ),
    Panel(
        "audit/step_rose_so_far", "Audit: share of steps at which the winner rose",
        "Of the audited steps so far: those after which the step's own winners had a larger error.",
        0.0, sparse=True,
    ),
    Panel(
        "audit/winner_change", "Audit: change of the winner's error by a step",
        "Of the pairs of the audited step, same noise levels and noises. Above 0: it rose.", 0.0,
    ),
    Panel(
        "audit/predicted_winner_change", "Audit: the same, predicted to first order",
        "By the gradient at the weights before the step. Above 0: the promise does not hold to "
        "first order.", 0.0,
    ),
)  # fmt: skip


def panels_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """What there is of every panel: lines by run, and the mean of the runs that count."""
    drawn = [(panel, cell) for panel in PANELS for cell in cells if _has(cell, panel.key)]
    lines = sum(len(cell.runs) + 1 for _, cell in drawn)
    points = int(min(_POINTS, max(_FEWEST, _ALL_POINTS / max(lines, 1))))
    found = []
    for panel in PANELS:
        own = [_cell_curves(cell, panel, points) for of, cell in drawn if of is panel]
        if own:
            found.append(
                {
                    "key": panel.key, "title": panel.title, "told": panel.told,
                    "neutral": panel.neutral, "sparse": panel.sparse, "cells": own,
                }
            )  # fmt: skip
    return found


def _has(cell: Cell, name: str) -> bool:
    return any(name in run.series and len(run.series[name].steps) for run in cell.runs)


def _cell_curves(cell: Cell, panel: Panel, points: int) -> dict[str, Any]:
    runs = [
        {"seed": str(run.seed), "status": run.status, **_curve(run.series[panel.key], points)}
        for run in cell.runs
        if panel.key in run.series and len(run.series[panel.key].steps)
    ]
    found: dict[str, Any] = {"cell": cell.key, "runs": runs}
    if mean := _mean(cell.counted, panel.key):
        found["mean"] = _curve(mean, points)
    if panel.second and cell.safeguard != "on" and (second := _mean(cell.counted, panel.second)):
        found["second"] = _curve(second, points)
    return found


def _mean(runs: Sequence[Run], name: str) -> Series | None:
    """Over runs, at the steps that all of them have: a run that ended early ends the mean."""
    own = [run.series[name] for run in runs if name in run.series and len(run.series[name].steps)]
    if not own:
        return None
    steps = own[0].steps
    for series in own[1:]:
        steps = np.intersect1d(steps, series.steps)
    if not len(steps):
        return None
    values = [dict(zip(s.steps.tolist(), s.values, strict=True)) for s in own]
    return Series(steps, np.array([np.mean([v[k] for v in values]) for k in steps.tolist()]))


def thin(series: Series, points: int) -> Series:
    """At most `points` of them: means of as many neighbours as it takes, at their mean step."""
    width = math.ceil(len(series.steps) / points)
    if width <= 1:
        return series
    starts = np.arange(0, len(series.steps), width)
    sizes = np.diff([*starts, len(series.steps)])
    steps = np.add.reduceat(series.steps, starts) / sizes
    values = np.add.reduceat(series.values, starts) / sizes
    return Series(np.rint(steps).astype(int), values)


def _curve(series: Series, points: int) -> dict[str, Any]:
    """Steps as start, stride and count where they are even, which most are."""
    thinned = thin(series, points)
    steps = thinned.steps.tolist()
    gaps = set(np.diff(thinned.steps).tolist())
    x: Any = [steps[0], gaps.pop()] if len(gaps) == 1 else steps
    return {"even": len(steps) > 1 and x is not steps, "x": x, "y": _rounded(thinned.values)}


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def bins_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Winner drift at every noise level of the probe, last visit: mean and interval over seeds."""
    found = []
    for cell in cells:
        names = {name for run in cell.counted for name in run.numbers if _BIN.fullmatch(name)}
        times = sorted((float(_BIN.fullmatch(name)[1]), name) for name in names)  # type: ignore[index]
        if times:
            found.append({"cell": cell.key, "bins": [_bin(cell, *one) for one in times]})
    return found


def _bin(cell: Cell, time: float, name: str) -> dict[str, Any]:
    values = [run.numbers[name] for run in cell.counted if name in run.numbers]
    mean, _, low, high = estimate(values)
    ends = [low, high] if math.isfinite(low) else None
    return {"t": time, "mean": mean, "ends": ends, "n": len(values)}
