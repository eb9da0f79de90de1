"""The commands of docs/wandb.md, one after the other, with a server on the loopback."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import wandb

from sdpo_exp.cli.dashboard.dashboard import main as dashboard
from tests.cli.command import BARE, SMALL, here, run
from tests.docs.test_documented_commands import ROOT, blocks
from tests.loggers.server import Server, serving

LINES = [
    line.split("  #")[0].strip()
    for page, body in blocks("bash")
    if page == "wandb.md"
    for line in body.splitlines()
]


def dashboards() -> list[list[str]]:
    lines = [line for line in LINES if line.startswith("python -m sdpo_exp.dashboard ")]
    return [shlex.split(line)[3:] for line in lines]


def train(folder: Path, arguments: Sequence[str]) -> None:
    done = run(folder, *arguments, *(BARE if "-m" in arguments else SMALL))
    assert done.returncode == 0, done.stdout + done.stderr


def sync(folder: Path, server: Server) -> None:
    """By a shell, for the line has wildcards; W&B's command lies beside the interpreter."""
    (line,) = [line for line in LINES if line.startswith("wandb sync ")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **server.environment, "PATH": path}
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_commands_follow_on_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline, sweep, online = [
        shlex.split(line)[3:] for line in LINES if line.startswith("python -m sdpo_exp ")
    ]
    saving, dry_run = dashboards()
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    wandb.teardown()
    with serving() as server:
        train(tmp_path, offline)
        train(tmp_path, sweep)
        wandb.teardown()
        assert server.runs == {}
        dry = here(tmp_path, dashboard, *dry_run)
        assert dry.returncode == 0, dry.stderr
        assert "6 of 6 runs lack eval/reward" in dry.stdout
        sync(tmp_path, server)
        assert {told["groupName"] for told in server.runs.values()} == {"grid"}
        assert len(server.runs) == 6
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        wandb.teardown()
        train(tmp_path, online)
        assert len(server.runs) == 7
        saved = here(tmp_path, dashboard, *saving)
        assert saved.returncode == 0, saved.stderr
        assert f"{server.url}/lab/sdpo_exp?nw=" in saved.stdout
        wandb.teardown()


def test_keys_named_on_the_page_are_keys() -> None:
    page = (ROOT / "docs" / "wandb.md").read_text()
    conf = (ROOT / "conf" / "logger" / "wandb.yaml").read_text()
    for key in ("project", "entity", "timeout", "wait_at_end", "log_model", "id", "resume"):
        assert f"`{key}`" in page
        assert f"  {key}:" in conf
