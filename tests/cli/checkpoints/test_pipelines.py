"""`sdpo_exp.load_pipeline`: what a path may mean, and what is said when it means nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from torch import Tensor, nn

import sdpo_exp
from sdpo_exp.cli.checkpoints.pipelines import (
    ADAPTERS,
    FLOW_PARTS,
    PARTS,
    Source,
    base_of,
    find_model,
    load_base,
    load_pipeline,
)
from sdpo_exp.errors import UserError
from sdpo_exp.models import tiny
from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.models.tiny_flow import TinyFlowBackbone
from sdpo_exp.models.tiny_pipeline import PixelShufflePipeline
from tests import forks
from tests.cli.command import python

PROMPT = "a small green cross on a white background at the centre"


def perturbed() -> TinyBackbone:
    backbone = TinyBackbone()
    with torch.no_grad():
        for parameter in backbone.denoiser.parameters():
            parameter.mul_(1.02)
    return backbone


def pixels(pipeline: PixelShufflePipeline) -> Tensor:
    noise = torch.randn(2, 12, 16, 16, generator=torch.Generator().manual_seed(3))
    settings = {"num_images_per_prompt": 2, "num_inference_steps": 2, "output_type": "pt"}
    return pipeline(PROMPT, latents=noise, **settings).images


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    perturbed().save(folder)
    return folder


@pytest.fixture
def model(export: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(export, tmp_path / "copy"))


def test_none_is_the_embedded_base() -> None:
    assert torch.equal(pixels(load_pipeline()), pixels(TinyBackbone().pipeline()))


def test_every_spelling_of_a_model_gives_its_own_images(model: Path, tmp_path: Path) -> None:
    wanted = pixels(perturbed().pipeline())
    assert (wanted - pixels(TinyBackbone().pipeline())).abs().max() > 0.01
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    parts = tmp_path / "parts"
    for part in PARTS:
        shutil.copytree(model / part, parts / part)
    for path in (model, str(model), run, parts):
        assert torch.equal(pixels(sdpo_exp.load_pipeline(path)), wanted), path


def test_a_run_is_told_from_a_model(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    assert find_model(run) == Source(run / "model", run=run)
    assert find_model(run / "model") == Source(run / "model")


def test_adapters_alone_are_a_model_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / ADAPTERS).touch()
    assert ADAPTERS == LORA_WEIGHT_NAME_SAFE
    assert find_model(run) == Source(run / "model", run=run)
    assert find_model(run / "model") == Source(run / "model")


def test_the_base_of_a_run_is_built_as_its_config_says(model: Path, tmp_path: Path) -> None:
    kind = "_target_: sdpo_exp.models.tiny.TinyBackbone"
    for text, expected in ((str(model), perturbed()), ("null", TinyBackbone())):
        (tmp_path / "config.yaml").write_text(f"model:\n  {kind}\n  pretrained: {text}\n")
        base = load_base(tmp_path)
        assert torch.equal(pixels(base), pixels(expected.pipeline()))
        assert not base.unet.training
    (tmp_path / "config.yaml").write_text(f"model:\n  {kind}\n  pretrained: gone\n")
    with pytest.raises(UserError, match=r"model.pretrained=gone: no such model folder"):
        load_base(tmp_path)


def test_parts_are_ready_to_generate(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = perturbed().pipeline()
    made.unet.train()
    monkeypatch.setattr(TinyBackbone, "pipeline", lambda self: made)
    parts = [p for p in load_pipeline(export).components.values() if isinstance(p, nn.Module)]
    assert len(parts) == 2
    assert not any(module.training for part in parts for module in part.modules())


def test_the_parts_are_those_of_the_tiny_model() -> None:
    assert PARTS == tiny.PARTS
    assert FLOW_PARTS == TinyFlowBackbone.PARTS


def test_another_pipeline_is_loaded_by_its_own_class(tmp_path: Path) -> None:
    unconditional(tmp_path / "other")
    assert type(load_pipeline(tmp_path / "other")) is DDPMPipeline


def unconditional(folder: Path) -> None:
    """A pipeline of diffusers' own that takes no prompt."""
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DModel(8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, **blocks)
    DDPMPipeline(unet, DDIMScheduler()).save_pretrained(folder)


def test_code_in_the_folder_is_not_run(model: Path, tmp_path: Path) -> None:
    (model / "pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    load_pipeline(model)
    index = json.loads((model / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", "Other"]
    (model / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"custom code in pipeline.py"):
        load_pipeline(model)
    assert not (tmp_path / "ran").exists()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


UNET = "unet/diffusion_pytorch_model.safetensors"
BREAKAGES: list[tuple[str, Callable[[Path], object], str]] = [
    (UNET, cut, "is broken"),
    (UNET, Path.unlink, "is missing"),
    ("text_encoder/model.safetensors", cut, "is broken"),
    ("text_encoder/model.safetensors", Path.unlink, "is missing"),
    ("tokenizer/tokenizer.json", cut, "is broken"),
    ("unet/config.json", cut, "is broken"),
    ("model_index.json", cut, "is broken"),
    ("scheduler/", shutil.rmtree, "is missing"),
]


@pytest.mark.parametrize(("name", "damage", "words"), BREAKAGES)
def test_a_broken_model_names_the_file(
    model: Path, name: str, damage: Callable[[Path], object], words: str
) -> None:
    damage(model / name)
    with pytest.raises(UserError) as caught:
        load_pipeline(model)
    assert str(caught.value).startswith(f"{model}: the model cannot be loaded: {name} {words}")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "nowhere: no such folder. Give a run's folder (with model/)"),
        ("empty", "empty: neither a run's folder nor a model's. Give a run's folder"),
        ("notes.txt", "notes.txt: a file. Give a run's folder"),
        ("loose.ckpt", "loose.ckpt: a training checkpoint; give its run's folder instead"),
        ("stopped/checkpoints/step4.ckpt", "give its run's folder instead: stopped"),
        ("stopped", "`python -m sdpo_exp resume=stopped` finishes it"),
        ("stopped", "`python -m sdpo_exp.export checkpoint=stopped` writes out its newest"),
        ("failed", "no model/ and no checkpoint to resume from; run it again"),
        ("half", "half/model: holds no complete model"),
        ("runs", "There are runs below it: runs/cell/time"),
    ],
)
def test_a_path_without_a_model_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    folders = ("empty", "stopped/checkpoints", "failed", "half/model/unet", "runs/cell/time/model")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    for file in ("notes.txt", "loose.ckpt", "stopped/checkpoints/step4.ckpt", "failed/config.yaml"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load_pipeline(path)
    assert words in str(caught.value)


@pytest.mark.parametrize(("text", "base"), [("null", None), ("some/folder", "some/folder")])
def test_the_base_of_a_run(tmp_path: Path, text: str, base: str | None) -> None:
    (tmp_path / "config.yaml").write_text(f"model:\n  pretrained: {text}\n")
    assert base_of(tmp_path) == base


@pytest.mark.parametrize("text", [None, "", "model: {}\n", "model: ["])
def test_a_run_that_does_not_name_its_base(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config.yaml: does not name the run's base"):
        base_of(tmp_path)


def test_mistakes_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, sdpo_exp\n"
        "try: sdpo_exp.load_pipeline('nowhere')\n"
        "except Exception as error: print(error)\n"
        "print('torch' in sys.modules, 'diffusers' in sys.modules)\n"
    )
    done = python(tmp_path, "-c", code, libraries=forks.LIGHT)
    assert "nowhere: no such folder" in done.stdout
    assert done.stdout.endswith("False False\n")
