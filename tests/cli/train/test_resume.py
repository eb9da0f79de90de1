"""A run that goes on is the run that it was: its own settings, changes told, the base at step 0."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sdpo_exp.cli.train.changes import differing
from sdpo_exp.cli.train.own_words import add_own_words
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.errors import UserError
from sdpo_exp.shaping import shapes
from tests.cli.command import SMALL, metric_rows, run

OWN = ("safeguard=false", "tuning=lora", "tuning.rank=2", "objective.beta=321", "warmup_steps=0")


def ok(folder: Path, *arguments: str) -> str:
    done = run(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def told(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    ok(folder, *SMALL, *OWN, "run_dir=first")
    return folder


@pytest.fixture
def work(begun: Path, tmp_path: Path) -> Path:
    shutil.copytree(begun / "first", tmp_path / "first")
    return tmp_path


def test_it_takes_its_own_settings(work: Path) -> None:
    said = ok(work, "resume=first", "max_steps=3", "run_dir=second")
    assert "beta=321 [recipe 200]" in said
    assert "resuming at step 2 from first/checkpoints/last.ckpt" in said
    first, second = (OmegaConf.load(work / name / "config.yaml") for name in ("first", "second"))
    for group in ("model", "objective", "safeguard", "tuning", "optimizer", "reference"):
        assert first[group] == second[group]
    assert second.max_steps == 3
    assert told(work / "second", "run.json")["safeguard"] == "off"


def test_its_tables_begin_at_the_base(work: Path) -> None:
    said = ok(work, "resume=first", "max_steps=3", "run_dir=second")
    steps = [row["step"] for row in metric_rows(work / "second") if row["train/loss"]]
    assert steps == ["1", "2", "3"]
    assert metric_rows(work / "second")[0] == metric_rows(work / "first")[0]
    summary = told(work / "second", "summary.json")
    assert summary["probe"]["probe/winner_minus_ref"]["first"] == 0.0
    assert summary["resumed"] == {"from": "first/checkpoints/last.ckpt", "step": 2, "changes": []}
    (margin,) = (line for line in said.splitlines() if line.startswith("margin"))
    assert len(margin.split()) == 5  # with its standard error
    assert "resumed at step 2 from first" in (work / "second" / "summary.md").read_text()


def test_a_changed_word_is_refused_and_nothing_is_written(work: Path) -> None:
    done = run(work, "resume=first", "max_steps=3", "safeguard=true", "lr=1e-3", "run_dir=second")
    assert done.returncode == 1
    for line in (
        "resume=first: that run was trained with other values:",
        "safeguard._target_: sdpo_exp.safeguard.NoSafeguard -> sdpo_exp.safeguard.PreserveWinner",
        "lr: 0.0002 -> 0.001",
        "resume_changes=true",
    ):
        assert line in done.stderr
    assert not (work / "second").exists()


@pytest.mark.slow
def test_a_change_that_is_asked_for_is_made_and_told(work: Path) -> None:
    asked = ("max_steps=4", "lr=1e-3", "resume_changes=true", "run_dir=second")
    said = ok(work, "resume=first", *asked)
    rates = [float(row["train/lr"]) for row in metric_rows(work / "second") if row["train/lr"]]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-3, 1e-3])
    changes = told(work / "second", "summary.json")["resumed"]["changes"]
    assert changes == ["lr: 0.0002 -> 0.001", "optimizer.lr: 0.0002 -> 0.001"]
    assert "changed: lr: 0.0002 -> 0.001" in said


def words(folder: Path, *given: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(folder)
    register_resolvers()
    argv = ["sdpo_exp", *given]
    add_own_words(argv)
    again = list(argv)
    add_own_words(again)
    assert again == argv  # as the ranks of a distributed training read it
    return argv[1:]


def test_given_words_replace_the_runs_own(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = words(work, "resume=first", "objective.beta=5", "tuning=full", monkeypatch=monkeypatch)
    assert "objective.beta=321" not in found
    assert not {"tuning=lora", "tuning.rank=2", "run_dir=first"} & set(found)
    assert "warmup_steps=0" in found
    assert found[-3:] == ["resume=first", "objective.beta=5", "tuning=full"]


def test_saved_values_count_where_defaults_have_changed(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = work / "first" / "config.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.01", "weight_decay: 0.07"))
    found = words(work, "resume=first", monkeypatch=monkeypatch)
    assert "optimizer.weight_decay=0.07" in found
    again = words(work, "resume=first", "optimizer.weight_decay=0.5", monkeypatch=monkeypatch)
    assert "optimizer.weight_decay=0.07" not in again


def test_a_checkpoint_file_means_its_run(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = words(work, "resume=first/checkpoints/last.ckpt", monkeypatch=monkeypatch)
    assert "safeguard=off" in found


def test_a_run_without_a_record_is_read_from_hydras(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "first" / "run.json").unlink()
    assert "objective.beta=321" in words(work, "resume=first", monkeypatch=monkeypatch)


def test_the_folder_of_own_configurations_is_remembered(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = work / "first" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "config_dir": "mine"}))
    assert words(work, "resume=first", monkeypatch=monkeypatch)[:2] == ["--config-dir", "mine"]


def test_several_runs_cannot_be_resumed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="one run at a time"):
        words(Path.cwd(), "resume=a,b", "-m", monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("safeguard.mu", True),
        ("data.micro_batch", True),
        ("data.num_workers", False),
        ("callbacks.probe.pairs", False),
        ("callbacks.ema.decay", True),
        ("trainer.precision", True),
        ("trainer.default_root_dir", False),
        ("recipe.note", False),
        ("recipe.beta", True),
    ],
)
def test_what_shapes_a_training(key: str, expected: bool) -> None:
    assert shapes(key) is expected


def test_a_key_that_came_later_is_no_difference() -> None:
    assert differing({"lr": 1.0}, {"lr": 1.0, "later": 2}) == []
    assert differing({"lr": 1.0, "safeguard.mu": 0.9}, {"lr": 2.0}) == ["lr", "safeguard.mu"]
