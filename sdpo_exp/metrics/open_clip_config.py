"""Which network an open_clip weight file belongs to: the configuration beside it, or ViT-H-14."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.metrics.preprocessing import MEAN, STD

CONFIG_FILE = "open_clip_config.json"
VIT_H_14: Mapping[str, Any] = open_clip.get_model_config("ViT-H-14")
# What the one image pipeline and the one tokenizer are; others would load and score wrongly.
_IMAGES = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
_TEXTS = {"context_length": 77, "vocab_size": 49408, "hf_tokenizer_name": None}


def config_of(file: Path) -> Mapping[str, Any]:
    """`embed_dim`, `vision_cfg`, `text_cfg` from `open_clip_config.json` in the file's folder.

    Without one it is ViT-H-14, which all released files are.

    Raises:
        UserError: it cannot be read, is no CLIP's, or asks for other images or texts.
    """
    path = file.parent / CONFIG_FILE
    if not path.is_file():
        return VIT_H_14
    try:
        content = json.loads(path.read_text())
        config: dict[str, Any] = content["model_cfg"]
        images, texts = content.get("preprocess_cfg", {}), config["text_cfg"]
        with torch.device("meta"):
            open_clip.CLIP(**config)
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{path}: not the configuration of an open_clip CLIP ({reason})") from None
    for part, expected in ((images, _IMAGES), (texts, _TEXTS)):
        for key, value in expected.items():
            if (found := _plain(part.get(key, value))) != value:
                raise UserError(f"{path}: has {key}={found}, it must be {value}")
    return config


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
