"""The forest plot: what is drawn, that nothing overlaps, and that odd names do no harm."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from sdpo_exp.evaluation.comparison import (
    ImageKey,
    Match,
    MetricAverage,
    ModelComparison,
    Score,
    average_metrics,
    compare_matches,
)
from sdpo_exp.reports.comparison_plot import plot_comparison

METRICS = {"pickscore": 0.01, "hpsv2": 0.01, "aesthetic": 0.5, "clip": 0.03, "imagereward": 1.0}
MODELS = ("diffusion-dpo", "dspo", "dmpo", "a model of a really very long name, seed 1")


def matched(
    models: tuple[str, ...] = MODELS, prompts: int = 60, metrics: int = 5
) -> tuple[list[ModelComparison], list[MetricAverage]]:
    """Models that are the better the later they come, by metrics of very different scales."""
    generator = np.random.default_rng(0)
    scales = dict(list(METRICS.items())[:metrics])

    def scores(effect: float) -> dict[str, list[Score]]:
        return {
            metric: [
                Score(ImageKey("set", prompt, 0), scale * generator.normal(effect))
                for prompt in range(prompts)
            ]
            for metric, scale in scales.items()
        }

    base = scores(0.0)
    found = [Match(model, base, scores(0.3 * place)) for place, model in enumerate(models)]
    averages = [average for match in found if (average := average_metrics(match, resamples=50))]
    return list(compare_matches(found, resamples=50)), averages


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What was drawn, kept."""
    kept: list[Figure] = []
    save = Figure.savefig

    def keep(drawn: Figure, *arguments: Any, **named: Any) -> None:
        kept.append(drawn)
        save(drawn, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def test_every_metric_has_its_row_and_every_model_its_lines(
    tmp_path: Path, figure: list[Figure]
) -> None:
    rows, averages = matched()
    plot_comparison(tmp_path / "new" / "plot.png", rows, averages, base="sd15")
    (drawn,) = figure
    axes = np.array(drawn.axes).reshape(6, 2)
    assert [axis.get_title(loc="left") for axis in axes[:5, 0]] == list(METRICS)
    assert axes[5, 1].get_title(loc="left") == "mean of the 5 metrics"
    for (left, right), metric in zip(axes, METRICS, strict=False):
        own = [row.comparison for row in rows if row.metric == metric]
        for axis, found in (
            (left, [row.difference for row in own]),
            (right, [row.win_rate for row in own]),
        ):
            # The neutral line, then an interval and a mark per model.
            lines = [list(map(float, line.get_xdata())) for line in axis.lines[:-1]]
            neutral = list(map(float, axis.lines[-1].get_xdata()))
            assert neutral == ([0.0, 0.0] if axis is left else [0.5, 0.5])
            assert lines == [x for f in found for x in ([f.low, f.high], [f.value])]
    assert len({axis.get_xlim() for axis in axes[:, 1]}) == 1


def test_a_mark_is_filled_where_holm_says_so(tmp_path: Path, figure: list[Figure]) -> None:
    rows, _ = matched(metrics=1)
    assert len({row.p_holm < 0.05 for row in rows}) == 2
    plot_comparison(tmp_path / "plot.png", rows)
    marks = figure[0].axes[0].lines[1:-1:2]
    for mark, row in zip(marks, rows, strict=True):
        assert (mark.get_markerfacecolor() != "white") == (row.p_holm < 0.05)
    assert len({mark.get_marker() for mark in marks}) == len(rows)


def visible_texts(drawn: Figure) -> Iterator[Text]:
    yield from drawn.texts
    for axis in drawn.axes:
        yield from axis.texts
        if axis.axison:
            low, high = axis.get_xlim()
            ticks = zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
            yield from (label for tick, label in ticks if low <= tick <= high)
            yield from axis.get_yticklabels()
            yield from (axis.xaxis.label, axis.title, axis._left_title)


def test_no_text_lies_on_another_or_outside(tmp_path: Path, figure: list[Figure]) -> None:
    plot_comparison(tmp_path / "plot.png", *matched(), base="sd15")
    (drawn,) = figure
    FigureCanvasAgg(drawn).draw()  # at its own resolution, not the file's
    boxes = [(t.get_text(), t.get_window_extent()) for t in visible_texts(drawn) if t.get_text()]
    assert len(boxes) > 60
    width, height = drawn.bbox.size
    for i, (name, box) in enumerate(boxes):
        assert min(box.x0, box.y0) >= 0, name
        assert (box.x1 <= width, box.y1 <= height) == (True, True), name
        for other, against in boxes[i + 1 :]:
            assert not box.overlaps(against), (name, other)


def test_the_file_has_content_and_grows_with_the_metrics(tmp_path: Path) -> None:
    for metrics in (1, 5):
        plot_comparison(tmp_path / f"{metrics}.png", *matched(metrics=metrics))
    one, five = (np.asarray(Image.open(tmp_path / f"{n}.png").convert("L")) for n in (1, 5))
    assert five.shape[0] > 2 * one.shape[0]
    assert all(0.01 < (image < 200).mean() < 0.3 for image in (one, five))


@pytest.mark.parametrize("name", ["$x_1$ | {", "漢字", "two\nlines", "\\frac"])
def test_odd_names_and_one_prompt_are_drawn(tmp_path: Path, name: str) -> None:
    rows, averages = matched(models=(name,), prompts=1, metrics=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_comparison(tmp_path / "plot.png", rows, averages, base=name)
    assert (tmp_path / "plot.png").stat().st_size > 5000
