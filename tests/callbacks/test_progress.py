"""How far a training is: what is printed, when, and that it moves within a step."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from sdpo_exp.callbacks.progress import StepProgress
from tests.harness import small_data, small_module, small_trainer


def train(folder: Path, callback: StepProgress, steps: int = 5) -> None:
    trainer = small_trainer(folder, [callback], max_steps=steps)
    trainer.fit(small_module(), datamodule=small_data(micro_batch=2))


def steps_of(said: str) -> list[str]:
    return [line.split("  ")[0] for line in said.splitlines() if line.startswith("step ")]


def test_first_and_last_step_have_a_line_however_few_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "few", StepProgress())
    said = capsys.readouterr().out
    assert steps_of(said) == ["step 1/5", "step 5/5"]
    last = said.splitlines()[-1]
    for part in ("loss ", "winner drift ", "loser drift ", "acc ", "lambda ", "pairs/s", "GiB"):
        assert part in last
    train(tmp_path / "every", StepProgress(every_n_steps=2))
    assert steps_of(capsys.readouterr().out) == ["step 1/5", "step 2/5", "step 4/5", "step 5/5"]


def test_a_long_step_is_not_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, StepProgress(every_seconds=1e-9), steps=1)
    said = capsys.readouterr().out
    assert steps_of(said) == ["step 0.25/1", "step 0.50/1", "step 0.75/1", "step 1/1"]
    assert " left" in said.splitlines()[0]
    assert " left" not in said.splitlines()[-1]


@pytest.mark.parametrize("columns", [80, 60])
def test_a_terminals_line_ends_full_and_never_wraps(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sdpo_exp.callbacks.progress._REDRAWN", 0.0)
    train(tmp_path, StepProgress(), steps=2)
    drawn = re.sub(r"\x1b\[[0-9]*[mK]", "", screen.getvalue()).split("\r")
    lines = [line for line in drawn if re.match(r"(step )?[0-9.]+/2 ", line)]
    assert all(len(line.rstrip("\n")) < columns for line in lines)
    assert {line.split("/")[0].split()[-1] for line in lines} >= {"0.25", "1", "1.75", "2"}
    assert lines[-1].endswith("\n")
    assert "100%" in lines[-1]
    assert "winner drift" in lines[-1]
    assert "\x1b[7m" in screen.getvalue()  # the bar
