"""A sweep runs every cell once, whatever happens to the others, and says how each ended."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import takewhile
from pathlib import Path

import pytest

from sdpo_exp.reports.run_records import find_runs, read_run
from tests.cli.command import BARE, environment, metric_rows, python, run, run_folders
from tests.cli.command import ROOT as PROJECT

ROOT = Path("outputs/run")


def statuses(said: str) -> dict[str, str]:
    """Label -> status, from the table at the end."""
    header = re.search(r"^cell +status", said, re.MULTILINE)
    assert header is not None
    lines = said[header.start() :].strip().splitlines()[1:]
    rows = [line.split("  ") for line in takewhile(lambda line: not line[0].isdigit(), lines)]
    return {row[0].strip(): next(part.strip() for part in row[1:] if part.strip()) for row in rows}


def test_a_failing_cell_does_not_stop_the_others(tmp_path: Path) -> None:
    callbacks = ("callbacks=[winner_loss,probe]", "callbacks.probe.times=[0.5]")
    limits = ("max_steps=1", *callbacks, "evaluation=off")
    done = run(tmp_path, "-m", "callbacks.probe.pairs=999,4", "seed=0", *limits, "objective=sft")
    assert done.returncode == 1
    assert "1 of 2 cells are not done; the same command runs these again" in done.stderr
    assert "callbacks.probe.pairs=999: the data has 200 held-out pairs" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    said = statuses(done.stdout)
    assert said == {"callbacks.probe.pairs=999": "failed", "callbacks.probe.pairs=4": "done"}
    records = find_runs([tmp_path / ROOT])
    assert sorted(record.status for record in records) == ["failed", "finished"]
    assert "callbacks.probe.pairs=999" in next(r.reason for r in records if r.status == "failed")


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "reason"),
    [("Leaves", "exit 3"), ("Breaks", "RuntimeError: a mistake of the callback's own")],
)
def test_whatever_happens_in_a_cell_stays_there(tmp_path: Path, name: str, reason: str) -> None:
    bad = f"+callbacks.bad._target_=lightning.Callback,tests.callbacks.leaving.{name}"
    done = run(tmp_path, "-m", bad, *BARE)
    assert done.returncode == 1
    assert sorted(statuses(done.stdout).values()) == ["done", "failed"]
    (failed,) = (r for r in find_runs([tmp_path / ROOT]) if r.status == "failed")
    assert failed.reason == reason
    assert (failed.folder / "error.txt").is_file() == (name == "Breaks")


@pytest.mark.slow
def test_a_second_run_does_only_what_is_missing(tmp_path: Path) -> None:
    first = run(tmp_path, "-m", "seed=0,1", *BARE)
    assert statuses(first.stdout) == {"seed=0": "done", "seed=1": "done"}
    before = {folder: metric_rows(folder) for folder in run_folders(tmp_path)}
    again = run(tmp_path, "-m", "seed=0,1,2", *BARE)
    assert again.returncode == 0
    assert statuses(again.stdout) == {"seed=0": "skipped", "seed=1": "skipped", "seed=2": "done"}
    assert "1 done, 2 skipped" in again.stdout
    assert len(run_folders(tmp_path)) == 3
    assert len(list((tmp_path / ROOT).glob("*/*/"))) == 3  # nothing is left of what was skipped
    assert {folder: metric_rows(folder) for folder in before} == before
    redone = run(tmp_path, "-m", "seed=0,1", "redo=true", *BARE)
    assert statuses(redone.stdout) == {"seed=0": "done", "seed=1": "done"}
    assert len(run_folders(tmp_path)) == 5


@pytest.mark.slow
def test_another_setting_is_another_cell(tmp_path: Path) -> None:
    run(tmp_path, "-m", "seed=0", *BARE)
    done = run(tmp_path, "-m", "seed=0", "lr=1e-5", *BARE)
    assert "1 done" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_a_cell_s_own_command_is_that_cell_again(tmp_path: Path) -> None:
    small = ("seed=0", "hydra.sweeper.params.objective='dpo,sft'", "safeguard=off")
    done = run(tmp_path, "experiment=sweep_objective_safeguard", *small, *BARE)
    assert done.returncode == 0, done.stderr
    records = find_runs([tmp_path / "outputs"])
    assert [record.objective for record in records] == ["dpo", "sft"]
    words = shlex.split(records[0].command or "")
    assert words[:3] == ["python", "-m", "sdpo_exp"]
    alone = run(tmp_path, *words[3:], "name=alone")
    assert alone.returncode == 0, alone.stderr
    (one,) = find_runs([tmp_path / "outputs" / "alone"])
    assert one.digest == records[0].digest
    assert metric_rows(one.folder) == metric_rows(records[0].folder)


def begin(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sdpo_exp", *arguments],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status"),
    [(signal.SIGKILL, "died"), (signal.SIGINT, "interrupted")],
    ids=["kill", "interrupt"],
)
def test_a_stopped_sweep_goes_on_with_what_is_missing(
    tmp_path: Path, how: signal.Signals, status: str
) -> None:
    # The second cell alone takes long enough to be stopped in the middle.
    arguments = ("-m", "max_steps=1,400", "seed=0,1", *BARE[1:])
    process = begin(tmp_path, *arguments)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / ROOT).glob("*maxsteps400*/*/metrics.csv"))) < 1:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    said, complaint = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in complaint
    found = sorted(record.status for record in find_runs([tmp_path / ROOT]))
    assert found == sorted(["finished", "finished", status])
    if how == signal.SIGINT:
        assert "interrupted; the same command goes on with what is missing" in complaint
        assert sorted(statuses(said).values()) == ["done", "done", "interrupted", "not run"]
    finished = {r.folder: r.started for r in find_runs([tmp_path / ROOT]) if r.status == "finished"}
    short = [argument.replace("400", "2") for argument in arguments]
    assert python(tmp_path, "-m", "sdpo_exp", *short).stdout.count("done before") == 2
    assert {folder: read_run(folder).started for folder in finished} == finished


@pytest.mark.slow
def test_make_ablation_sweeps_and_reports(tmp_path: Path) -> None:
    """The target itself, with two cells of its sweep."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(PROJECT / name)
    binaries = Path(sys.executable).parent
    limits = shlex.join(["objective=dpo", "seed=0", *BARE])
    stamp = tmp_path / "installed"
    stamp.touch()
    done = subprocess.run(
        ["make", "ablation", f"BIN={binaries}", f"STAMP={stamp}", f"ARGS={limits}"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(statuses(done.stdout).values()) == ["done", "done"]
    assert (tmp_path / "outputs" / "ablation" / "report" / "index.html").stat().st_size > 1e6


def test_the_record_of_a_run(tmp_path: Path) -> None:
    done = run(tmp_path, *BARE, "seed=3", "objective=dspo", "safeguard=off")
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path)
    told = json.loads((folder / "run.json").read_text())
    assert (told["model"], told["objective"], told["safeguard"]) == ("tiny", "dspo", "off")
    assert folder.parent.name.endswith(told["hash"])
    assert told["command"].endswith("seed=3 objective=dspo safeguard=off")
    record = read_run(folder)
    assert (record.status, record.seed, record.name) == ("finished", 3, "run")
    assert record.metric("pair/margin") == pytest.approx(0.0, abs=1e-6)
    assert record.warnings == []
