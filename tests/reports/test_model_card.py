"""The model card: what the hub reads, what a person reads, and where nothing is known."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from sdpo_exp.reports.licences import EMBEDDED, LICENCES, licence_of
from sdpo_exp.reports.model_card import (
    Exported,
    end_of_run,
    is_hub_id,
    model_card,
    write_card,
)

ROOT = Path(__file__).parents[2]
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
LAST = Exported("last", 4, "float32")


def config(**model: Any) -> dict[str, Any]:
    return {
        "seed": 3,
        "lr": 2.048e-5,
        "effective_batch": 2048,
        "max_steps": 4,
        "warmup_steps": 1,
        "recipe": {"source": "the paper", "note": None},
        "model": {"_target_": "sdpo_exp.models.X", "pretrained": SD15, **model},
        "objective": {"_target_": "sdpo_exp.objectives.dpo.DPO", "beta": 5000.0},
        "safeguard": {"_target_": "sdpo_exp.safeguard.PreserveWinner", "mu": 0.9},
        "tuning": {"_target_": "sdpo_exp.models.tuning.FullTuning"},
        "optimizer": {"_target_": "torch.optim.AdamW"},
        "data": {
            "train": {
                "_target_": "sdpo_exp.data.table.TablePairs",
                "path": "yuvalkirstain/pickapic_v2",
            }
        },
    }


SUMMARY: dict[str, Any] = {
    "status": "finished",
    "steps": 4,
    "seconds": 1.0,
    "train": {},
    "probe": {
        "probe/winner_minus_ref": {"first": 0.0, "last": -0.0125},
        "probe/winner_minus_ref_se": {"first": 0.0, "last": 0.0031},
    },
    "evaluation": {
        "description": "8 images",
        "n": 8,
        "scores": {
            "reward": {
                "base": {"mean": 0.5, "standard_error": 0.1},
                "tuned": {"mean": 0.75, "standard_error": 0.1},
                "change": {"mean": 0.25, "standard_error": 0.0625},
            }
        },
    },
}
ENVIRONMENT: dict[str, Any] = {
    "git_revision": "f" * 40,
    "git_dirty": True,
    "versions": {"torch": "2.14.1", "wandb": None},
    "data_fingerprint": "abc123",
    "pairs": {"train": 851293, "validation": None},
    "base": {"pretrained": SD15, "commit": "0123abc", "unet": None},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "cell" / "time"
    (folder / "model").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    write(folder, config())
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return folder


def write(run: Path, content: dict[str, Any]) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump(content))


def code_of(card: str) -> str:
    return card.split("```python\n")[1].split("```")[0]


def test_the_hub_reads_the_front_matter(run: Path) -> None:
    card = ModelCard(model_card(run, run / "model", LAST))
    assert card.data.to_dict() == {
        "license": "creativeml-openrail-m",
        "base_model": SD15,
        "base_model_relation": "finetune",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "datasets": ["yuvalkirstain/pickapic_v2"],
        "tags": ["text-to-image", "diffusion", "preference-optimization", "dpo", "sdpo_exp"],
    }


def test_a_reader_finds_how_it_was_made_and_how_good_it_is(run: Path) -> None:
    card = model_card(run, run / "model", LAST)
    for line in (
        "# cell/time",
        "| objective | DPO (beta 5000.0) |",
        "| safeguard | PreserveWinner (mu 0.9) |",
        "| learning rate | 2.048e-05, after 1 steps of warm-up |",
        "| effective batch | 2048 pairs per optimiser step |",
        "| steps | 4 of 4 |",
        "| weights | as they were after the step; stored in float32 |",
        "| recipe | the paper |",
        f"| base | `{SD15}`, commit 0123abc |",
        "| data | `yuvalkirstain/pickapic_v2` (TablePairs); pairs: 851,293 train; "
        "fingerprint abc123 |",
        "Of the run's step 4 (finished).",
        "| reward | 0.500 | 0.750 | +0.250 | 0.062 |",
        "| winner drift | 0.0000 | -0.0125 | -0.0125 | 0.0031 |",
        f"| git revision | {'f' * 40}, changed |",
        "| torch | 2.14.1 |",
    ):
        assert line in card.splitlines(), line
    assert "wandb" not in card
    licences = card.split("## Licences")[1]
    assert f"- base `{SD15}`: [CreativeML Open RAIL-M](https://huggingface.co/spaces/" in licences
    assert "unknown: check yuvalkirstain/pickapic_v2" in licences


def test_weights_that_are_not_the_run_s_last_say_so(run: Path) -> None:
    best = {"step": 2, "value": 0.8125, "monitor": "probe/implicit_accuracy"}
    (run / "checkpoints" / "best.json").write_text(json.dumps(best))
    card = model_card(run, run / "model", Exported("best", 2, "float16"))
    assert "| steps | 2 of 4 |" in card
    assert "of the best step by the held-out probe; stored in float16" in card
    assert "The weights here are those of step 2." in card
    assert "Chosen by probe/implicit_accuracy, 0.8125 at that step." in card


def test_a_run_that_exports_its_average_says_so(run: Path) -> None:
    assert end_of_run(run) == LAST
    for export, weights in ((True, "ema"), (False, "last")):
        write(run, {**config(), "callbacks": {"ema": {"export": export}}})
        assert end_of_run(run).weights == weights


def test_what_is_not_known_is_not_guessed(run: Path, tmp_path: Path) -> None:
    content = config(pretrained="/somewhere/private/models/mine", vae="who/vae", unet="/a/b/u.pth")
    content["data"]["train"] = {"_target_": "mine.Pairs"}
    write(run, content)
    (run / "environment.json").unlink()
    (run / "summary.json").unlink()
    card = model_card(run, run / "model", LAST)
    data = ModelCard(card).data.to_dict()
    assert data["license"] == "unknown"
    assert not {"base_model", "base_model_relation", "datasets"} & data.keys()
    assert "- base `models/mine`: unknown: check models/mine\n" in card
    assert "- VAE `who/vae`: unknown: check who/vae\n" in card
    assert "- UNet weights `b/u.pth`: unknown: check b/u.pth\n" in card
    assert "The run has left no summary." in card
    assert "/somewhere" not in card


def test_the_embedded_world_s_card(run: Path) -> None:
    content = config(pretrained=None)
    content["data"]["train"] = {"_target_": "sdpo_exp.testbed.pairs.SyntheticPairs", "size": 9}
    write(run, content)
    (run / "model" / "pipeline.py").touch()
    card = model_card(run, run / "model", LAST)
    assert ModelCard(card).data.license == "apache-2.0"
    assert f"`{EMBEDDED}` (SyntheticPairs)" in card
    assert "from_pretrained(folder, trust_remote_code=True)" in code_of(card)


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        (
            "unet/pytorch_lora_weights.safetensors",
            [
                "from diffusers import AutoencoderKL, DiffusionPipeline",
                'vae = AutoencoderKL.from_pretrained("who/vae")',
                "pipeline = DiffusionPipeline.from_pretrained("
                f'"{SD15}", revision="0123abc", vae=vae)',
                "pipeline.load_lora_weights(folder)",
            ],
        ),
        (
            "transformer/pytorch_lora_weights.safetensors",
            [
                "pipeline.transformer.load_lora_adapter("
                'folder, weight_name="pytorch_lora_weights.safetensors")'
            ],
        ),
        ("unet.pth", ["pipeline.unet.load_state_dict(state)", 'folder = "."  # this one']),
        (
            "model_index.json",
            ["pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)"],
        ),
    ],
)
def test_the_code_fits_what_lies_in_the_folder(run: Path, file: str, lines: list[str]) -> None:
    write(run, config(vae="who/vae"))
    part, _, file = file.rpartition("/")
    save_file({f"{part}.down.lora_A.weight": torch.zeros(1)}, run / "model" / file)
    write_card(run, run / "model", Exported("last", 4, "bfloat16"))
    card = (run / "model" / "README.md").read_text()
    code = code_of(card)
    ast.parse(code)
    assert set(lines) <= set(code.splitlines())
    adapter = file.startswith("pytorch")
    data = ModelCard(card).data.to_dict()
    assert ("lora" in data["tags"]) == adapter
    assert data["base_model_relation"] == ("adapter" if adapter else "finetune")


def test_a_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    assert is_hub_id("owner/name")
    assert not is_hub_id("outputs/mine")
    assert not any(map(is_hub_id, (None, EMBEDDED, "/a/b", "name", "a/b/c")))


def test_the_licences_page_has_every_entry() -> None:
    rows = (ROOT / "docs" / "licences.md").read_text().splitlines()
    for source, licence in LICENCES.items():
        assert f"| {source} | [{licence.name}]({licence.url}) | {licence.note} |" in rows
    assert len([row for row in rows if row.startswith("| ")]) == len(LICENCES) + 1
    assert licence_of("someone/else").name == "unknown: check someone/else"
