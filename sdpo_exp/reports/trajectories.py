"""Plot of a run's trajectories: does the winner get better, and what does the safeguard do?"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from sdpo_exp.reports.metrics_file import Series, read_metrics

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_WINNER, _LOSER, _OTHER = "#2a9d5c", "#d1495b", "#4059ad"


def plot_trajectories(metrics_csv: Path, target: Path) -> None:
    """Write the four panels of a run as a PNG."""
    metrics = read_metrics(metrics_csv)
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), constrained_layout=True)
    _errors(axes[0, 0], metrics)
    _accuracy(axes[0, 1], metrics)
    _lambda(axes[1, 0], metrics)
    _loss(axes[1, 1], metrics)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("optimiser step")
        if axis.get_legend_handles_labels()[0]:  # a run may log less than this plot can show
            axis.legend(fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    plt.close(figure)


def _errors(axis: Axes, metrics: dict[str, Series]) -> None:
    axis.set_title("error minus reference (above 0: worse than before)", fontsize=10)
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
    _smooth(axis, metrics, "safeguard/lambda_would_be", "#999999", "by the recipe's rule, mean")
    _smooth(axis, metrics, "safeguard/lambda_mean", _OTHER, "applied, mean")
    low, high = metrics.get("safeguard/lambda_p10"), metrics.get("safeguard/lambda_p90")
    if low is not None and high is not None and len(low.steps):
        axis.fill_between(low.steps, low.values, high.values, color=_OTHER, alpha=0.15, lw=0)
    axis.set_ylim(-0.02, 1.05)


def _loss(axis: Axes, metrics: dict[str, Series]) -> None:
    axis.set_title("training loss", fontsize=10)
    _smooth(axis, metrics, "train/loss", _OTHER, "loss")


def _smooth(axis: Axes, metrics: dict[str, Series], name: str, color: str, label: str) -> None:
    """The raw values faintly, their running mean on top."""
    series = metrics.get(name)
    if series is None or not len(series.steps):
        return
    axis.plot(series.steps, series.values, color=color, alpha=0.2, linewidth=0.8)
    width = max(1, len(series.values) // 20)
    kernel = np.ones(width) / width
    weight = np.convolve(np.ones(len(series.values)), kernel, mode="same")
    mean = np.convolve(series.values, kernel, mode="same") / weight
    axis.plot(series.steps, mean, color=color, linewidth=1.6, label=label)


def _dots(axis: Axes, metrics: dict[str, Series], name: str, color: str, label: str) -> None:
    series = metrics.get(name)
    if series is not None and len(series.steps):
        axis.plot(series.steps, series.values, "o--", color=color, markersize=5, label=label)
