"""`python -m sdpo_exp.pretrain`: mistakes in words; a short run gives a usable base model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sdpo_exp.cli.data.pretrain import main
from sdpo_exp.models.pixel_backbone import PixelBackbone
from sdpo_exp.testbed import pretrain as recipe
from sdpo_exp.testbed.attributes import Split
from sdpo_exp.testbed.sampling import Evaluation, evaluate
from tests.cli.command import ROOT, SMALL, here, python, run


def pretrain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "sdpo_exp.pretrain", *arguments)


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
def test_a_short_run_makes_a_model_that_can_be_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(stored: PixelBackbone, split: Split, n: int, guidance: float) -> Evaluation:
        assert n == 250
        return evaluate(stored, split, 4, guidance)

    monkeypatch.setattr(recipe, "evaluate", judged)
    done = here(tmp_path, main, "steps=3", "folder=base")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "base" / "recipe.json").read_text())["steps"] == 3
    tuned = run(tmp_path, *SMALL, f"model.pretrained={tmp_path / 'base'}")
    assert tuned.returncode == 0, tuned.stderr
    assert ROOT.joinpath("sdpo_exp", "models", "tiny_base", "recipe.json").is_file()
