"""Sweeps that the launchers run for real: the basic launcher's numbers, and what a death leaves."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.command import BARE, metric_rows, python, run, run_folders

pytestmark = pytest.mark.slow
STEPS = (*BARE[1:], "max_steps=3")
CELLS = ("objective=dpo,dspo",)

# A launcher's worker imports the package afresh: what kills a cell is a module beside it.
_DEADLY = """
import os, signal
from lightning.pytorch.callbacks import Callback

class Deadly(Callback):
    def on_train_start(self, trainer, module):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "sdpo_exp", "-m", *STEPS, *arguments)


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """metrics.csv of each cell as Hydra's own launcher makes it."""
    folder = tmp_path_factory.mktemp("basic")
    done = run(folder, "-m", *STEPS, *CELLS)
    assert done.returncode == 0, done.stdout + done.stderr
    return rows(folder)


def rows(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {path.parent.name: metric_rows(path) for path in run_folders(folder)}


@pytest.mark.parametrize(
    "launcher",
    [
        ("joblib", "hydra.launcher.n_jobs=1"),
        ("submitit_local",),
        ("ray", "hydra.launcher.num_cpus=2"),
    ],
    ids=lambda launcher: launcher[0],
)
def test_a_launcher_gives_the_basic_launchers_numbers(
    launcher: Sequence[str], basic: dict[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    choice, *more = launcher
    pytest.importorskip(choice.removesuffix("_local"))
    done = sweep(tmp_path, f"hydra/launcher={choice}", *more, *CELLS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(tmp_path)
    assert found == basic
    assert len(found) == 2
    assert all(len(metrics) == 3 for metrics in found.values())
    assert "2 done" in done.stdout
    logs = list((tmp_path / "outputs").glob("*/*/*/.hydra/console.log"))
    if choice == "submitit_local":
        assert len(list((tmp_path / "outputs/run/.submitit").glob("*_log.out"))) == 2
    else:
        assert len(logs) == 2
        assert all("finished: 3 steps" in log.read_text() for log in logs)


def test_a_killed_cell_leaves_the_others_and_the_same_command_makes_it_up(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(_DEADLY)
    folder = tmp_path / "conf" / "callbacks"
    folder.mkdir(parents=True)
    (folder / "deadly.yaml").write_text("deadly: {_target_: deadly.Deadly}\n")
    command = (
        "--config-dir", "conf", *STEPS, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1",
        "name=d", "callbacks=[winner_loss,deadly],[winner_loss]",
    )  # fmt: skip
    done = python(tmp_path, "-m", "sdpo_exp", "-m", *command)
    assert done.returncode != 0
    assert done.stdout.count("ended by SIGKILL") == 1, done.stdout + done.stderr
    assert "1 died, 1 done" in done.stdout
    (tmp_path / "deadly.py").write_text(_DEADLY.replace("os.kill(", "print("))
    done = python(tmp_path, "-m", "sdpo_exp", "-m", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("done before") == 1
    assert "1 done, 1 skipped" in done.stdout


def test_a_search_goes_on_where_a_command_ended(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    searched = (
        "hydra/sweeper=optuna", "hydra.sweeper.metric=train/loss",
        "hydra.sweeper.direction=minimize", "name=search",
        "lr=tag(log,interval(1e-5,1e-2))", "objective=dpo,ipo",
    )  # fmt: skip
    done = run(tmp_path, "-m", *BARE, *searched, "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stdout + done.stderr
    first = table(tmp_path)
    assert len(first) == 2
    together = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = python(
        tmp_path, "-m", "sdpo_exp", "-m", *BARE, *searched, "hydra.sweeper.n_trials=4", *together
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 4 trials are done" in done.stdout
    found = table(tmp_path)
    assert len(found) == 4
    assert found[:2] == first
    assert len(run_folders(tmp_path, "search")) == 4
    for row in found:
        summary = json.loads((tmp_path / row["folder"] / "summary.json").read_text())
        assert summary["train"]["train/loss"] == float(row["train/loss"])
    best = min(found, key=lambda row: float(row["train/loss"]))
    assert f"Best of 4: trial {best['trial']}" in done.stdout
    done = run(tmp_path, "-m", *BARE, *searched, "hydra.sweeper.n_trials=4")
    assert done.returncode == 0
    assert table(tmp_path) == found


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "outputs" / "search" / "optuna.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))
