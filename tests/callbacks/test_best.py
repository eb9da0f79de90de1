"""The best visit is kept as a checkpoint that a run can go on from."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_exp.callbacks.best import BestCheckpoint
from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.probe import FixedProbe
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.cli.train.resuming import find_checkpoint
from sdpo_exp.errors import UserError
from tests.harness import small_data, small_module, small_trainer

RISING = {0: 0.5, 2: 0.6, 4: 0.9, 6: 0.7}


class Told(StepCallback):
    """A probe that reports what the test decides, at the steps it decides."""

    def __init__(self, accuracy: dict[int, float], drift: dict[int, float] | None = None) -> None:
        super().__init__()
        self.accuracy, self.drift = accuracy, drift or {}

    def on_start(self, trainer: Any, module: Any) -> None:
        self.on_step(trainer, module)

    def on_step(self, trainer: Any, module: Any) -> None:
        if (step := trainer.global_step) in self.accuracy:
            row = {"implicit_accuracy": self.accuracy[step]}
            row["winner_minus_ref"] = self.drift.get(step, 0.0)
            module.report({f"probe/{name}": value for name, value in row.items()})


def fit(
    folder: Path,
    *callbacks: Any,
    steps: int = 6,
    resume: Path | None = None,
    module: Any = None,
) -> Any:
    module = module or small_module()
    trainer = small_trainer(folder, callbacks, max_steps=steps, enable_checkpointing=True)
    trainer.fit(module, datamodule=small_data(max_steps=steps), ckpt_path=resume, weights_only=True)
    return module


def kept(folder: Path) -> tuple[int, dict[str, Any]]:
    step = torch.load(folder / "best.ckpt", weights_only=True)["global_step"]
    return step, json.loads((folder / "best.json").read_text())


def vector(module: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.policy.parameters()])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)], ids=str)
def test_the_order_of_choice_does_not_matter(tmp_path: Path, order: tuple[int, ...]) -> None:
    best, saver = BestCheckpoint(str(tmp_path)), StepCheckpoint(str(tmp_path), every_n_steps=2)
    chosen = [Told(RISING), saver, best]
    fit(tmp_path, *(chosen[i] for i in order))
    step, described = kept(tmp_path)
    assert (step, described["step"], described["value"]) == (4, 4, 0.9)
    assert described["monitor"] == "probe/implicit_accuracy"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "accuracy", "drift", "expected"),
    [
        ({}, RISING, {4: 0.0021}, 6),
        ({}, RISING, {4: 0.002}, 4),
        ({}, RISING, {4: math.nan}, 6),
        ({"max_winner_minus_ref": None}, RISING, {4: 5.0}, 4),
        ({"max_winner_minus_ref": -0.001}, RISING, {2: -0.002, 6: -0.0005}, 2),
        ({"mode": "min"}, RISING, {}, 0),
        ({}, {0: 0.5, 2: 0.9, 4: 0.9}, {}, 2),
        ({}, {0: math.nan, 2: 0.1, 4: math.nan}, {}, 2),
    ],
    ids=["drifted", "at limit", "drift nan", "no limit", "below", "min", "tie", "nan"],
)
def test_the_best_is_the_documented_one(
    tmp_path: Path, options: Any, accuracy: Any, drift: Any, expected: int
) -> None:
    fit(tmp_path, Told(accuracy, drift), BestCheckpoint(str(tmp_path), **options))
    step, described = kept(tmp_path)
    assert (step, described["step"]) == (expected, expected)


def test_the_end_says_which_step_was_best_or_that_none_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="sdpo_exp"):
        fit(tmp_path, Told(RISING), BestCheckpoint(str(tmp_path)))
        assert "best step: 4 (probe/implicit_accuracy 0.9000)" in caplog.text
        drift = dict.fromkeys(RISING, 1.0)
        fit(tmp_path, Told(RISING, drift), BestCheckpoint(str(tmp_path)))
    assert (
        "no best checkpoint: at every visit probe/winner_minus_ref was above 0.002" in caplog.text
    )
    # Nor is the first run's taken for the second's.
    assert not list(tmp_path.glob("best.*"))


def test_the_real_probe_is_followed(tmp_path: Path) -> None:
    class Rows(StepCallback):
        def on_start(self, trainer: Any, module: Any) -> None:
            self.on_step(trainer, module)

        def on_step(self, trainer: Any, module: Any) -> None:
            if "probe/margin" in module.reported():
                margins[trainer.global_step] = module.reported()["probe/margin"]

    margins: dict[int, float] = {}
    options = {"monitor": "probe/margin", "max_winner_minus_ref": None}
    best = BestCheckpoint(str(tmp_path), **options)  # type: ignore[arg-type]
    fit(tmp_path, best, FixedProbe(pairs=8, times=(0.5,), every_n_steps=2), Rows())
    assert set(margins) == {0, 2, 4, 6}
    top = max(margins, key=lambda step: margins[step])
    assert kept(tmp_path)[0] == top
    assert kept(tmp_path)[1]["value"] == margins[top]


def test_a_run_without_a_probe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no probe\. Choose callbacks=\[default,best\]"):
        fit(tmp_path, BestCheckpoint(str(tmp_path)))


@pytest.mark.parametrize("monitor", ["probe/accuracy", "train/loss", "implicit_accuracy"])
def test_an_unknown_monitor_is_told_with_what_there_is(tmp_path: Path, monitor: str) -> None:
    probe = FixedProbe(pairs=4, times=(0.5,))
    with pytest.raises(UserError) as error:
        fit(tmp_path, BestCheckpoint(str(tmp_path), monitor=monitor), probe)
    assert f"callbacks.best.monitor={monitor} is not reported" in str(error.value)
    assert "probe/margin, probe/implicit_accuracy;" in str(error.value)
    assert "_se" not in str(error.value)


def resumed(
    folder: Path, accuracy: dict[int, float], *, origin: str = "step=4.ckpt", **best: Any
) -> Path:
    """Six steps, then from `origin` on to eight, in a folder of its own."""
    first, second = folder / "first", folder / "second"
    saver = StepCheckpoint(str(first), every_n_steps=2, keep_all=True)
    fit(folder, Told(accuracy), saver, BestCheckpoint(str(first)))
    onward = BestCheckpoint(str(second), **best)
    fit(folder, Told(accuracy), onward, steps=8, resume=first / origin)
    return second


def test_a_resumed_run_remembers_the_best_and_brings_its_file(tmp_path: Path) -> None:
    folder = resumed(tmp_path, {0: 0.5, 2: 0.9, 4: 0.6, 6: 0.7, 8: 0.8})
    assert (kept(folder)[0], kept(folder)[1]["value"]) == (2, 0.9)


def test_a_resumed_run_still_finds_a_better_one(tmp_path: Path) -> None:
    assert kept(resumed(tmp_path, {0: 0.5, 2: 0.8, 4: 0.6, 6: 0.7, 8: 0.9}))[0] == 8


def test_a_step_checkpoint_written_before_its_step_was_judged_is_judged_on_resume(
    tmp_path: Path,
) -> None:
    assert kept(resumed(tmp_path, {0: 0.5, 2: 0.6, 4: 0.9, 6: 0.7, 8: 0.7}))[0] == 4


def test_the_best_of_a_later_step_is_not_brought_into_the_past(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = resumed(tmp_path, {0: 0.5, 2: 0.6, 4: 0.55, 6: 0.7, 8: 0.4})
    # first/best.ckpt is of step 6 by then; the run that resumes at 4 knows of step 2 only.
    assert "the file of step 2 is not beside the checkpoint" in caplog.text
    assert kept(folder)[0] == 6


def test_another_rule_judges_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    accuracy = {0: 0.5, 2: 0.9, 4: 0.6, 6: 0.7, 8: 0.65}
    assert kept(resumed(tmp_path, accuracy, mode="min"))[0] == 4
    assert "judged anew from here, because its settings changed" in caplog.text


@pytest.mark.parametrize("best_step", [0, 2, 4])
def test_a_run_goes_on_from_the_best_as_if_it_had_never_stopped(
    tmp_path: Path, best_step: int
) -> None:
    accuracy = {0: 0.5, 2: 0.5, 4: 0.5} | {best_step: 0.9}
    whole = fit(tmp_path, Told(accuracy), BestCheckpoint(str(tmp_path)))
    assert kept(tmp_path)[0] == best_step
    again = fit(
        tmp_path,
        Told(accuracy),
        BestCheckpoint(str(tmp_path / "again")),
        resume=tmp_path / "best.ckpt",
    )
    assert torch.equal(vector(whole), vector(again))
    assert kept(tmp_path / "again")[0] == best_step


def test_watching_does_not_change_the_training(tmp_path: Path) -> None:
    watched = fit(tmp_path, Told(RISING), BestCheckpoint(str(tmp_path)))
    assert torch.equal(vector(watched), vector(fit(tmp_path)))


def run_folder(folder: Path, *, best: dict[int, float], every: int, steps: int = 6) -> Path:
    checkpoints = folder / "checkpoints"
    saver = StepCheckpoint(str(checkpoints), every_n_steps=every)
    fit(folder, Told(best), saver, BestCheckpoint(str(checkpoints)), steps=steps)
    (checkpoints / "last.ckpt").unlink()
    return checkpoints


def test_resuming_a_folder_takes_the_step_that_is_furthest(tmp_path: Path) -> None:
    checkpoints = run_folder(tmp_path, best=RISING, every=6)
    assert find_checkpoint(tmp_path, 10).name == "step=6.ckpt"
    os.utime(checkpoints / "best.ckpt")  # as if brought along after it: newer, and an older step
    assert find_checkpoint(tmp_path, 10).name == "step=6.ckpt"


def test_resuming_a_folder_takes_the_best_only_where_it_is_further(tmp_path: Path) -> None:
    rising = {0: 0.1, 3: 0.2, 6: 0.3}
    checkpoints = run_folder(tmp_path, best=rising, every=4)
    assert find_checkpoint(tmp_path, 10) == checkpoints / "best.ckpt"
    both = run_folder(tmp_path / "both", best=rising, every=6)
    assert find_checkpoint(tmp_path / "both", 10) == both / "step=6.ckpt"


def test_a_broken_best_does_not_keep_a_folder_from_being_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = run_folder(tmp_path, best=RISING, every=6)
    (checkpoints / "best.ckpt").write_bytes(b"half of it")
    assert find_checkpoint(tmp_path, 10).name == "step=6.ckpt"
    assert "best.ckpt: the file cannot be read" in caplog.text


def test_a_folder_with_nothing_but_the_best_does_not_lose_progress_unasked(tmp_path: Path) -> None:
    checkpoints = run_folder(tmp_path, best=RISING, every=6)
    (checkpoints / "step=6.ckpt").unlink()
    with pytest.raises(UserError, match=r"give resume=.*best\.ckpt to go on from step 4"):
        find_checkpoint(tmp_path, 10)
    assert find_checkpoint(checkpoints / "best.ckpt", 10) == checkpoints / "best.ckpt"


class _ToldApart(Told):
    """Another number on every rank, as the last digit on another device may be."""

    def on_step(self, trainer: Any, module: Any) -> None:
        if trainer.global_rank:
            self.accuracy = {0: 0.9, 2: 0.5, 4: 0.95}
        super().on_step(trainer, module)


@pytest.mark.slow
def test_one_rank_decides_for_all(tmp_path: Path) -> None:
    chosen = [BestCheckpoint(str(tmp_path)), _ToldApart({0: 0.5, 2: 0.8, 4: 0.7})]
    options: Any = {"devices": 2, "strategy": "ddp_fork", "enable_checkpointing": True}
    trainer = small_trainer(tmp_path, chosen, max_steps=4, **options)
    trainer.fit(small_module(), datamodule=small_data(micro_batch=2, max_steps=4))
    assert (kept(tmp_path)[0], kept(tmp_path)[1]["value"]) == (2, 0.8)
