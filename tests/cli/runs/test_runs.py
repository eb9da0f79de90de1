"""`python -m sdpo_exp.runs` reads folders, whatever state their runs are in."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from sdpo_exp.cli.runs.runs import main
from sdpo_exp.reports.run_records import find_runs, read_run
from tests import forks
from tests.cli.command import here, python


def write_run(root: Path, cell: str, summary: dict[str, Any] | None, **told: Any) -> Path:
    folder = root / "outputs" / "run" / cell / "2026-01-01_00-00-00"
    folder.mkdir(parents=True)
    config = {"name": "run", "seed": told.get("seed", 0), "lr": told.pop("lr", 1e-4)}
    (folder / "config.yaml").write_text(json.dumps({**config, "run_dir": str(folder)}))
    record = {"model": "tiny", "objective": "dpo", "safeguard": "on", "seed": 0, "hash": cell[-8:]}
    record |= {"command": "python -m sdpo_exp", "started": "2026-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps({**record, **told}))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def summary(change: float, status: str = "finished") -> dict[str, Any]:
    score = {"tuned": {"mean": 0.5 + change}, "change": {"mean": change}}
    return {
        "status": status, "steps": 3, "seconds": 7.5, "train": {"safeguard/lambda_mean": 0.25},
        "probe": {"probe/winner_minus_ref": {"first": 0.0, "last": -change}},
        "evaluation": {"scores": {"reward": score}}, "pairs_per_second": 10.0,
    }  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_run(tmp_path, "tiny-dpo-on-aaaaaaaa", summary(0.1))
    write_run(tmp_path, "tiny-dpo-on-bbbbbbbb", summary(0.3), seed=1, lr=2e-4)
    write_run(tmp_path, "tiny-dpo-on-cccccccc", summary(0.9, "stopped: it diverged"), seed=2)
    write_run(tmp_path, "tiny-dpo-on-dddddddd", None, host="elsewhere.invalid")
    write_run(tmp_path, "tiny-dpo-on-eeeeeeee", None, host=socket.gethostname(), pid=2**22 + 1)
    return tmp_path


def rows(folder: Path, *arguments: str) -> list[dict[str, str]]:
    done = here(folder, main, *arguments, "format=csv")
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_every_run_is_listed_with_its_state(world: Path) -> None:
    listed = {row["folder"].split("-")[3][:8]: row for row in rows(world)}
    # No word from another machine, but its files are new.
    assert {name: row["status"] for name, row in listed.items()} == {
        "aaaaaaaa": "finished", "bbbbbbbb": "finished", "cccccccc": "failed",
        "dddddddd": "running", "eeeeeeee": "died",
    }  # fmt: skip
    assert float(listed["aaaaaaaa"]["eval/reward_change"]) == 0.1
    assert listed["dddddddd"]["eval/reward_change"] == ""
    assert float(listed["bbbbbbbb"]["seconds"]) == 7.5
    assert [p for p in world.iterdir() if p.name != "outputs"] == []


def test_the_best_by_a_metric(world: Path) -> None:
    done = here(world, main, "outputs", "best=eval/reward_change", "limit=1")
    assert "best by eval/reward_change (max): outputs/run/tiny-dpo-on-bbbbbbbb" in done.stdout
    assert "again: python -m sdpo_exp" in done.stdout
    assert "1 of 5 runs" in done.stdout
    lowest = rows(world, "best=probe/winner_minus_ref", "order=min")
    assert [row["seed"] for row in lowest] == ["1", "0"]


def test_two_runs_compared(world: Path) -> None:
    first, second = (str(record.folder) for record in find_runs([world])[:2])
    done = here(world, main, first, second)
    assert done.returncode == 0, done.stderr
    config = done.stdout.split("configuration")[1].split("environment")[0].split()
    assert config == ["key", "A", "B", "seed", "0", "1", "lr", "0.0001", "0.0002"]
    (change,) = (line for line in done.stdout.splitlines() if line.startswith("eval/reward_change"))
    assert [float(word) for word in change.split()[1:]] == pytest.approx([0.1, 0.3, 0.2])


def test_a_filter_and_json(world: Path) -> None:
    done = here(world, main, "status=failed", "format=json", "metrics=[train/loss]")
    (row,) = json.loads(done.stdout)
    assert (row["status"], row["seed"], row["train/loss"]) == ("failed", 2, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["best=eval/rewrad"], "no finished run has it; did you mean 'eval/reward'?"),
        (["status=lost"], "status: must be 'finished'"),
        (["status=interrupted"], "none of the 5 runs is interrupted"),
        (["ordre=min"], "ordre=min: unknown key; did you mean 'order'?"),
    ],
)
def test_mistakes_are_told(world: Path, arguments: list[str], words: str) -> None:
    done = here(world, main, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_to_list_is_told(tmp_path: Path) -> None:
    done = here(tmp_path, main)
    assert done.returncode == 1
    assert "no runs in outputs" in done.stderr


def test_broken_files_count_as_missing(world: Path) -> None:
    record = find_runs([world])[0]
    for name in ("run.json", "summary.json", "config.yaml"):
        (record.folder / name).write_text("{broken")
        os.utime(record.folder / name, (0, 0))  # nobody has written here for long
    again = read_run(record.folder)
    assert (again.model, again.objective, again.safeguard, again.digest) == (
        "tiny", "dpo", "on", "aaaaaaaa"
    )  # fmt: skip
    assert again.status == "died"
    assert again.config == {} == again.summary


def test_a_process_of_the_same_number_is_not_the_run(world: Path) -> None:
    ours = write_run(
        world, "tiny-dpo-on-ffffffff", None, host=socket.gethostname(), pid=os.getpid()
    )
    assert read_run(ours).status == "died"  # it began in January, this process today
    told = json.loads((ours / "run.json").read_text())
    (ours / "run.json").write_text(json.dumps({**told, "started": "2999-01-01T00:00:00+00:00"}))
    assert read_run(ours).status == "running"


def test_it_needs_no_torch(world: Path) -> None:
    code = "from sdpo_exp.cli.runs.runs import main; main()"
    watched = f"import sys; {code}; assert 'torch' not in sys.modules"
    done = python(world, "-c", watched, libraries=forks.LIGHT)
    assert done.returncode == 0, done.stderr
