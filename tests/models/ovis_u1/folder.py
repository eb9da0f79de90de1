"""A whole Ovis-U1 in the released layout, tiny: text side, generator and VAE."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from tests.models.ovis_text import tiny as text_side
from tests.models.yak.tiny import TINY, TINY_VAE, tiny_network


def generator(seed: int = 0) -> dict[str, Tensor]:
    """Tensors of the transformer and the VAE under their released names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        vae = AutoencoderKL(**TINY_VAE)
    parts = {"backbone": tiny_network(seed), "vae": vae}
    return {
        f"visual_generator.{part}.{name}": tensor.contiguous()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def write(folder: Path, seed: int = 0) -> Path:
    """Three shards with an index, the tokenizer's files and the configurations."""
    config = text_side.settings() | {
        "visual_generator_config": {"model_type": "yak", **TINY, "vae_config": TINY_VAE}
    }
    state = text_side.weights() | generator(seed)
    return text_side.write(folder, state, config, shards=3)
