"""The full-size networks are the released ones, and the GPU script runs (small, without a GPU)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks import step_time
from benchmarks.full_size import PARAMETERS, UNETS, build_unet
from sdpo_exp.models.tuning import LoraTuning
from tests.cli.command import ROOT, python

SCRIPT = ROOT / "benchmarks" / "step_time.py"


@pytest.mark.parametrize("model", UNETS)
def test_parameter_counts_are_the_released_models(model: str) -> None:
    network = build_unet(model, "meta")
    expected = {"sd15": 859_520_964, "sdxl": 2_567_463_684}[model]
    assert sum(p.numel() for p in network.parameters()) == expected == PARAMETERS[model]


@pytest.mark.parametrize(("model", "million"), [("sd15", 6.4), ("sdxl", 46.4)])
def test_lora_of_rank_32_has_the_known_size(model: str, million: float) -> None:
    network = build_unet(model, "meta")
    LoraTuning(rank=32, alpha=32).apply(network)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained / 1e6 == pytest.approx(million, abs=0.05)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python(ROOT, SCRIPT, *arguments)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_full_size_is_refused() -> None:
    done = run("--model", "sd15")
    assert done.returncode == 1
    assert "no GPU here" in done.stderr


@pytest.mark.slow
def test_the_script_measures_its_cells(tmp_path: Path) -> None:
    """Two of the eight, one of them compiled; each in a process of its own."""
    assert len(step_time.CELLS) == 8
    two = (
        "from benchmarks import step_time\nstep_time.CELLS = step_time.CELLS[:2]\nstep_time.main()"
    )
    out = tmp_path / "result.json"
    words = ("--model", "sd15", "--small", "--steps", "1", "--warm-up", "1", "--out", str(out))
    done = python(ROOT, "-c", two, *words, nested=True)
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert content["size"] == "small"
    assert [cell["compile"] for cell in content["cells"]] == [False, True]
    assert all(cell["seconds"] > 0 for cell in content["cells"]), content["cells"]
