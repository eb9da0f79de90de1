"""Ovis-U1 from the command line: trained, exported as released, reloaded, drawn and scored."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sdpo_exp import load_pipeline
from sdpo_exp.cli.evaluate import evaluate
from sdpo_exp.cli.export import export
from sdpo_exp.cli.generate import generate
from sdpo_exp.cli.train import train
from sdpo_exp.models.ovis_u1 import OvisU1
from tests.cli.command import here
from tests.models.ovis_u1.folder import write

# Size limits and nothing else.
SMALL = (
    "data=tiny", "resolution=32", "trainer.precision=32-true", "model.text_dtype=float32",
    "max_steps=2", "warmup_steps=0", "effective_batch=4", "data.micro_batch=4",
    "callbacks.probe.pairs=4", "callbacks.probe.times=[0.5]",
)  # fmt: skip
CELL = ("model=ovis_u1", "model.pretrained=base", "objective=dmpo", "safeguard=true", "lr=1e-3")
IMAGES = ("evaluation=prompts", "evaluation.n=2", "evaluation.steps=1", "evaluation.height=32",
          "evaluation.width=32")  # fmt: skip
DRAWN = ("height=32", "width=32", "steps=2", "guidance=5")


def said(folder: Path, body: Callable[[], None], *words: str, code: int = 0) -> str:
    done = here(folder, body, *words)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps, `run`, and of one with adapters, `adapted`."""
    root = tmp_path_factory.mktemp("ovis_u1")
    write(root / "base")
    said(root, train.main, *CELL, *SMALL, *IMAGES, "run_dir=run")
    lora = ("tuning=lora", "tuning.rank=4", "tuning.alpha=8", "callbacks=[probe,checkpoint]")
    said(root, train.main, *CELL, *SMALL, *lora, "safeguard=projection", "run_dir=adapted")
    return root


def image(pipeline: Any) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    sides = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "pt"}
    found: Tensor = pipeline("a red circle", generator=noise, **sides).images
    return found


def apart(ours: Any, theirs: Any) -> float:
    return float((image(ours) - image(theirs)).abs().max())


@pytest.mark.slow
def test_a_run_says_what_its_numbers_rest_on_and_begins_at_no_margin(root: Path) -> None:
    with (root / "run" / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("train/loss")]
    assert len(rows) == 2
    assert float(rows[0]["pair/margin"]) == 0
    assert 0 < float(rows[0]["safeguard/lambda_mean"]) <= 1
    assert (root / "run" / "plots" / "before_after.png").is_file()
    card = (root / "run" / "model" / "README.md").read_text()
    assert "none published; Diffusion-SDPO's values for SDXL" in card
    assert "sdpo_exp.load_pipeline(folder)" in card


@pytest.mark.slow
def test_a_run_is_exported_in_the_layout_of_the_release(root: Path) -> None:
    said(root, export.main, "checkpoint=run", "folder=whole")
    exported = load_pipeline(root / "whole")
    assert apart(exported, load_pipeline(root / "run")) < 1e-5
    assert apart(exported, load_pipeline(root / "base")) > 1e-3
    for file in (root / "base").glob("*.safetensors"):
        before, after = load_file(file), load_file(root / "whole" / file.name)
        assert before.keys() == after.keys()
        others = [name for name in before if not name.startswith("visual_generator.backbone.")]
        assert all(torch.equal(before[name], after[name]) for name in others)
    again = ("model.pretrained=whole", "run_dir=again", "safeguard=false")
    said(root, train.main, *CELL, *SMALL, *again, "callbacks=[probe]")  # a base like any other
    told = said(root, export.main, "checkpoint=run", "folder=unet", "format=unet_pth", code=1)
    assert "format=unet_pth: the model has a transformer and no UNet" in told
    assert "Traceback" not in told


@pytest.mark.slow
def test_adapters_are_exported_alone_or_merged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # the base's folder is told as it was given
    said(root, export.main, "checkpoint=adapted", "folder=merged")
    said(root, export.main, "checkpoint=adapted", "folder=lora", "format=lora")
    merged = load_pipeline("merged")
    assert apart(load_pipeline("adapted"), merged) < 1e-5
    assert apart(merged, OvisU1("base", text_dtype="float32").pipeline()) > 1e-4
    card = (root / "lora" / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace('folder = "."', 'folder = "lora"'), names)
    assert apart(names["pipeline"], merged) < 1e-5


@pytest.mark.slow
def test_a_run_a_folder_and_adapters_are_drawn_and_scored(root: Path) -> None:
    said(root, generate.main, "prompt=a red circle", "checkpoint=run", "folder=one", "n=2", *DRAWN)
    pictures = {f.relative_to(root / "one").as_posix() for f in (root / "one").rglob("*.png")}
    assert pictures == {"grid.png", "000.png", "001.png", "base/000.png", "base/001.png"}
    scored = ("prompts=tiny_few", "prompts.n=2", "metric=[tiny_reward]", *DRAWN)
    for checkpoint in ("run", "base"):
        said(root, evaluate.main, f"checkpoint={checkpoint}", f"folder=e_{checkpoint}", *scored)
        assert (root / f"e_{checkpoint}" / "scores.parquet").is_file()
    alone = ("checkpoint=adapted/model/pytorch_lora_weights.safetensors", "base=base")
    said(root, generate.main, "prompt=a red circle", *alone, "folder=alone", "n=1", *DRAWN)
    drawn = [(root / name / "000.png").read_bytes() for name in ("alone", "one/base")]
    assert drawn[0] != drawn[1]
