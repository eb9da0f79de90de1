"""Forest plot of a comparison: what each metric says of each model, and how surely."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from sdpo_exp.evaluation.outcomes import MetricAverage, ModelComparison
from sdpo_exp.evaluation.statistics import Interval

# Okabe and Ito's colours that are dark enough on white; the marks differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#000000")
_MARKS = ("o", "s", "D", "^", "v", "P", "X")
_LONGEST = 26  # letters of a name
_ALPHA = 0.05
_KEY = f"Lines: 95 % intervals. Filled: Holm p < {_ALPHA}; open: not"


def plot_comparison(
    path: Path,
    rows: Sequence[ModelComparison],
    averages: Sequence[MetricAverage] = (),
    *,
    base: str = "base",
) -> None:
    """Write a PNG: a row of panels per metric, in each panel a line per model.

    Left the mean difference from the base on the metric's own scale, right the win rate. Lines are
    95 % intervals; a mark is filled where Holm's p is below 0.05.

    Args:
        path: of the PNG.
        rows: as `compare_models` returns them, at least one.
        averages: over the metrics, for a last row of win rates.
        base: name of what the models are compared with.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    metrics = list(dict.fromkeys(row.metric for row in rows))
    count = len(metrics) + bool(averages)
    figure = Figure(
        figsize=(9.6, 1.0 + count * (0.62 + 0.24 * len(models))),
        layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08),
    )
    axes = figure.subplots(count, 2, squeeze=False)
    for (left, right), metric in zip(axes, metrics, strict=False):
        _metric(left, right, [row for row in rows if row.metric == metric], models)
    if averages:
        _average(axes[-1, 0], axes[-1, 1], averages, models)
    _finish(figure, axes[:, 0].tolist(), axes[:, 1].tolist(), base, bool(averages))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name may be in any script
        figure.savefig(path, dpi=150)


def _metric(left: Axes, right: Axes, rows: Sequence[ModelComparison], models: list[str]) -> None:
    for row in rows:
        place, filled = models.index(row.model), row.p_holm < _ALPHA
        _line(left, row.comparison.difference, place, filled)
        _line(right, row.comparison.win_rate, place, filled)
    for axis, neutral in ((left, 0.0), (right, 0.5)):
        _frame(axis, neutral, len(models))
    _text(left, rows[0].metric)
    _models(left, models)


def _average(left: Axes, right: Axes, averages: Sequence[MetricAverage], models: list[str]) -> None:
    for average in averages:
        _line(right, average.win_rate, models.index(average.model), None)
    _frame(right, 0.5, len(models))
    _text(right, f"mean of the {len(averages[0].metrics)} metrics")
    left.axis("off")
    left.set_ylim(right.get_ylim())
    for place, name in enumerate(models):  # in the empty panel, so that no column is widened
        left.text(1.0, place, _short(name), ha="right", va="center", fontsize=9, parse_math=False)


def _line(axis: Axes, found: Interval, place: int, filled: bool | None) -> None:
    """A mark and its interval; without `filled` the mark is a bar."""
    colour = _COLOURS[place % len(_COLOURS)]
    if math.isfinite(found.low) and math.isfinite(found.high):
        axis.plot([found.low, found.high], [place, place], color=colour, linewidth=1.8)
    mark = "|" if filled is None else _MARKS[place % len(_MARKS)]
    axis.plot(
        [found.value],
        [place],
        marker=mark,
        markersize=11 if filled is None else 6.5,
        markeredgewidth=1.8 if filled is None else 1.4,
        markeredgecolor=colour,
        markerfacecolor=colour if filled else "white",
        linestyle="none",
    )


def _frame(axis: Axes, neutral: float, count: int) -> None:
    axis.axvline(neutral, color="#777777", linewidth=1.0, linestyle=(0, (4, 2)), zorder=0)
    axis.set_ylim(count - 0.4, -0.6)  # the first model on top
    axis.set_yticks(range(count), [])
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.margins(x=0.06)


def _models(axis: Axes, models: Sequence[str]) -> None:
    axis.set_yticks(range(len(models)), [_short(name) for name in models], fontsize=9)
    for label in axis.get_yticklabels():
        label.set_parse_math(False)


def _text(axis: Axes, name: str) -> None:
    axis.set_title(_short(name), loc="left", fontsize=9.5, fontweight="bold", pad=4)
    axis.title.set_parse_math(False)
    axis._left_title.set_parse_math(False)  # type: ignore[attr-defined]


def _finish(
    figure: Figure, left: Sequence[Axes], right: Sequence[Axes], base: str, averages: bool
) -> None:
    """One scale for all win rates, what the columns are, and the key."""
    ends = [end for axis in right for end in axis.get_xlim()]
    for axis in right:
        axis.set_xlim(max(min(ends), -0.02), min(max(ends), 1.02))
    last = left[-2] if averages and len(left) > 1 else left[-1]
    last.set_xlabel("mean difference, each metric on its own scale", fontsize=9)
    right[-1].set_xlabel("win rate, ties half", fontsize=9)
    title = figure.suptitle(f"against {_short(base)}: above 0 and 0.5 is better", fontsize=11)
    title.set_parse_math(False)
    figure.supxlabel(_KEY + ("; bar: not tested." if averages else "."), fontsize=8.5)


def _short(name: str) -> str:
    """A name that leaves room for the lines; its ends tell more than its middle."""
    line = " ".join(name.split())
    half = (_LONGEST - 3) // 2
    return line if len(line) <= _LONGEST else f"{line[:half]}...{line[-half:]}"
