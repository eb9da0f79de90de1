"""`python -m sdpo_exp.sample_pairs`: mistakes in words; what it makes can be trained on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.command import SMALL, python, run


def sample_pairs(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "sdpo_exp.sample_pairs", *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train=-1"], "train: must be greater than or equal to 0"),
        (["guidence=2"], "guidence=2: unknown key; did you mean 'guidance'"),
        (["train=0", "validation=0"], "no pairs to make"),
        (["folder=there"], "folder=there exists; give another folder"),
        (["pretrained=nowhere", "train=1"], "pretrained=nowhere: no such folder"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "there").mkdir()
    done = sample_pairs(tmp_path, *arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_pairs_are_made_and_trained_on(tmp_path: Path) -> None:
    limits = ("train=8", "validation=4", "steps=1", "min_gap=0.0")
    done = sample_pairs(tmp_path, "folder=outputs/pairs/mine", *limits)
    assert done.returncode == 0, done.stderr
    assert "train: 8 pairs" in done.stdout
    tuned = run(
        tmp_path, *SMALL, "data=tiny_sampled", "data.train.folder=outputs/pairs/mine", "name=mine"
    )
    assert tuned.returncode == 0, tuned.stderr
    assert "finished: 2 steps" in tuned.stdout


@pytest.mark.slow
@pytest.mark.parametrize("data", ["tiny_sampled", "tiny_hard"])
def test_the_shipped_pairs_train(tmp_path: Path, data: str) -> None:
    done = run(tmp_path, *SMALL, f"data={data}")
    assert done.returncode == 0, done.stderr


def test_a_missing_folder_of_pairs_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, *SMALL, "data=tiny_sampled", "data.train.folder=nowhere")
    assert done.returncode != 0
    assert "nowhere/pairs.json: no such file; python -m sdpo_exp.sample_pairs" in done.stderr
    assert "Traceback" not in done.stderr
