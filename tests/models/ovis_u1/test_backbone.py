"""Ovis-U1 keeps the contract of every backbone: trained, sampled, written back and read again."""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sdpo_exp.errors import UserError
from sdpo_exp.generation.drawing import DrawSettings, draw_batch
from sdpo_exp.generation.noise import Draw
from sdpo_exp.generation.sampler import set_sampler
from sdpo_exp.models.flow_process import FlowProcess
from sdpo_exp.models.lora import FILE
from sdpo_exp.models.ovis_conditions import velocity
from sdpo_exp.models.ovis_pipeline import OvisU1Pipeline
from sdpo_exp.models.ovis_u1 import OvisU1
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.models.yak.latents import schedule
from sdpo_exp.objectives.dmpo import DMPO
from sdpo_exp.safeguard import PreserveWinner
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Geometry, PairBatch, PairKey
from tests.models.ovis_u1.folder import write

SIDE = 64
PROMPTS = ["a cat", "two dogs on a red sofa", "a cat", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("ovis") / "model")


def opened(folder: Path, **options: Any) -> OvisU1:
    return OvisU1(str(folder), **{"text_dtype": "float32", **options})


def places(count: int, height: int = SIDE, width: int = SIDE) -> list[Geometry]:
    return [Geometry(height, width, 0, 0, height, width)] * count


def batch(pairs: int = 4) -> PairBatch:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, pairs, 3, SIDE, SIDE, generator=draw) * 2 - 1
    keys = [PairKey(0, i, i) for i in range(pairs)]
    return PairBatch(images[0], images[1], PROMPTS[:pairs], keys, places(pairs), [])


def module(folder: Path, tuning: Any = None, reference: Any = None) -> PreferenceModule:
    return PreferenceModule(
        backbone=opened(folder),
        objective=DMPO(beta=500.0, alpha=0.01),
        safeguard=PreserveWinner(mu=0.5),
        reference=reference or FrozenReference(),
        tuning=tuning or FullTuning(),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
    )


CELLS = [
    (FullTuning(), FrozenReference()),
    (FullTuning(gradient_checkpointing=True), FrozenReference()),
    (LoraTuning(rank=4, alpha=8), AdapterOff()),
]


@pytest.mark.parametrize(("tuning", "reference"), CELLS)
def test_the_first_step_finds_no_margin(folder: Path, tuning: Any, reference: Any) -> None:
    made = module(folder, tuning, reference)
    found = made.training_step(batch(), 0)
    assert (found["record"].logits == 0).all()
    assert bool(found["record"].finite)
    q = 0.99
    expected = 0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q))
    assert found["loss"].item() == pytest.approx(expected, rel=1e-5)
    found["loss"].backward()
    trained = [p for p in made.policy.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None for p in trained)


def test_times_are_shifted_by_the_resolution(folder: Path) -> None:
    process = opened(folder).process
    found = process.sample_timesteps(torch.tensor([0.5]), (4, 128, 128)).double()
    assert torch.logit(found).item() == pytest.approx(1.15, abs=1e-5)
    own = FlowProcess(shift="resolution", base_shift=0.0, max_shift=None)
    made = opened(folder, process=own).process
    assert (made.distribution, made.base_shift, made.max_shift) == (own.distribution, 0.0, 1.15)


def test_texts_of_unequal_length_are_each_what_they_are_alone(folder: Path) -> None:
    backbone = opened(folder)
    cond = backbone.encode_prompts(PROMPTS, places(4))
    assert cond["mask"].dtype == torch.bool
    assert cond["text"].shape[:2] == cond["mask"].shape
    draw = torch.Generator().manual_seed(0)
    x, t = torch.randn(4, 4, 8, 8, generator=draw), torch.tensor([0.2, 0.5, 0.5, 0.9])
    with torch.no_grad():
        together = backbone.denoise(backbone.denoiser, x, t, cond)
        for i, prompt in enumerate(PROMPTS):
            alone = backbone.encode_prompts([prompt], places(1))
            assert "mask" not in alone
            expected = backbone.denoise(backbone.denoiser, x[i : i + 1], t[i : i + 1], alone)
            torch.testing.assert_close(together[i : i + 1], expected, rtol=1e-5, atol=1e-6)
    assert together.shape == x.shape


def test_an_empty_prompt_is_the_request_for_any_image(folder: Path) -> None:
    backbone = opened(folder)
    found = backbone.encode_prompts([""], places(1))["text"][0]
    (expected,) = backbone.text_encoder.encode([""], (SIDE, SIDE), "unconditional")
    assert torch.equal(found, expected)
    (of_a_prompt,) = backbone.text_encoder.encode([""], (SIDE, SIDE), "t2i")
    assert len(of_a_prompt) != len(expected)


def test_latents_come_back_as_pixels(folder: Path) -> None:
    backbone = opened(folder, latents="mode")
    pixels = batch().winner
    latents = backbone.encode_images(pixels, lambda shape: torch.zeros(4, *shape))
    with torch.no_grad():
        mean = backbone.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(latents, 0.13025 * mean)


def pictures(pipeline: Any, **options: Any) -> Tensor:
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    (found,) = pipeline(
        PROMPTS[:2], SIDE, SIDE, num_inference_steps=3, latents=noise, output_type="latent",
        return_dict=False, **options,
    )  # fmt: skip
    return found


def test_the_sampler_is_the_released_one_written_out(folder: Path) -> None:
    backbone = opened(folder)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = schedule(3, 16, backbone.denoiser.config).tolist()
    cond = backbone.encode_prompts(PROMPTS[:2], places(2))
    bare = backbone.encode_prompts(["", ""], places(2))
    with torch.no_grad():
        for now, following in pairwise(times):
            t = torch.full((2,), now)
            v_b = velocity(backbone.denoiser, x, t, bare)
            v_c = velocity(backbone.denoiser, x, t, cond)
            x = x + (following - now) * (v_b + 5.0 * (v_c - v_b))
    torch.testing.assert_close(pictures(backbone.pipeline()), x, rtol=1e-4, atol=1e-4)


def test_no_guidance_is_the_conditional_model(folder: Path) -> None:
    pipeline = opened(folder).pipeline()
    calls = []
    real = pipeline.transformer.forward
    pipeline.transformer.forward = lambda *a, **k: calls.append(1) or real(*a, **k)
    plain = pictures(pipeline, guidance_scale=1.0)
    assert len(calls) == 3
    nearly = pictures(pipeline, guidance_scale=1.0 + 1e-6)
    torch.testing.assert_close(plain, nearly, rtol=0, atol=1e-3)


def test_images_are_drawn_as_of_any_pipeline(folder: Path) -> None:
    pipeline = opened(folder).pipeline()
    settings = DrawSettings(guidance=5.0, steps=2, height=SIDE, width=SIDE + 16)
    draws = [Draw(prompt, i, 0) for i, prompt in enumerate(PROMPTS[:2])]
    found = draw_batch(pipeline, draws, settings)
    assert found.shape == (2, SIDE, SIDE + 16, 3)
    alone = draw_batch(pipeline, draws[1:], settings)
    assert abs(found[1:] - alone).max() < 1e-4


def test_another_sampler_is_refused(folder: Path) -> None:
    pipeline = opened(folder).pipeline()
    set_sampler(pipeline, "FlowMatchEulerDiscreteScheduler", {})
    with pytest.raises(UserError, match="times of its own; leave sampler out"):
        pictures(pipeline)


def test_the_pipeline_makes_pictures_of_every_kind(folder: Path) -> None:
    pipeline = opened(folder).pipeline()
    found = pipeline("a cat", SIDE, SIDE, num_inference_steps=1, num_images_per_prompt=2)
    assert [picture.size for picture in found.images] == [(SIDE, SIDE)] * 2
    assert pipeline.latent_shape(None, 1030) == (4, 128, 128)
    with pytest.raises(ValueError, match="latents must be"):
        pipeline("a cat", SIDE, SIDE, latents=torch.zeros(1, 4, 9, 8))


def moved(folder: Path, tuning: Any) -> OvisU1:
    backbone = opened(folder)
    tuning.apply(backbone.denoiser)
    torch.manual_seed(1)
    for parameter in backbone.denoiser.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter.data, std=0.05)
    return backbone


@pytest.mark.parametrize("tuning", [FullTuning(), LoraTuning(rank=4, alpha=8)])
def test_what_is_saved_is_read_and_draws_the_same(
    folder: Path, tmp_path: Path, tuning: Any
) -> None:
    backbone = moved(folder, tuning)
    backbone.save(tmp_path / "saved")
    again = opened(tmp_path / "saved")
    expected, found = pictures(backbone.pipeline()), pictures(again.pipeline())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, pictures(opened(folder).pipeline()), atol=1e-2)


def test_other_tensors_and_files_stay_as_they_were(folder: Path, tmp_path: Path) -> None:
    moved(folder, FullTuning()).save(tmp_path / "saved")
    names = {f.relative_to(folder) for f in folder.rglob("*") if f.is_file()}
    assert {f.relative_to(tmp_path / "saved") for f in (tmp_path / "saved").rglob("*")} == names
    for file in folder.glob("*.safetensors"):
        before, after = load_file(file), load_file(tmp_path / "saved" / file.name)
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            ours = name.startswith("visual_generator.backbone.")
            assert torch.equal(tensor, after[name]) != ours, name


def test_adapters_are_written_with_what_they_need(folder: Path, tmp_path: Path) -> None:
    backbone = moved(folder, LoraTuning(rank=4, alpha=8))
    backbone.save_lora(tmp_path)
    with safe_open(tmp_path / FILE, framework="pt") as file:
        told = json.loads(file.metadata()["lora_adapter_metadata"])
        names = list(file.keys())
    assert told["transformer.r"] == 4
    assert told["transformer.lora_alpha"] == 8
    assert all(name.startswith(("transformer.double_", "transformer.single_")) for name in names)
    assert any("img_self_attn.qkv.lora_A" in name for name in names)
    assert any("single_blocks.0.linear1.lora_B" in name for name in names)
    with pytest.raises(ValueError, match="has no adapters"):
        opened(folder).save_lora(tmp_path / "none")


def test_a_resolution_that_does_not_fit_is_told(folder: Path) -> None:
    with pytest.raises(UserError, match="resolution=72: give a multiple of 16"):
        opened(folder).encode_images(torch.zeros(1, 3, 72, 72), lambda shape: torch.zeros(shape))


def test_what_cannot_be_had_is_told(folder: Path, tmp_path: Path) -> None:
    assert OvisU1.absent(str(folder)) is None
    (tmp_path / "empty").mkdir()
    assert "lacks config.json, tokenizer.json" in (OvisU1.absent(str(tmp_path / "empty")) or "")


def test_a_missing_tensor_is_named(folder: Path, tmp_path: Path) -> None:
    from tests.models.ovis_text import tiny
    from tests.models.ovis_u1.folder import generator

    config = json.loads((folder / "config.json").read_text())
    state = tiny.weights() | generator()
    del state["visual_generator.backbone.img_in.weight"]
    tiny.write(tmp_path / "broken", state, config)
    with pytest.raises(UserError, match=r"visual_generator\.backbone\.\*.*img_in.weight"):
        opened(tmp_path / "broken")


def test_the_pipeline_names_its_parts_and_its_times(folder: Path) -> None:
    pipeline = opened(folder).pipeline()
    assert isinstance(pipeline, OvisU1Pipeline)
    assert set(pipeline.components) == {"transformer", "vae", "text_encoder", "scheduler"}
    assert pipeline.scheduler.config["max_shift"] == 1.15
