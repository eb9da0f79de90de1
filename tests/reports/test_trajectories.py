"""A plot of what a run logged, whether that is everything or little."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from sdpo_exp.reports.metrics_file import read_metrics
from sdpo_exp.reports.summary import write_summary
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
