"""Tiny checkpoints in the released models' on-disk format, built on the fly with random weights."""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

SD15_ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL_ID = "stabilityai/stable-diffusion-xl-base-1.0"
OVIS_U1_ID = "AIDC-AI/Ovis-U1-3B"
OVIS_IMAGE_ID = "AIDC-AI/Ovis-Image-7B"
VAE_FIX_ID = "madebyollin/sdxl-vae-fp16-fix"
BETAS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
SMALL_UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


@lru_cache(maxsize=1)
def clip_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary and merges, from the table that open_clip ships."""
    table = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(table.read_bytes()).decode().split("\n")[1:48895]
    merges = [tuple(line.split()) for line in lines]
    symbols = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*symbols, *(s + "</w>" for s in symbols), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: i for i, word in enumerate(words)}, merges


def clip_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    vocab, merges = clip_bpe()
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)


def text_config(hidden: int = 32, projection: int = 32) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=hidden,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=projection,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )


def small_vae(scaling_factor: float = 0.18215, force_upcast: bool = True) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=scaling_factor,
        force_upcast=force_upcast,
        sample_size=64,
    )


def small_sd_unet(**changes: Any) -> UNet2DConditionModel:
    config = {
        **SMALL_UNET,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
    }
    return UNet2DConditionModel(**{**config, **changes})


def small_sdxl_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **SMALL_UNET,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 32,
    )


def save_sd15(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """An SD 1.5-format folder; with v_prediction it is an SD 2.1-v-format one."""
    torch.manual_seed(seed)
    scheduler: Any = PNDMScheduler(
        **BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
    )
    if prediction_type != "epsilon":
        scheduler = DDIMScheduler(**BETAS, prediction_type=prediction_type, clip_sample=False)
    StableDiffusionPipeline(
        vae=small_vae(),
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=clip_tokenizer(),
        unet=small_sd_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_sdxl(folder: Path, seed: int = 0) -> Path:
    """An SDXL-format folder."""
    torch.manual_seed(seed)
    StableDiffusionXLPipeline(
        vae=small_vae(0.13025),
        text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(text_config()),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer("!"),
        unet=small_sdxl_unet(),
        scheduler=EulerDiscreteScheduler(**BETAS),
    ).save_pretrained(folder)
    return folder


def cache_folder(cache: Path, repo_id: str, kind: str = "model") -> Path:
    """An empty snapshot of `repo_id` in a fake hub cache (the environment's HF_HUB_CACHE)."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = cache / f"{kind}s--{repo_id.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot
