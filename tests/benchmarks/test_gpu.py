"""The GPU benchmark and its naive loop run, small, without a GPU."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import cells
from benchmarks.naive import NaiveLoop
from benchmarks.ovis_u1 import PARAMETERS
from benchmarks.step_time import build, random_batch
from sdpo_exp.models.yak import YakTransformer
from tests.cli.command import ROOT, python

SCRIPT = ROOT / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python(ROOT, SCRIPT, *arguments)


@pytest.mark.slow
def test_every_way_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = run("--small", "--steps", "1", "--group", "sdxl-lora", "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert [cell for cell in found["cells"] if "failed" in cell] == []
    ways = {cell["way"] for cell in found["cells"]}
    assert ways >= {"naive", "eager", "eager, cached", "compiled", "compiled, cached"}
    for cell in found["cells"]:
        assert cell["tflops"] == pytest.approx(cell["tflop"] / cell["seconds"])
        assert cell["pairs_per_second"] == pytest.approx(cell["pairs"] / cell["seconds"])
        assert f"{cell['seconds']:.3f}" in done.stdout


@pytest.mark.slow
def test_ovis_u1_is_measured_but_for_what_only_unets_have() -> None:
    found = list(cells("ovis-u1-lora", small=True, steps=1))
    assert [cell for cell in found if "failed" in cell] == []
    ways = {cell["way"] for cell in found}
    assert ways >= {"eager", "eager, cached", "compiled", "compiled, cached"}
    assert not ways & {"naive", "eager, cached, channels last"}
    assert all(cell["tflop"] > 0 for cell in found)
    (full,) = itertools.islice(cells("ovis-u1-full", small=True, steps=1), 1)
    assert full["seconds"] > 0


def test_the_generator_measured_is_of_the_released_size() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in YakTransformer().parameters()) == PARAMETERS


@pytest.mark.slow
def test_what_no_time_is_left_for_is_said(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = run("--small", "--budget", "1", "--group", "sd15-full", "--out", str(out))
    assert done.returncode == 0
    assert json.loads(out.read_text())["cells"][-1]["failed"] == "out of time"
    assert "out of time" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_full_size_is_refused() -> None:
    done = run()
    assert done.returncode == 1
    assert "no GPU here" in done.stderr


def test_the_naive_loop_trains_what_ours_trains() -> None:
    cell = {"tuning": "full", "checkpointing": False, "compile": False}
    module = build("sd15", cell, True, "cpu")
    optimizer = torch.optim.SGD(module.policy.parameters(), lr=0.0)
    told = NaiveLoop(module, beta=1.0).step(random_batch(2, 64, "cpu"), optimizer)
    assert set(told) >= {"loss", "lambda", "winner_drift", "loser_drift", "accuracy"}
    assert len(told) == 8
    # Errors of the reference are rounded to bf16, as there: near ln 2, not on it.
    assert told["loss"] == pytest.approx(math.log(2), abs=0.01)
    assert 0.0 <= told["lambda"] <= 1.0
