"""Trainings that end early say why, do not lose their last step, and count on when resumed."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest

from sdpo_exp.callbacks import ends
from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.ends import EarlyStopping, TimeLimit
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.errors import UserError
from tests.harness import small_data, small_module, small_trainer

ACCURACY = "probe/implicit_accuracy"


class Reports(StepCallback):
    """Values in the place of the probe's, one for each visit; None: no visit at that step."""

    def __init__(self, *values: float | None, name: str = ACCURACY) -> None:
        super().__init__()
        self.values, self.name = values, name

    def on_start(self, trainer: Any, module: Any) -> None:
        self.on_step(trainer, module)

    def on_step(self, trainer: Any, module: Any) -> None:
        value = self.values[trainer.global_step]
        if value is not None:
            module.report({self.name: value})


class Visits(StepCallback):
    """The steps that a callback would visit."""

    def __init__(self) -> None:
        super().__init__(every_n_steps=4)
        self.steps: list[int] = []

    def on_step(self, trainer: Any, module: Any) -> None:
        if self.due(trainer, at_end=True):
            self.steps.append(trainer.global_step)


def fit(folder: Path, *callbacks: Any, checkpoint: str | None = None) -> L.Trainer:
    trainer = small_trainer(folder, callbacks)
    path = folder / checkpoint if checkpoint else None
    trainer.fit(small_module(), datamodule=small_data(), ckpt_path=path, weights_only=True)
    return trainer


@pytest.mark.parametrize(
    ("options", "values", "last"),
    [
        ({"patience": 2}, (0.5, 0.6, 0.6, 0.6, 0.9, 0.9, 0.9), 3),
        ({"patience": 2}, (0.5, 0.4, 0.6, 0.5, 0.7, 0.6, 0.6), 6),
        ({"patience": 2}, (0.5, None, 0.4, None, 0.4, 0.4, 0.9), 4),
        ({"patience": 1, "min_delta": 0.1}, (0.5, 0.7, 0.75, 0.9, 0.9, 0.9, 0.9), 2),
        ({"patience": 1}, (0.5, float("nan"), 0.9, 0.9, 0.9, 0.9, 0.9), 1),
        ({"patience": 1}, (float("nan"), 0.1, 0.2, 0.2, 0.2, 0.2, 0.2), 3),
        ({"patience": 1, "mode": "min"}, (0.5, 0.4, 0.3, 0.35, 0.1, 0.1, 0.1), 3),
    ],
)
def test_it_ends_after_the_visits_that_were_no_better(
    tmp_path: Path, options: Any, values: Any, last: int
) -> None:
    stopper = EarlyStopping(ACCURACY, **options)
    trainer = fit(tmp_path, Reports(*values), stopper)
    assert trainer.global_step == last
    assert (stopper.reason is not None) == (last < 6)


def test_of_winner_drift_less_is_better_and_the_reason_says_what_happened(tmp_path: Path) -> None:
    name = "probe/winner_minus_ref"
    stopper, visits = EarlyStopping(name, patience=2), Visits()
    fit(tmp_path, Reports(0.0, -0.1, 0.05, 0.2, 1, 1, 1, name=name), stopper, visits)
    assert stopper.reason == (
        "winner drift (probe/winner_minus_ref) grew no better for 2 visits: 0.2000, the best was "
        "-0.1000 at step 1"
    )
    assert visits.steps == [3]  # those after it know that this step is the last


@pytest.mark.parametrize("file", ["step=1.ckpt", "step=2.ckpt"])
def test_a_resumed_training_counts_on(tmp_path: Path, file: str) -> None:
    values = (0.5, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5)
    saver = StepCheckpoint(str(tmp_path), every_n_steps=1, keep_all=True)
    whole = fit(tmp_path, Reports(*values), EarlyStopping(ACCURACY), saver)
    assert whole.global_step == 4
    stopper = EarlyStopping(ACCURACY)
    assert fit(tmp_path, Reports(*values), stopper, checkpoint=file).global_step == 4
    assert stopper.best_step == 1


def test_what_it_has_ended_goes_on_when_asked_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = (0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4)
    fit(tmp_path, Reports(*values), EarlyStopping(patience=2), StepCheckpoint(str(tmp_path)))
    again = fit(tmp_path, Reports(*values), EarlyStopping(patience=2), checkpoint="last.ckpt")
    assert again.global_step == 4
    with caplog.at_level(logging.WARNING, "sdpo_exp"):
        other = EarlyStopping(patience=2, min_delta=0.2)
        fit(tmp_path, Reports(*values), other, checkpoint="last.ckpt")
    assert "judged anew" in caplog.text


def test_mistakes_about_what_is_watched_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="say which way is better"):
        EarlyStopping("eval/tiny_reward")
    with pytest.raises(UserError, match=r"val/margin is not reported at the visits\. There are"):
        fit(tmp_path, Reports(*[0.5] * 7), EarlyStopping("val/margin"))
    with pytest.raises(UserError, match="Add probe to callbacks"):
        fit(tmp_path, EarlyStopping())


def test_the_clock_ends_a_training_with_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 40))
    monkeypatch.setattr(ends, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    limit, visits = TimeLimit("2min"), Visits()
    trainer = fit(tmp_path, limit, visits, StepCheckpoint(str(tmp_path)))
    assert trainer.global_step == 3
    assert visits.steps == [3]
    assert limit.reason == "max_time=2min was over"
    assert (tmp_path / "last.ckpt").is_file()


def test_a_training_that_is_at_its_end_anyway_did_not_end_early(tmp_path: Path) -> None:
    stopper = EarlyStopping(patience=6)
    assert fit(tmp_path, Reports(*[0.5] * 7), stopper).global_step == 6
    assert stopper.reason is None
