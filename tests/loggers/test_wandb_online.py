"""Online runs reach the server, and no end of the server is one of the training."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from sdpo_exp.cli.dashboard.dashboard import main as dashboard
from sdpo_exp.loggers.offline import find_runs, read_run
from sdpo_exp.loggers.wandb_run import WandbRun
from sdpo_exp.loggers.wandb_session import close_run
from tests.cli.command import here, python
from tests.loggers.server import Server, serving
from tests.loggers.test_wandb_run import ours

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def logger(folder: Path, **options: Any) -> WandbRun:
    folder.mkdir(exist_ok=True)
    return WandbRun(str(folder), offline=False, **options)


def test_an_online_run_reaches_the_server(tmp_path: Path, server: Server) -> None:
    run = logger(tmp_path / "run", name="dpo-on", group="grid", tags=["tiny"])
    run.log_hyperparams({"safeguard.mu": 0.9})
    for step in range(3):
        run.log_metrics({"loss": float(step)}, step)
    run.finalize("success")
    close_run(failed=False)
    ((name, told),) = server.runs.items()
    assert (told["displayName"], told["groupName"], told["tags"]) == ("dpo-on", "grid", ["tiny"])
    assert json.loads(told["config"])["safeguard"]["value"] == {"mu": 0.9}
    assert [row["trainer/global_step"] for row in server.history[name]] == [0, 1, 2]
    assert "wandb-summary.json" in server.uploads


def test_a_server_that_goes_away_leaves_the_run_on_the_disk(tmp_path: Path, server: Server) -> None:
    run = logger(tmp_path / "run", wait_at_end=2.0)
    run.log_metrics({"loss": 0.0}, 0)
    server.stop()
    started = time.monotonic()
    for step in range(1, 50):
        run.log_metrics({"loss": float(step)}, step)
    run.finalize("success")
    close_run(failed=False)
    assert time.monotonic() - started < 20
    wandb.teardown()
    (path,) = find_runs(tmp_path)
    assert [row["loss"] for row in read_run(path).history] == list(range(50))


def end_service() -> None:
    """End W&B's own process, a child of this one, as if it had crashed."""
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True
    )
    lines = [line.split() for line in listed.stdout.splitlines()]
    (pid,) = [int(pid) for pid, name, *_ in lines if name == "wandb-core"]
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)


def test_the_end_of_wandbs_process_is_told_and_the_next_run_has_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("first", "next"):
        (tmp_path / name).mkdir()
    run = WandbRun(str(tmp_path / "first"))
    run.log_metrics({"loss": 0.0}, 0)
    end_service()
    with caplog.at_level(logging.WARNING, "sdpo_exp"):
        for step in range(1, 5):
            run.log_metrics({"loss": float(step)}, step)
            run.log_table("table", ["a"], [[1]], step=step)
        run.finalize("success")
        close_run(failed=False)
    told = ours(caplog)
    assert len(told) == 2
    assert "the training goes on" in told[0]
    assert "upload what is left with: wandb sync" in told[1]
    WandbRun(str(tmp_path / "next")).log_metrics({"loss": 1.0}, 1)
    close_run(failed=False)
    wandb.teardown()
    (path,) = find_runs(tmp_path / "next")
    assert read_run(path).summary["loss"] == 1


def test_an_offline_run_is_synced_later_with_its_tables(tmp_path: Path, server: Server) -> None:
    run = WandbRun(str(tmp_path), name="dmpo-off")
    run.log_metrics({"loss": 1.0, "probe/t0.5/margin": 0.1}, 3)
    run.finalize("success")
    close_run(failed=False)
    wandb.teardown()
    assert server.runs == {}
    (path,) = find_runs(tmp_path)
    done = python(tmp_path, "-m", "wandb", "sync", str(path.parent), extra=server.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    ((name, told),) = server.runs.items()
    assert told["displayName"] == "dmpo-off"
    assert [row["trainer/global_step"] for row in server.history[name]] == [3]
    assert any("probeby_time" in artifact for artifact in server.artifacts)


def test_the_dashboard_is_saved_and_its_address_printed(tmp_path: Path, server: Server) -> None:
    done = here(tmp_path, dashboard, "project=grid")
    assert done.returncode == 0, done.stderr
    (view,) = server.views
    assert (view["entityName"], view["projectName"]) == ("lab", "grid")
    assert view["displayName"] == "objectives and safeguard"
    assert "safeguard/lambda_mean" in view["spec"]
    code = view["name"].removeprefix("nw-").removesuffix("-v")
    assert f"{server.url}/lab/grid?nw={code}" in done.stdout
    assert not list(tmp_path.glob("outputs/dashboard/*/dashboard.json"))
