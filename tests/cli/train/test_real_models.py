"""The user's own command lines, on tiny checkpoints that lie where the released ones would."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.checkpoints import SDXL_ID, VAE_FIX_ID, save_sd15
from tests.cli.command import python, run_folders
from tests.hub_cache import DATA_ID, SMALL_REAL, environment_of, fill
from tests.pickapic import write_split


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("home") / "hub")


def run(folder: Path, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "sdpo_exp", *arguments, extra=environment_of(cache))


def steps(run_folder: Path) -> list[dict[str, str]]:
    with (run_folder / "metrics.csv").open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get("train/loss")]


@pytest.mark.slow
def test_the_users_own_command(cache: Path, tmp_path: Path) -> None:
    done = run(tmp_path, cache, "model=sdxl", "objective=dmpo", "safeguard=true", *SMALL_REAL)
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path)
    assert "recipe: Diffusion-SDPO" in done.stdout
    assert "beta=6000, alpha=0.01, mu=0.6, lr=2.048e-06" in done.stdout
    assert "START-UP CHECK FAILED" not in done.stdout + done.stderr
    rows = steps(folder)
    assert len(rows) == 2
    assert float(rows[0]["pair/margin"]) == 0.0
    assert float(rows[0]["safeguard/lambda_mean"]) < 1.0
    assert "static memory" in done.stdout
    with (folder / "metrics.csv").open(newline="") as stream:
        assert "val/implicit_accuracy" in next(csv.reader(stream))
    made = json.loads((folder / "environment.json").read_text())
    assert made["data_fingerprint"]
    assert SDXL_ID in json.dumps(made)
    pipeline = DiffusionPipeline.from_pretrained(folder / "model")
    assert type(pipeline).__name__ == "StableDiffusionXLPipeline"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("model=sd15", "objective=dpo", "safeguard=false"),
        ("model=sd15", "objective=dspo", "safeguard=true", "tuning=lora"),
        ("model=sd15", "experiment=official_protocol", "trainer.precision=32-true"),
        ("model=sd15", "data=pickapic_v2_stream"),
    ],
    ids=" ".join,
)
def test_sd15_cells(cache: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, cache, *arguments, *SMALL_REAL)
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path)
    rows = steps(folder)
    assert len(rows) == 2
    assert float(rows[0]["pair/margin"]) == 0.0
    assert (folder / "summary.md").is_file()
    assert (folder / "model").is_dir()


@pytest.mark.slow
def test_without_network_or_cache_one_message_names_everything(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path / "empty", "model=sdxl", "objective=dmpo", "safeguard=true")
    assert done.returncode == 1
    message = done.stderr
    for part in (
        SDXL_ID,
        DATA_ID,
        VAE_FIX_ID,
        f"hf download {SDXL_ID}",
        f"hf download {DATA_ID} --repo-type dataset",
        "model.pretrained=/path/to/folder",
        "data.train.path=",
        "nothing was run",
    ):
        assert part in message, part
    assert message.count(f"hf download {DATA_ID}") == 1
    assert "Traceback" not in message
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_local_path_is_as_good_as_an_id(cache: Path, tmp_path: Path) -> None:
    model = save_sd15(tmp_path / "my_model")
    write_split(tmp_path / "my_data", "train", 10)
    write_split(tmp_path / "my_data", "validation_unique", 10, first=50)
    done = run(
        tmp_path,
        cache.parent / "nothing",
        "model=sd15",
        f"model.pretrained={model.name}",
        "data.train.path=my_data",
        *SMALL_REAL,
    )
    assert done.returncode == 0, done.stderr
    assert len(steps(run_folders(tmp_path)[0])) == 2


@pytest.mark.slow
def test_public_unet_weights_start_a_run(cache: Path, tmp_path: Path) -> None:
    from tests.checkpoints import small_sd_unet

    torch.manual_seed(5)
    torch.save(small_sd_unet().state_dict(), tmp_path / "unet.pth")
    losses = []
    for extra in ((), ("model.unet=unet.pth",)):
        done = run(tmp_path, cache, "model=sd15", "max_steps=1", *SMALL_REAL[1:], *extra)
        assert done.returncode == 0, done.stderr
    for folder in run_folders(tmp_path):
        losses.append(steps(folder)[0]["pair/winner_error"])
    assert len(set(losses)) == 2


def test_a_wrong_choice_of_the_model_is_told_at_once(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path / "empty", "model=sd15", "model.vae_dtype=half")
    assert done.returncode == 1
    assert "model.vae_dtype" in done.stderr
    assert "'auto', 'float32', 'bfloat16' or 'float16'" in done.stderr


def test_the_cache_is_not_written_to(cache: Path) -> None:
    for repo in cache.iterdir():
        assert {path.name for path in repo.iterdir()} <= {"refs", "snapshots", "blobs"}, os.fspath(
            repo
        )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_base_beside_tuned_at_the_end_of_a_run(cache: Path, tmp_path: Path, model: str) -> None:
    chosen = (f"model={model}", "evaluation=prompts", "evaluation.n=3", "evaluation.steps=2")
    done = run(tmp_path, cache, *chosen, *SMALL_REAL)
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path)
    captions = [row["prompt"] for row in scores(folder) if row["model"] == "tuned"]
    assert len(set(captions)) == 3
    assert all(caption.startswith("photograph number 10") for caption in captions)
    drawn = [len(list((folder / "samples" / name).glob("*.png"))) for name in ("base", "tuned")]
    assert drawn == [3, 3]
    assert not (folder / "evaluation.json").exists()
    assert "](plots/before_after.png)" in (folder / "summary.md").read_text()
    assert "](before_after.png)" in (folder / "model" / "README.md").read_text()
    assert (folder / "model" / "before_after.png").is_file()


def scores(run_folder: Path) -> list[dict[str, str]]:
    with (run_folder / "scores.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))
