"""Figures of the study: what became of the winners, of the reward, and of six test prompts.

    python experiments/embedded_world/plots.py                 # runs in outputs/embedded_world
    python experiments/embedded_world/plots.py --data tiny --no-samples

Writes winner_trajectory_<data>.png, reward_<data>.png and samples_<data>.png next to this script.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from run import PAIR_SETS, judge
from table import CELLS, Run, change_over_seeds, label, read_runs

from sdpo_exp.evaluation.statistics import estimate
from sdpo_exp.reports.metrics_file import Series, read_metrics

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe and Ito's palette: told apart with every common colour vision.
COLOURS = {"off": "#D55E00", "on": "#0072B2", "sft": "#555555", "constant": "#CC79A7"}
FOLLOWED = ("sft", "dpo-off", "dpo-on")
PROMPTS, GUIDANCE = 6, 2.0
# Inches; at 100 pixels an inch a README shows the figures in full.
WIDTH = 9.0
Cells = dict[str, list[Run]]


def colour(cell: str) -> str:
    """By what is done to the loser's gradient."""
    return next(value for word, value in COLOURS.items() if word in cell.split("-"))


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean (n - width + 1,) of (n,) values, full windows only: ends would be noisier."""
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


def metric(runs: Sequence[Run], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,) and values (runs, n) of a metric, as far as all runs of a cell got."""
    series = [read_metrics(run.job.folder / "metrics.csv").get(name) for run in runs]
    there = [s for s in series if isinstance(s, Series) and len(s.steps)]
    shortest = min((len(s.steps) for s in there), default=0)
    if not shortest:
        return np.empty(0), np.empty((0, 0))
    return there[0].steps[:shortest], np.stack([s.values[:shortest] for s in there])


def follow(axis: Axes, cells: Cells, name: str, which: Sequence[str] = FOLLOWED) -> None:
    """Training metric of each cell: thin running means per seed, their mean, and probe dots."""
    for cell in (cell for cell in which if cells[cell]):
        steps, values = metric(cells[cell], f"pair/{name}")
        width = max(1, len(steps) // 10)
        smoothed = [smooth(seed, width) for seed in values]
        for seed in smoothed:
            axis.plot(smooth(steps, width), seed, color=colour(cell), linewidth=0.7, alpha=0.45)
        if smoothed:
            mean = np.mean(smoothed, axis=0)
            axis.plot(smooth(steps, width), mean, color=colour(cell), lw=2.2, label=label(cell))
        steps, values = metric(cells[cell], f"probe/{name}")
        if len(values):
            dots = values.mean(axis=0)
            axis.plot(steps, dots, "o", color=colour(cell), ms=7, markeredgecolor="white", zorder=3)


def plot_lambda(axis: Axes, cells: Cells) -> None:
    """Lambda of dpo on: mean, and 10th to 90th percentile of the steps nearby, all seeds."""
    steps, values = metric(cells["dpo-on"], "safeguard/lambda_mean")
    if not len(values):
        return
    half = max(1, len(steps) // 20)
    near = [values[:, max(0, i - half) : i + half + 1] for i in range(len(steps))]
    low, high = np.transpose([np.quantile(window, (0.1, 0.9)) for window in near])
    mean = [window.mean() for window in near]
    axis.fill_between(steps, low, high, color=colour("dpo-on"), alpha=0.2, linewidth=0)
    axis.plot(steps, mean, color=colour("dpo-on"), linewidth=2.2)


def plot_trajectories(cells: Cells, data: str) -> Figure:
    """Winners' error, once more without dpo off, whose scale hides the rest, and what goes on."""
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.8), sharex=True, constrained_layout=True)
    (winner, weight), (zoomed, accuracy) = axes
    figure.suptitle(f"Pair set {data}", fontsize=12)
    follow(winner, cells, "winner_minus_ref")
    winner.set_title("winner drift (above 0: worse)", fontsize=10)
    _legend(winner)
    follow(zoomed, cells, "winner_minus_ref", [cell for cell in FOLLOWED if cell != "dpo-off"])
    zoomed.set_title("the same without dpo off", fontsize=10)
    plot_lambda(weight, cells)
    weight.set_title("lambda of dpo on (band: 10 % to 90 % of steps)", fontsize=10)
    weight.set_ylim(0.0, None)
    follow(accuracy, cells, "implicit_accuracy")
    accuracy.set_title("implicit accuracy (chance: 0.5)", fontsize=10)
    for axis, level in ((winner, 0.0), (zoomed, 0.0), (accuracy, 0.5)):
        axis.axhline(level, color="black", linewidth=0.8)
    for axis in axes.flat:
        _tidy(axis)
    for axis in axes[1]:
        axis.set_xlabel("optimiser step", fontsize=9)
    return figure


def _legend(axis: Axes) -> None:
    handles, _ = axis.get_legend_handles_labels()
    thin = Line2D([], [], linewidth=0.7, color="#888888", label="one seed, running mean")
    dot = Line2D([], [], marker="o", linestyle="", color="#888888", label="held-out probe, mean")
    axis.legend(handles=[*handles, thin, dot], fontsize=8, frameon=False)


def plot_reward(cells: Cells, data: str) -> Figure:
    """Reward change per cell: interval over prompts, and a mark per seed below it."""
    there = [cell for cell in CELLS if cells[cell]]
    figure, axis = plt.subplots(figsize=(WIDTH, 1.6 + 0.42 * len(there)), constrained_layout=True)
    axis.axvline(0.0, color="black", linewidth=0.8)
    for row, cell in enumerate(there):
        e = estimate(change_over_seeds(cells[cell], "reward"))
        bar = [[e.mean - e.low], [e.high - e.mean]]
        axis.errorbar(e.mean, row, xerr=bar, fmt="o", color=colour(cell), capsize=3, ms=8, lw=2)
        seeds = [run.row["reward_change"] for run in cells[cell]]
        below = np.full(len(seeds), row + 0.28)
        axis.plot(seeds, below, "|", color=colour(cell), markersize=8, markeredgewidth=1.6)
    axis.set_yticks(range(len(there)), [f"{label(c)} ({len(cells[c])})" for c in there])
    axis.set_ylim(len(there) - 0.4, -0.6)
    prompts, base = (cells[there[0]][0].row[name] for name in ("prompts", "reward_base"))
    axis.set_xlabel(f"reward, tuned minus base ({base:.3f}), {prompts} test prompts", fontsize=9)
    what = "dot: mean with 95 % interval over prompts; strokes: training seeds (number of them)"
    axis.set_title(f"Pair set {data}\n{what}", fontsize=10)
    _tidy(axis)
    return figure


def _tidy(axis: Axes) -> None:
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)


def plot_samples(cells: Cells, data: str) -> Figure:
    """One row of images per model, seed 0 of each cell; the first prompts, not picked by looks."""
    models: dict[str, str | None] = {"base": None}
    for cell in FOLLOWED:
        models |= {label(cell): str(r.job.folder / "model") for r in cells[cell] if not r.job.seed}
    size = (WIDTH, 1.0 + 1.6 * len(models))
    figure, axes = plt.subplots(len(models), PROMPTS, figsize=size, squeeze=False)
    for row, (name, model) in zip(axes, models.items(), strict=True):
        scores = judge(model, GUIDANCE, PROMPTS)
        for axis, image, reward in zip(row, scores.images, scores.scores["reward"], strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_xlabel(f"{reward:.2f}", fontsize=9, labelpad=2)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=11)
    for axis, prompt in zip(axes[0], scores.prompts, strict=True):
        axis.set_title("\n".join(textwrap.wrap(prompt, 22)), fontsize=8)
    what = f"guidance {GUIDANCE:g}, training seed 0; below each image its reward"
    figure.suptitle(f"Pair set {data}: the first {PROMPTS} test prompts, {what}", fontsize=10)
    figure.tight_layout(rect=(0, 0, 1, 0.99), h_pad=0.9, w_pad=0.3)
    return figure


def main() -> None:
    """Write the figures of each pair set that has runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("outputs/embedded_world"))
    parser.add_argument("--data", nargs="+", choices=PAIR_SETS, default=list(PAIR_SETS))
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="of the judged images")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--no-samples", action="store_true", help="generate no images")
    options = parser.parse_args()
    runs = read_runs(options.root, options.guidance)
    plots: dict[str, Callable[[Cells, str], Figure]]
    plots = {"winner_trajectory": plot_trajectories, "reward": plot_reward, "samples": plot_samples}
    if options.no_samples:
        del plots["samples"]
    options.out.mkdir(parents=True, exist_ok=True)
    for data in options.data:
        chosen = [run for run in runs if run.job.data == data]
        cells = {cell: [run for run in chosen if run.job.cell == cell] for cell in CELLS}
        for name, plot in plots.items() if chosen else ():
            path = options.out / f"{name}_{data}.png"
            figure = plot(cells, data)
            figure.savefig(path, dpi=150)
            plt.close(figure)
            print(path)
    if not any(run.job.data in options.data for run in runs):
        sys.exit(f"no finished run of {', '.join(options.data)} below {options.root}")


if __name__ == "__main__":
    main()
