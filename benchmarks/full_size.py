"""The released models' UNets at full size, with random weights: for counting and for timing."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
UNETS = {"sd15": SD15_UNET, "sdxl": SDXL_UNET}
PARAMETERS = {"sd15": 859_520_964, "sdxl": 2_567_463_684}


def build_unet(model: str, device: str) -> UNet2DConditionModel:
    """The UNet of `sd15` or `sdxl` on `device`; on `meta` it costs nothing."""
    with torch.device(device):
        return UNet2DConditionModel(**UNETS[model])
