"""`python -m sdpo_exp.dashboard`: what a dry run writes, and what it refuses in words."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import wandb

from sdpo_exp.cli.dashboard.dashboard import main
from sdpo_exp.config.command_line import rewrite_dry_run
from tests.cli.command import here, python

KEY = "0123456789abcdef" * 3
NO_ACCOUNT = {"NETRC": "none", "WANDB_CONFIG_DIR": "none", "WANDB_API_KEY": ""}


def dry(folder: Path, *arguments: str) -> Any:
    done = here(folder, main, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("outputs/dashboard/*/dashboard.json")
    return json.loads(path.read_text())


def test_a_dry_run_writes_what_would_be_saved(tmp_path: Path) -> None:
    content = dry(tmp_path, "entity=lab", "metrics=[pickscore]")
    assert (content["entity"], content["project"]) == ("lab", "sdpo_exp")
    section = content["spec"]["section"]
    (runset,) = section["runSets"]
    grouping = [(key["section"], key["name"]) for key in runset["grouping"]]
    assert grouping == [("config", "cell.value.objective"), ("config", "cell.value.safeguard")]
    assert section["settings"]["xAxis"] == "trainer/global_step"
    banks = section["panelBankConfig"]["sections"]
    assert [bank["name"] for bank in banks][:2] == ["Winner drift and margin", "Safeguard"]
    assert sum(len(bank["panels"]) for bank in banks) == len(content["panels"])
    winner = banks[0]["panels"][0]["config"]
    assert winner["metrics"] == ["pair/winner_minus_ref"]
    assert winner["groupBy"] == "cell.value.safeguard"
    by_time = banks[2]["panels"][0]["config"]
    assert by_time["useMetricRegex"]
    assert by_time["metricRegex"] == "probe/t[^/]+/winner_minus_ref"
    types = [panel["viewType"] for bank in banks for panel in bank["panels"]]
    assert {"Run History Line Plot", "Bar Chart", "Media Browser", "Weave"} == set(types)
    assert "eval/pickscore" in json.dumps(section)
    assert content["missing"] is None


def test_a_group_is_filtered(tmp_path: Path) -> None:
    (runset,) = dry(tmp_path, "group=grid")["spec"]["section"]["runSets"]
    assert "grid" in json.dumps(runset["filters"])


@pytest.mark.slow
def test_what_runs_lack_is_named(tmp_path: Path) -> None:
    with wandb.init(project="p", dir=tmp_path, mode="offline", settings={"silent": True}) as run:
        run.log({"train/loss": 1.0, "probe/t0.5/margin": 0.1}, step=1)
    wandb.teardown()
    content = dry(tmp_path, f"runs={tmp_path}")
    assert "Run: Pairs per second: 1 of 1 runs lack perf/pairs_per_second" in content["missing"]
    lacked = {line.rpartition(" ")[2] for line in content["missing"]}
    assert "probe/t[^/]+/winner_minus_ref" in lacked
    assert not {"train/loss", "probe/t[^/]+/margin"} & lacked


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs=nowhere"], "runs=nowhere: no such folder"),
        (["projekt=x"], "projekt"),
        (["--dry-run", "folder=."], "folder=. exists"),
        (["runs=."], "no run of W&B below it; train with logger=[csv,wandb]"),
    ],
)
def test_mistakes_are_told_in_words(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = here(tmp_path, main, *arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = here(tmp_path, main, "--dry-run")
    assert "pip install 'sdpo_exp[dashboard]'" in done.stderr
    assert done.returncode != 0


def online(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "sdpo_exp.dashboard", extra={**NO_ACCOUNT, **environment})


def test_without_a_key_it_says_what_to_do(tmp_path: Path) -> None:
    done = online(tmp_path)
    assert done.returncode != 0
    assert "no API key: run `wandb login`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = online(tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    assert done.returncode != 0
    assert f"{url} cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_flag_is_rewritten_in_place() -> None:
    argv = ["command", "--dry-run", "name=--dry-run"]
    rewrite_dry_run(argv)
    assert argv == ["command", "dry_run=true", "name=--dry-run"]
    assert os.environ.get("WANDB_MODE") is None
