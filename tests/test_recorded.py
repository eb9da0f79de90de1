"""What an earlier revision left (tests/recorded/) is read by every command of today."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sdpo_exp.config.cell_name import config_hash, register_resolvers
from sdpo_exp.config.composition import compose_cell
from tests.cli.command import here, metric_rows, run

RECORDED = Path(__file__).with_name("recorded")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    shutil.copytree(RECORDED, tmp_path / "outputs")
    return tmp_path


def call(folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = here(folder, importlib.import_module(f"sdpo_exp.{command}").main, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def run_of(folder: Path, safeguard: str) -> Path:
    return next((folder / "outputs" / "sweep").glob(f"tiny-dpo-{safeguard}-*/*"))


@pytest.mark.parametrize("safeguard", ["on", "off"])
def test_a_cell_keeps_its_hash(work: Path, safeguard: str) -> None:
    register_resolvers()
    told = json.loads((run_of(work, safeguard) / "run.json").read_text())
    composed = compose_cell("train", told["overrides"])
    assert composed.config is not None
    assert config_hash(composed.config) == told["hash"]


def test_runs_lists_and_compares_them(work: Path) -> None:
    listed = call(work, "runs", "outputs/sweep").stdout
    assert listed.count("finished") == 2
    told = call(work, "runs", *(str(run_of(work, s)) for s in ("on", "off"))).stdout
    assert "safeguard" in told


def test_report_makes_its_page(work: Path) -> None:
    assert "2 cells, 2 runs: 2 finished" in call(work, "report", "outputs/sweep").stdout


def test_compare_reads_its_scores(work: Path) -> None:
    paths = [f"outputs/evaluate/{name}" for name in ("base", "tuned")]
    call(work, "compare", *paths, "folder=compared", "resamples=50")
    told = json.loads((work / "compared" / "comparison.json").read_text())
    assert "tiny_reward" in json.dumps(told)


@pytest.mark.slow
def test_evaluate_goes_on_in_its_folder(work: Path) -> None:
    folder = work / "outputs" / "evaluate" / "tuned"
    before = (folder / "scores.parquet").read_bytes()
    call(work, "evaluate", "images=outputs/evaluate/tuned", "folder=again")
    assert "tiny_reward" in (work / "again" / "evaluation.md").read_text()
    assert (folder / "scores.parquet").read_bytes() == before


@pytest.mark.slow
def test_export_and_generate_take_its_checkpoint(work: Path) -> None:
    call(work, "export", f"checkpoint={run_of(work, 'on')}", "folder=exported")
    weights = load_file(work / "exported" / "unet" / "diffusion_pytorch_model.safetensors")
    assert not any("lora" in name for name in weights)
    call(work, "generate", "checkpoint=exported", "prompt='a red circle'", "steps=1")


def test_a_training_goes_on_from_it(work: Path) -> None:
    first = run_of(work, "on")
    done = run(work, f"resume={first}", "max_steps=4", "run_dir=resumed")
    assert done.returncode == 0, done.stderr
    steps = [row["step"] for row in metric_rows(work / "resumed") if row["train/loss"]]
    assert steps == ["1", "2", "3", "4"]
