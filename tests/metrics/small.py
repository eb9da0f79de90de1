"""Small random models in the original layouts, and images and prompts to score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import BertTokenizer, CLIPConfig

SIDE = 28
CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": SIDE,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 14,
        "mlp_ratio": 2.0,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "mlp_ratio": 2.0,
    },
}
PROMPTS = [
    "a red cat",
    "a “quoted” sign, \uff21\uff22 &amp; more",
    "",
    "  The  SAME thing, " + "very " * 90 + "long dog",
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", "dog", ",", "##s", "very"]


def images(count: int = 4) -> list[Image.Image]:
    """Noise and edges, of several sizes and modes."""
    rng = np.random.default_rng(0)
    sizes = [(40, 40), (61, 33), (28, 45), (19, 23)]
    made = []
    for i in range(count):
        width, height = sizes[i % 4]
        values = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        values[: height // 2] = 255 * (i % 2)
        made.append(Image.fromarray(values))
    return made


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Weights large enough that every part of the network shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(module.named_parameters()):
            noise = torch.randn(value.shape, generator=generator)
            is_gain = value.dim() == 1 and name.endswith("weight")
            value.copy_(1 + 0.2 * noise if is_gain else 0.25 * noise)


def clip_model(quick_gelu: bool = False, seed: int = 0) -> open_clip.CLIP:
    model = open_clip.CLIP(**CLIP, quick_gelu=quick_gelu)
    randomise(model, seed)
    return model.eval()


def clip_config(act: str = "gelu", end_of_text: int = 49407) -> CLIPConfig:
    shared = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": act,
        "projection_dim": 24,
    }
    text = {**shared, "bos_token_id": 49406, "eos_token_id": end_of_text, "pad_token_id": 1}
    vision = {**shared, "image_size": SIDE, "patch_size": 14}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)


_NAMES = (
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("visual.proj", "visual_projection.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
)
_INSIDE = (
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)


def as_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An open_clip state dict under the names of transformers' `CLIPModel`."""
    result: dict[str, Tensor] = {}
    for original, value in state.items():
        name = original
        for old, new in _NAMES:
            if original.startswith(old):
                name = new + original.removeprefix(old)
                break
        for old, new in _INSIDE:
            name = name.replace(old, new)
        if ".attn.in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                result[name.replace(".attn.in_proj_", f".self_attn.{letter}_proj.")] = part
        elif original in ("visual.proj", "text_projection"):
            result[name] = value.T.contiguous()
        else:
            result[name] = value
    return result


def bert_tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
