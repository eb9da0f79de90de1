"""Runs that end early are finished, say why, and go on exactly where they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo_exp.config.composition import compose_cell
from sdpo_exp.config.model_steps import timesteps_beyond
from tests.cli.command import metric_rows, run

WORDS = (
    *("max_steps=5", "schedule=cosine", "warmup_steps=1", "timesteps.max=600", "evaluation=off"),
    *("callbacks.probe.pairs=4", "callbacks.probe.times=[0.5]", "callbacks.probe.every_n_steps=1"),
)


def ok(folder: Path, *arguments: str) -> str:
    done = run(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ended(folder: Path) -> str | None:
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    reason: str | None = summary["ended_early"]
    assert reason is None or reason in (folder / "summary.md").read_text().splitlines()[2]
    return reason


@pytest.mark.slow
def test_a_run_that_ended_early_goes_on_as_the_whole_one(tmp_path: Path) -> None:
    said = ok(tmp_path, *WORDS, "run_dir=whole")
    assert "cosine schedule down to 0 at step 5, timesteps from 0 to 599" in said
    assert ended(tmp_path / "whole") is None
    ok(tmp_path, *WORDS, "max_time=0.001s", "run_dir=timed")
    assert ended(tmp_path / "timed") == "max_time=0.001s was over"
    ok(tmp_path, "resume=timed", "max_time=null", "run_dir=again")
    assert ended(tmp_path / "again") is None
    # The probe looks again where a training goes on.
    whole, again = (
        [row for row in metric_rows(tmp_path / name) if row["train/loss"]]
        for name in ("whole", "again")
    )
    assert whole == again
    longer = run(tmp_path, "resume=timed", "max_time=null", "max_steps=6", "run_dir=longer")
    assert "max_steps: 5 -> 6" in longer.stderr
    assert not (tmp_path / "longer").exists()


@pytest.mark.slow
def test_a_training_that_grows_no_better_ends(tmp_path: Path) -> None:
    stopping = ("patience=2", "min_delta=9", "monitor=probe/winner_minus_ref")
    words = [f"callbacks.early_stopping.{word}" for word in stopping]
    ok(tmp_path, *WORDS, "callbacks=[early_stopping,default]", *words, "run_dir=early")
    reason = ended(tmp_path / "early")
    assert reason is not None
    assert "winner drift (probe/winner_minus_ref) grew no better for 2 visits" in reason
    steps = [row["step"] for row in metric_rows(tmp_path / "early") if row["probe/margin"]]
    assert steps == ["0", "1", "2"]
    assert (tmp_path / "early" / "checkpoints" / "last.ckpt").is_file()


def test_a_range_that_the_model_does_not_have_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, *WORDS, "timesteps.max=1200")
    assert "nothing was run" in done.stderr
    assert done.returncode == 1
    assert "timesteps.max=1200: the model has 1000 training steps, 0 to 999" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_that_lies_here_is_asked_for_its_steps(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    file = tmp_path / "scheduler" / "scheduler_config.json"
    file.write_text('{"num_train_timesteps": 50}')
    config = compose_cell("train", [f"model.pretrained={tmp_path}", "timesteps.min=50"]).config
    assert config is not None
    told = ["timesteps.min=50: the model has 50 training steps, 0 to 49"]
    assert timesteps_beyond(config) == told
    config.timesteps.min = 49
    assert timesteps_beyond(config) == []
    config.timesteps.max = 51
    assert timesteps_beyond(config) == [told[0].replace("min=50", "max=51")]
    file.write_text("broken")
    assert timesteps_beyond(config) == []  # told when the model is built
