"""A study's file: gone on with, mended, and closed where a command left it open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdpo_exp.errors import UserError
from sdpo_exp.launchers import study as studies
from sdpo_exp.launchers.search_space import read_space
from sdpo_exp.launchers.tuning_report import write_report

pytest.importorskip("optuna")
SPACE = read_space(["a=interval(0,1)", "max_steps=3"], None)
ABOUT = studies.About("train/loss", "minimize", SPACE.fixed)


def run_folder(root: Path, digest: str, loss: float | None) -> None:
    """A run as it would lie there; without a loss it failed."""
    folder = root / f"tiny-dpo-on-{digest}" / "2026-01-01_00-00-00"
    folder.mkdir(parents=True)
    status = "failed: out of memory" if loss is None else "finished"
    content = {"status": status, "train": {"train/loss": loss}, "probe": {}}
    (folder / "summary.json").write_text(json.dumps(content))


def test_told_trials_are_known_to_the_next_command(tmp_path: Path) -> None:
    path = str(tmp_path / "study.journal")
    study = studies.open_study(path, ABOUT)
    for digest, loss in (("00000001", 0.5), ("00000002", None), ("00000003", 0.25)):
        studies.set_sampler(study, "tpe", 0, batch=1)
        trial, overrides = studies.ask(study, SPACE)
        assert overrides[0] == "max_steps=3"
        studies.remember_cell(trial, digest)
        run_folder(tmp_path, digest, loss)
        studies.tell(study, trial, tmp_path, digest, "train/loss")
    again = studies.open_study(path, ABOUT)
    assert studies.counted(again.trials) == 3
    assert again.best_value == 0.25
    outcomes = [studies.outcome(trial) for trial in again.trials]
    assert outcomes == ["finished", "failed: out of memory", "finished"]
    told = write_report(again, SPACE, ABOUT, tmp_path)
    assert "Best of 3: trial 2, 0.25, with 'a=" in told
    assert "| 1 |  | " in (tmp_path / "optuna.md").read_text()
    assert len((tmp_path / "optuna.csv").read_text().splitlines()) == 4


def test_open_trials_get_their_runs_number_or_are_tried_again(tmp_path: Path) -> None:
    path = str(tmp_path / "study.journal")
    study = studies.open_study(path, ABOUT)
    drawn = []
    for digest in ("00000001", "00000002"):
        studies.set_sampler(study, "random", 0, batch=1)
        trial, overrides = studies.ask(study, SPACE)
        studies.remember_cell(trial, digest)
        drawn.append(overrides)
    run_folder(tmp_path, "00000001", 0.5)

    again = studies.open_study(path, ABOUT)
    studies.settle_interrupted(again, tmp_path, "train/loss")
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "FAIL", "WAITING"]
    assert again.trials[0].value == 0.5
    assert studies.counted(again.trials) == 1
    assert studies.ask(again, SPACE)[1] == drawn[1]


def test_a_search_goes_on_with_the_trials_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    def search(path: Path, stops: tuple[int, ...]) -> list[float]:
        for stop in stops:
            study = studies.open_study(str(path), ABOUT)
            while len(study.trials) < stop:
                studies.set_sampler(study, "tpe", 7, batch=1)
                trial, _ = studies.ask(study, SPACE)
                study.tell(trial, (trial.params["a"] - 0.3) ** 2)
        return [trial.params["a"] for trial in study.trials]

    assert search(tmp_path / "one", (14,)) == search(tmp_path / "two", (5, 12, 14))


def test_a_journal_cut_off_in_a_line_is_read_and_written_on(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = studies.open_study(str(path), ABOUT)
    study.tell(studies.ask(study, SPACE)[0], 0.5)
    with path.open("ab") as stream:
        stream.write(b'{"op_code":4,"wor')
    again = studies.open_study(str(path), ABOUT)
    again.tell(studies.ask(again, SPACE)[0], 0.25)
    assert [t.value for t in studies.open_study(str(path), ABOUT).trials] == [0.5, 0.25]


def test_another_search_is_refused_unless_nothing_is_lost(tmp_path: Path) -> None:
    path = str(tmp_path / "study.journal")
    misspelt = studies.About("train/los", "maximize", ("max_steps=9", "name=x"))
    studies.open_study(path, misspelt)
    study = studies.open_study(path, ABOUT)
    assert study.direction.name == "MINIMIZE"
    study.tell(studies.ask(study, SPACE)[0], 0.5)
    # A key given twice means its second value, and names are no part of it.
    same = studies.About("train/loss", "minimize", ("max_steps=9", "max_steps=3", "name=y"))
    studies.open_study(path, same)
    with pytest.raises(UserError) as error:
        studies.open_study(path, misspelt)
    for words in ("metric was train/loss", "had max_steps=3", "lacked max_steps=9"):
        assert words in str(error.value)


def test_an_unknown_metric_is_told_with_those_there_are(tmp_path: Path) -> None:
    study = studies.open_study(str(tmp_path / "study.journal"), ABOUT)
    trial, _ = studies.ask(study, SPACE)
    run_folder(tmp_path, "00000001", 0.5)
    with pytest.raises(UserError) as error:
        studies.tell(study, trial, tmp_path, "00000001", "train/los")
    assert "did you mean 'train/loss'? There are: train/loss" in str(error.value)


def test_changed_choices_are_told(tmp_path: Path) -> None:
    path = str(tmp_path / "study.journal")
    before, after = (read_space([line], None) for line in ("a=x,y", "a=x,z"))
    study = studies.open_study(path, ABOUT)
    study.tell(studies.ask(study, before)[0], 0.5)
    with pytest.raises(UserError) as error:
        studies.ask(study, after)
    assert "give another name=" in str(error.value)
