"""`python -m sdpo_exp.pretrain`: mistakes in words; a short run gives a usable base model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import ROOT, SMALL, environment, run


def pretrain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdpo_exp.pretrain", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("steps=0", "steps: must be greater than or equal to 1"),
        ("sead=1", "sead=1: unknown key; did you mean 'seed'"),
        ("+objective=dpo", "objective: unknown key"),
        ("folder=there", "folder=there exists; give another folder"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, argument: str, words: str) -> None:
    (tmp_path / "there").mkdir()
    done = pretrain(tmp_path, argument)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_short_run_makes_a_model_that_can_be_tuned(tmp_path: Path) -> None:
    done = pretrain(tmp_path, "steps=3", "folder=base")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "base" / "recipe.json").read_text())["steps"] == 3
    tuned = run(tmp_path, *SMALL, f"model.pretrained={tmp_path / 'base'}")
    assert tuned.returncode == 0, tuned.stderr
    assert ROOT.joinpath("sdpo_exp", "models", "tiny_base", "recipe.json").is_file()
