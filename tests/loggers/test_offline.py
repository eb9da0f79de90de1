"""Runs that W&B recorded offline are read back, whole or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import wandb

from sdpo_exp.errors import UserError
from sdpo_exp.loggers.offline import find_runs, read_run

LONG = "x" * 80_000  # over several blocks of the file


def recorded(folder: Path) -> Path:
    with wandb.init(project="p", dir=folder, mode="offline", settings={"silent": True}) as run:
        run.config.update({"long": LONG, "a": {"b": [1, 2]}})
        for step in range(400):
            run.log({"x": step, "of": {"y": step / 2}}, step=step)
    wandb.teardown()  # until then the end of the file may still be on its way
    (path,) = find_runs(folder)
    return path


def test_long_records_and_many_rows_are_read_back(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    run = read_run(path)
    assert (run.project, run.config["long"], run.config["a"]) == ("p", LONG, {"b": [1, 2]})
    assert [row["x"] for row in run.history] == list(range(400))
    assert run.history[3]["of"] == {"y": 1.5}
    assert run.summary["x"] == 399
    assert {"x", "of"} <= run.keys()
    assert run.exit_code == 0

    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    cut = read_run(path)
    assert cut.exit_code is None
    assert 0 < len(cut.history) < 400
    assert [row["x"] for row in cut.history] == list(range(len(cut.history)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(UserError, match="not a run that W&B recorded"):
        read_run(path)
    path.write_bytes(b":W&B\xe1\xbe\x00")
    with pytest.raises(UserError, match="no run is described"):
        read_run(path)
