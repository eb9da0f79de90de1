"""A tiny Ovis-Image folder in diffusers' layout, built on the fly with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
)
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3Model

from tests.models.ovis_text.tiny import SPECIAL, byte_symbols

# Qwen3's turn of a user, without thinking.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
CHANNELS, WIDTH = 16, 32


def tokenizer() -> Qwen2TokenizerFast:
    """Byte-level BPE without merges: an id per byte, and Qwen3's special tokens."""
    vocabulary = {symbol: number for number, symbol in enumerate(byte_symbols())}
    made = Qwen2TokenizerFast(vocab=vocabulary, merges=[], chat_template=TEMPLATE)
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    return made


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        latent_channels=CHANNELS,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=64,
    )


def transformer() -> OvisImageTransformer2DModel:
    return OvisImageTransformer2DModel(
        in_channels=4 * CHANNELS,
        out_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
    )


def text_encoder() -> Qwen3Model:
    return Qwen3Model(
        Qwen3Config(
            vocab_size=300,
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
        )
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, shift=3.0
    )


def save_ovis_image(folder: Path, seed: int = 0) -> Path:
    """An Ovis-Image-format folder, 1 MB."""
    torch.manual_seed(seed)
    OvisImagePipeline(
        scheduler=scheduler(),
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        transformer=transformer(),
    ).save_pretrained(folder)
    return folder
