"""The plan of the study of safeguards: equal tries, no mistakes in cells, the best one decides."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.check import check_config
from sdpo_exp.config.composition import compose_cell
from tests.cli.command import ROOT

STUDY = ROOT / "experiments" / "safeguard_promise"


@pytest.fixture(scope="module")
def study() -> Any:
    """run.py of this study; scripts of other studies, of the same names, stay loaded."""
    others = {name: sys.modules.pop(name, None) for name in ("run", "plan")}
    sys.path.insert(0, str(STUDY))
    try:
        return importlib.import_module("run")
    finally:
        sys.path.remove(str(STUDY))
        for name, other in others.items():
            del sys.modules[name]
            if other is not None:
                sys.modules[name] = other


def test_every_rule_has_the_same_number_of_tries(study: Any) -> None:
    assert {len(set(rule.tries)) for rule in study.RULES.values()} == {8}


@pytest.mark.slow
def test_cells_and_tries_have_no_mistakes(study: Any) -> None:
    register_resolvers()
    for cell in study.cells(("flow",), ("dpo", "dmpo")):
        for setting in study.RULES[cell.rule].tries[::7]:
            composed = compose_cell("train", [*cell.words, *setting])
            assert composed.problems == []
            assert check_config(composed.config) == [], (cell, setting)


def test_the_best_try_decides_once_all_are_there(study: Any) -> None:
    cell = next(study.cells(("flow",), ("dpo",)))
    jobs = list(study.searching([cell]))
    rows = [
        dict(zip(study.KEYS, job.key, strict=True)) | {"reward": f"{0.01 * (number == 5)}"}
        for number, job in enumerate(jobs)
    ]
    assert list(study.deciding([cell], rows[:7])) == []
    decisive = list(study.deciding([cell], rows))
    assert [job.seed for job in decisive] == [0, 1, 2, 3, 4]
    assert {job.setting for job in decisive} == {jobs[5].setting}
    assert {job.split for job in decisive} == {"test"}


def test_missing_bases_are_told(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    with pytest.raises(SystemExit, match=r"no outputs/lazy/tiny_flow or no outputs/lazy/tiny_flow"):
        study.main()
    assert not list(tmp_path.iterdir())
