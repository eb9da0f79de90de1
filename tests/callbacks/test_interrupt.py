"""Ctrl-C: the step is finished and saved; a second one ends at once; ignored ones stay ignored."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_exp.callbacks.interrupt import InterruptCheckpoint
from sdpo_exp.training import PreferenceModule
from tests.harness import small_data, small_module, small_trainer


@pytest.fixture(autouse=True)
def own_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fit(folder: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> int:
    """The step reached by a training that is interrupted in the first half of its third step."""
    step, left = PreferenceModule.training_step, list(range(times))

    def interrupted(module: PreferenceModule, *arguments: Any) -> Any:
        if module.trainer.global_step == 2:
            while left:
                left.pop()
                signal.raise_signal(signal.SIGINT)
        return step(module, *arguments)

    monkeypatch.setattr(PreferenceModule, "training_step", interrupted)
    last = InterruptCheckpoint(str(folder))
    trainer = small_trainer(folder, [last])
    with last.listening():
        trainer.fit(small_module(), datamodule=small_data())
    return int(trainer.global_step)


def test_the_step_is_finished_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):  # as Lightning passes it on
        fit(tmp_path, monkeypatch, times=1)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, monkeypatch, times=2)
    assert not (tmp_path / "last.ckpt").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_is_ignored_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert fit(tmp_path, monkeypatch, times=1) == 6
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
