"""A plot of what a run logged, whether that is everything or little."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from sdpo_exp.reports.metrics_file import read_metrics
from sdpo_exp.reports.summary import format_summary, write_summary
from sdpo_exp.reports.trajectories import plot_trajectories

FULL = "pair/winner_minus_ref,probe/winner_minus_ref,safeguard/lambda_mean,step,train/loss\n"
ROWS = ",0.0,,0,\n0.1,,0.5,1,0.7\n0.3,0.2,0.25,2,0.6\n"


@pytest.mark.parametrize("text", [FULL + ROWS, "step,train/loss\n1,0.7\n", "step\n"])
def test_it_draws_what_there_is_without_a_warning(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plot_trajectories(tmp_path / "metrics.csv", tmp_path / "plots" / "t.png")
    assert (tmp_path / "plots" / "t.png").stat().st_size > 5_000


def test_sparse_rows_become_series(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(FULL + ROWS)
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert metrics["pair/winner_minus_ref"].steps.tolist() == [1, 2]
    assert metrics["probe/winner_minus_ref"].values.tolist() == [0.0, 0.2]


def test_the_summary_has_first_and_last_probe_and_the_tail_of_training(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(FULL + ROWS)
    summary = write_summary(tmp_path, status="finished", seconds=1.0)
    assert summary["probe"]["probe/winner_minus_ref"] == {"first": 0.0, "last": 0.2}
    assert summary["train"]["pair/winner_minus_ref"] == 0.3  # the last fifth: step 2 alone
    assert summary["steps"] == 2


@pytest.mark.parametrize(
    ("active", "words"),
    [((0, 0.5, 0, 1), "; it was 1 in 2 of 4 steps"), ((0, 0, 0, 0), "; it was 1 in 4 of 4 steps")],
)
def test_the_summary_says_in_how_many_steps_nothing_was_held_back(
    tmp_path: Path, active: tuple[float, ...], words: str
) -> None:
    rows = "".join(f"{value},0.5,{step}\n" for step, value in enumerate(active, start=1))
    (tmp_path / "metrics.csv").write_text(
        "safeguard/lambda_active,safeguard/lambda_mean,step\n" + rows
    )
    summary = write_summary(tmp_path, status="finished", seconds=1.0)
    assert words in format_summary(summary)
    assert words in (tmp_path / "summary.md").read_text()


def test_of_two_visits_of_one_step_the_last_counts(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("probe/margin,step\n0.0,0\n0.1,2\n0.1,2\n0.3,4\n")
    series = read_metrics(tmp_path / "metrics.csv")["probe/margin"]
    assert (series.steps.tolist(), series.values.tolist()) == ([0, 2, 4], [0.0, 0.1, 0.3])


def test_a_plot_says_whose_it_is_what_is_smoothed_and_hides_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda self, *_, **__: drawn.append(self)
    )
    folder = tmp_path / "tiny-dpo-on-0123abcd" / "time"
    folder.mkdir(parents=True)
    names = "step,train/loss,safeguard/lambda_mean,safeguard/lambda_would_be"
    rows = [f"{step},{1 / step},0.2,0.2" for step in range(1, 61)]
    (folder / "metrics.csv").write_text("\n".join([names, *rows]) + "\n")
    words = ["lr=1e-3", "lr=$2^x$", "evaluation.n=8", "data.num_workers=3", "objective=dpo"]
    told = {"model": "tiny", "objective": "dpo", "safeguard": "on", "seed": 0, "overrides": words}
    (folder / "run.json").write_text(json.dumps(told))
    plot_trajectories(folder / "metrics.csv", tmp_path / "plot.png")
    (figure,) = drawn
    assert figure.get_suptitle() == "tiny dpo, safeguard on, seed 0, lr=$2^x$"
    figure.draw_without_rendering()  # nothing of a title is a formula
    assert figure.get_supxlabel() == "bold: running mean of 3 logged steps; faint: each of them"
    factor, loss = figure.axes[2:]
    assert loss.get_legend() is None  # one line needs none
    labels = [text.get_text() for text in factor.get_legend().get_texts()]
    assert labels == ["applied, mean", "by the recipe's rule, mean"]
    assert [line.get_linestyle() for line in factor.lines[-2:]] == [
        "-",
        "--",
    ]  # of two equal lines the upper one is dashed


def test_a_short_run_says_that_nothing_is_smoothed_and_other_lines_stay_solid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda self, *_, **__: drawn.append(self)
    )
    rows = ["step,safeguard/lambda_mean,safeguard/lambda_would_be", "1,1.0,0.2", "2,1.0,0.3"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    plot_trajectories(tmp_path / "metrics.csv", tmp_path / "plot.png")
    (figure,) = drawn
    assert figure.get_suptitle() == tmp_path.name  # no run.json
    assert figure.get_supxlabel() == "each logged step as it is, nothing is smoothed"
    assert [line.get_linestyle() for line in figure.axes[2].lines[-2:]] == ["-", "-"]
