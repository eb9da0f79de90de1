"""Plot of a run's trajectories: does the winner get better, and what does the safeguard do?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdpo_exp.reports.metrics_file import Series, read_metrics
from sdpo_exp.reports.run_title import run_title

_WINNER, _LOSER, _OTHER = "#2a9d5c", "#d1495b", "#4059ad"
_BAND = "applied, 10th to 90th percentile"
_TRAINED = ("train/loss", "pair/winner_minus_ref", "safeguard/lambda_mean")  # what is smoothed
_SAME = 0.005  # of the axis: lines nearer than this are one to the eye
_DASHED = (0, (2, 4))
_WINDOW = 20  # a running mean is over so many parts of the logged steps


def plot_trajectories(metrics_csv: Path, target: Path) -> None:
    """Write the four panels of a run as a PNG, under its title."""
    metrics = read_metrics(metrics_csv)
    figure = Figure(figsize=(10, 6.8), layout="constrained")
    title = figure.suptitle(run_title(metrics_csv.parent), fontsize=11, fontweight="bold")
    title.set_parse_math(False)
    axes = figure.subplots(2, 2)
    _errors(axes[0, 0], metrics)
    _accuracy(axes[0, 1], metrics)
    _lambda(axes[1, 0], metrics)
    _loss(axes[1, 1], metrics)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("optimiser step")
        _apart(axis)
        if len(axis.get_legend_handles_labels()[0]) > 1:  # one line is what the title says
            axis.legend(fontsize=8)
    figure.supxlabel(_smoothing(metrics), fontsize=8, color="#666666")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)


def _errors(axis: Axes, metrics: dict[str, Series]) -> None:
    axis.set_title("winner and loser drift (above 0: worse than before)", fontsize=10)
    axis.axhline(0.0, color="black", linewidth=0.8)
    for role, color in (("winner", _WINNER), ("loser", _LOSER)):
        _smooth(axis, metrics, f"pair/{role}_minus_ref", color, f"{role}, training")
        _dots(axis, metrics, f"probe/{role}_minus_ref", color, f"{role}, held-out probe")


def _accuracy(axis: Axes, metrics: dict[str, Series]) -> None:
    axis.set_title("implicit accuracy", fontsize=10)
    axis.axhline(0.5, color="black", linewidth=0.8)
    _smooth(axis, metrics, "pair/implicit_accuracy", _OTHER, "training")
    _dots(axis, metrics, "probe/implicit_accuracy", _OTHER, "held-out probe")
    axis.set_ylim(0.0, 1.02)


def _lambda(axis: Axes, metrics: dict[str, Series]) -> None:
    axis.set_title("safeguard: lambda", fontsize=10)
    _smooth(axis, metrics, "safeguard/lambda_mean", _OTHER, "applied, mean")
    rule = ("safeguard/lambda_would_be", "#222222", "by the recipe's rule, mean")
    _smooth(axis, metrics, *rule, faint=False)
    low, high = metrics.get("safeguard/lambda_p10"), metrics.get("safeguard/lambda_p90")
    if low is not None and high is not None and np.any(high.values > low.values):
        axis.fill_between(
            low.steps, low.values, high.values, color=_OTHER, alpha=0.15, lw=0, label=_BAND
        )
    axis.set_ylim(-0.02, 1.05)


def _loss(axis: Axes, metrics: dict[str, Series]) -> None:
    axis.set_title("training loss", fontsize=10)
    _smooth(axis, metrics, "train/loss", _OTHER, "loss")


def _smoothing(metrics: dict[str, Series]) -> str:
    """What bold lines are, in words."""
    widths = [_width(metrics[name]) for name in _TRAINED if name in metrics]
    widest, narrowest = max(widths, default=1), min(widths, default=1)
    if widest == 1:
        return "each logged step as it is, nothing is smoothed"
    mean = str(widest) if widest == narrowest else f"{narrowest} to {widest}"
    return f"bold: running mean of {mean} logged steps; faint: each of them"


def _apart(axis: Axes) -> None:
    """Dash a line that lies on an earlier one, so that both are seen."""
    low, high = axis.get_ylim()
    lines = [line for line in axis.get_lines() if not str(line.get_label()).startswith("_")]
    for i, line in enumerate(lines):
        for below in lines[:i]:
            ours, theirs = (np.asarray(one.get_xydata()) for one in (line, below))
            if ours.shape == theirs.shape and np.abs(ours - theirs).max() < _SAME * (high - low):
                line.set_linestyle(_DASHED)


def _width(series: Series) -> int:
    return max(1, len(series.values) // _WINDOW)


def _smooth(
    axis: Axes,
    metrics: dict[str, Series],
    name: str,
    color: str,
    label: str,
    *,
    faint: bool = True,
) -> None:
    """The raw values faintly, their running mean on top."""
    series = metrics.get(name)
    if series is None or not len(series.steps):
        return
    if faint:
        axis.plot(series.steps, series.values, color=color, alpha=0.2, linewidth=0.8)
    width = _width(series)
    kernel = np.ones(width) / width
    weight = np.convolve(np.ones(len(series.values)), kernel, mode="same")
    mean = np.convolve(series.values, kernel, mode="same") / weight
    axis.plot(series.steps, mean, color=color, linewidth=1.6, label=label)


def _dots(axis: Axes, metrics: dict[str, Series], name: str, color: str, label: str) -> None:
    series = metrics.get(name)
    if series is not None and len(series.steps):
        axis.plot(series.steps, series.values, "o--", color=color, markersize=5, label=label)
