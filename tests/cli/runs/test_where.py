"""Some of the runs, by choices or by any key of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdpo_exp.cli.runs.report import main as report
from sdpo_exp.cli.runs.runs import main as runs
from sdpo_exp.cli.runs.where import chosen, rewrite_where
from sdpo_exp.errors import UserError
from sdpo_exp.reports.run_records import RunRecord, find_runs
from tests.cli.command import here
from tests.reports.run_folders import Made, make_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("where")
    for guard in ("on", "off"):
        for lr in (1e-5, 1e-4):
            made = Made(safeguard=guard, settings=(("lr", lr),), steps=8, images=2, samples=0)
            make_run(root / "outputs", made)
    failed = Made(model="sd15", status="failed", steps=8, images=0, samples=0)
    make_run(root / "outputs", failed)
    return root


def places(records: Sequence[RunRecord]) -> list[tuple[str, Any]]:
    return [(record.safeguard, record.config["lr"]) for record in records]


def test_runs_are_chosen_by_choices_and_by_keys(root: Path) -> None:
    records = find_runs([root])
    assert chosen(records, None) == records
    assert places(chosen(records, {"safeguard": True, "lr": "1e-05"})) == [("on", 1e-5)]
    assert len(chosen(records, {"lr": [0.0001, 1e-5], "status": "finished"})) == 4
    assert [r.model for r in chosen(records, {"model": "sd15"})] == ["sd15"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"saefguard": "on"}, "saefguard: no run has this key; did you mean 'safeguard'?"),
        ({"lr": 3}, "no run is left with lr=3; there is: 0.0001, 1e-05"),
        ({"model": {"a": 1}}, "model.a: no run has this key"),
        ({"resume": 3}, "no run is left with resume=3; there is: null"),
    ],
)
def test_what_leaves_nothing_is_told(root: Path, where: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        chosen(find_runs([root]), where)
    assert said in str(error.value)


def test_a_run_is_found_by_its_data_and_by_null(tmp_path: Path) -> None:
    own = (("data.train._target_", "x.FolderPairs"), ("data.train.path", "/a/own"))
    quick = Made(steps=8, images=0, samples=0)
    make_run(tmp_path, quick)
    make_run(tmp_path, replace(quick, settings=own))
    records = find_runs([tmp_path])
    for word in ("folder own", "folder", "own"):
        (record,) = chosen(records, {"data": word})
        assert record.config["data"]["train"]["path"] == "/a/own"
    assert chosen(records, {"data": {"train": {"path": "/a/own"}}}) == [record]
    assert chosen(records, {"resume": None}) == records


@pytest.mark.parametrize(
    ("given", "mapping"),
    [
        ("where=[model=tiny,safeguard=on]", "where={model: tiny, safeguard: on}"),
        ("where=objective.beta=2", "where={objective.beta: 2}"),
        ("where=[lr=[1e-4,2e-4], seed=0]", "where={lr: [1e-4,2e-4], seed: 0}"),
        ("where=model=tiny,sd15", "where={model: [tiny,sd15]}"),
        ("where={model: tiny}", "where={model: tiny}"),
        ("where=null", "where=null"),
    ],
)
def test_a_list_of_keys_with_values_is_a_mapping(given: str, mapping: str) -> None:
    argv = ["runs", given, "limit=2"]
    rewrite_where(argv)
    assert argv == ["runs", mapping, "limit=2"]


@pytest.mark.parametrize("given", ["where=tiny", "where=[tiny,safeguard=on]", "where=[model=]"])
def test_a_word_without_a_key_is_told(root: Path, given: str) -> None:
    for command in (runs, report):
        done = here(root, command, "outputs", given)
        assert done.returncode == 1
        assert "give keys with values, as in where='[model=tiny" in done.stderr
        assert "Traceback" not in done.stderr


def test_both_commands_take_it(root: Path) -> None:
    done = here(root, runs, "outputs", "where=[safeguard=on,model=tiny]", "format=csv")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    done = here(root, report, "outputs", "where={lr: 1e-5}", "folder=page", "resamples=50")
    assert "2 cells, 2 runs: 2 finished" in done.stdout
    done = here(root, report, "outputs", "where=model=sd15", "folder=page", "resamples=50")
    assert "1 cell, 1 run: 1 failed" in done.stdout
