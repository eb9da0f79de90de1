"""An image is the same alone and in a batch, and the public evaluation's where it is asked for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, UNet2DModel
from numpy.typing import NDArray

from sdpo_exp.errors import UserError
from sdpo_exp.generation.drawing import DrawSettings, as_pictures, draw_batch
from sdpo_exp.generation.noise import Draw
from sdpo_exp.generation.sampler import set_sampler
from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.testbed.attributes import split_scenes
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.evaluation import ExactReward
from tests.checkpoints import save_sd15, save_sdxl

PROMPTS = ["a red cat", "", "two dogs and a very long story about them", "a red cat"]
EULER = "EulerDiscreteScheduler"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"sd15": save_sd15(root / "sd15"), "sdxl": save_sdxl(root / "sdxl")}


@lru_cache(maxsize=1)
def tiny() -> Any:
    return TinyBackbone().pipeline()


def opened(folders: dict[str, Path], kind: str) -> Any:
    if kind == "tiny":
        return tiny()
    pipeline = DiffusionPipeline.from_pretrained(folders[kind], torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draws(seed: int = 3) -> list[Draw]:
    return [Draw(prompt, index, seed) for index, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("noise", ["prompt", "shared"])
@pytest.mark.parametrize("kind", ["tiny", "sd15", "sdxl"])
def test_an_image_does_not_depend_on_its_batch(
    folders: dict[str, Path], kind: str, noise: Any
) -> None:
    pipeline = opened(folders, kind)
    settings = DrawSettings(guidance=3.0, steps=3, noise=noise)
    together = draw_batch(pipeline, draws(), settings)
    alone = np.concatenate([draw_batch(pipeline, [draw], settings) for draw in draws()])
    backwards = draw_batch(pipeline, draws()[::-1], settings)[::-1]
    for other in (alone, backwards):
        assert np.abs(together - other).max() <= 1e-4
        levels = [np.stack([np.asarray(p) for p in as_pictures(x)]) for x in (together, other)]
        gap = np.abs(levels[0].astype(int) - levels[1])
        assert gap.max() <= 1
        assert (gap > 0).mean() <= 1e-3
    # And it is no constant: prompts and places matter.
    assert np.abs(together[0] - together[1]).max() > 1e-3
    same_prompt = np.abs(together[0] - together[3]).max()
    assert (same_prompt <= 1e-4) if noise == "shared" else (same_prompt > 1e-2)


def test_the_end_of_a_run_judges_the_same_images() -> None:
    judged = ExactReward(n=6, steps=2)(TinyBackbone()).images
    captions = [caption(scene) for scene in split_scenes("test")[:6]]
    found = draw_batch(
        tiny(), [Draw(c, i, 0) for i, c in enumerate(captions)], DrawSettings(steps=2)
    )
    assert np.array_equal(np.stack([np.asarray(p) for p in as_pictures(found)]), judged)


def public_loop(pipeline: Any, prompt: str, seed: int, scale: float) -> NDArray[np.float32]:
    """The public evaluation's arithmetic: conditional first, and its own guidance convention."""
    scheduler, unet, vae = pipeline.scheduler, pipeline.unet, pipeline.vae
    scheduler.set_timesteps(5)
    text = [pipeline.text_encoder(ids(pipeline, p)).last_hidden_state for p in (prompt, "")]
    x = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([x, x]), t)
        cond, uncond = unet(both, t, encoder_hidden_states=torch.cat(text)).sample.chunk(2)
        x = scheduler.step(cond + scale * (cond - uncond), t, x).prev_sample
    image = vae.decode(x / vae.config.scaling_factor).sample / 2 + 0.5
    return image.clamp(0, 1).permute(0, 2, 3, 1).numpy()


def ids(pipeline: Any, prompt: str) -> Any:
    tokens = pipeline.tokenizer(
        prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids


@torch.no_grad()
def test_the_public_code_s_7_5_is_8_5_here(folders: dict[str, Path]) -> None:
    pipeline = opened(folders, "sd15")
    set_sampler(pipeline, EULER, {"timestep_spacing": "linspace"})
    settings = DrawSettings(guidance=8.5, steps=5, negative_prompt="", noise="shared")
    found = draw_batch(pipeline, draws(), settings)
    public = np.concatenate([public_loop(pipeline, prompt, 3, 7.5) for prompt in PROMPTS])
    assert np.abs(found - public).max() < 2e-4
    other = draw_batch(pipeline, draws(), DrawSettings(7.5, 5, "", "shared"))
    assert np.abs(other - public).max() > 1e-3


def test_sdxl_s_empty_prompt_is_encoded_only_if_it_is_given(folders: dict[str, Path]) -> None:
    pipeline = opened(folders, "sdxl")
    assert pipeline.config.force_zeros_for_empty_prompt
    zeros, encoded = (
        draw_batch(pipeline, draws()[:1], DrawSettings(8.5, 3, negative, "shared"))
        for negative in (None, "")
    )
    assert np.abs(zeros - encoded).max() > 1e-4


def test_every_setting_reaches_the_image(folders: dict[str, Path]) -> None:
    pipeline = opened(folders, "sd15")
    plain = draw_batch(pipeline, draws(), DrawSettings(3.0, 2))
    for changed in (
        DrawSettings(4.0, 2),
        DrawSettings(3.0, 3),
        DrawSettings(3.0, 2, negative_prompt="dog"),
        DrawSettings(3.0, 2, noise="shared"),
    ):
        assert np.abs(draw_batch(pipeline, draws(), changed) - plain).max() > 1e-4
    tall = draw_batch(pipeline, draws()[:1], DrawSettings(3.0, 2, height=72, width=64))
    assert tall.shape == (1, 72, 64, 3)
    assert np.abs(draw_batch(pipeline, draws(4), DrawSettings(3.0, 2)) - plain).max() > 1e-2


def test_the_vae_decodes_in_its_own_dtype(folders: dict[str, Path]) -> None:
    pipeline = opened(folders, "sd15")
    exact = draw_batch(pipeline, draws(), DrawSettings(3.0, 2))
    for part in (pipeline.unet, pipeline.text_encoder):
        torch.nn.Module.to(part, torch.bfloat16)
    mixed = draw_batch(pipeline, draws(), DrawSettings(3.0, 2))
    assert next(pipeline.vae.parameters()).dtype == torch.float32
    assert 0 < np.abs(mixed - exact).max() < 0.1


def test_a_model_that_diverged_draws_grey() -> None:
    pipeline = TinyBackbone().pipeline()
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(float("nan"))
    found = draw_batch(pipeline, draws()[:1], DrawSettings(steps=1))
    assert np.array_equal(found, np.full_like(found, 0.5))


def test_a_pipeline_that_takes_no_prompt_is_told() -> None:
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    pipeline = DDPMPipeline(unet, DDPMScheduler())
    with pytest.raises(UserError, match="DDPMPipeline takes no guidance_scale, prompt"):
        draw_batch(pipeline, draws()[:1], DrawSettings())
