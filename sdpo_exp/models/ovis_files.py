"""Ovis-U1 as its folder shows it, in the released layout; without torch.

Such a folder has no `model_index.json`: one `config.json` for all parts, and weights of all parts
in `model.safetensors`, or in shards beside `model.safetensors.index.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo_exp.errors import UserError
from sdpo_exp.models.checkpoint_folder import read_json
from sdpo_exp.models.families import block_size, layers_of, resolution_misfit
from sdpo_exp.models.target_names import YAK

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BACKBONE = "visual_generator.backbone."
GENERATOR = "visual_generator_config"
_TOKENIZER = ("tokenizer.json", "vocab.json")
_KEY = "model.pretrained"
_PATCH = 2  # latents per token in each direction


def is_released(folder: Path) -> bool:
    """Whether a folder is one of Ovis-U1, by its configuration and names of files."""
    file = folder / CONFIG
    if not file.is_file() or not any((folder / name).is_file() for name in (SINGLE, INDEX)):
        return False
    try:
        return GENERATOR in json.loads(file.read_text())
    except (OSError, ValueError, TypeError):
        return False


def wanted(files: Sequence[str]) -> list[str]:
    """Of a repository's files the weights and the small ones; no code."""
    return [file for file in files if file.endswith((".safetensors", ".json", ".txt"))]


@dataclass(frozen=True)
class OvisU1Files:
    """What the check of a configuration asks of a family; see `families.ModelFiles`."""

    denoiser = "transformer"
    lora_targets = YAK

    def missing(self, folder: Path, model: Mapping[str, Any] | None = None) -> list[str]:
        """Files that a folder lacks; shards by the names in the index."""
        del model
        lacks = [] if (folder / CONFIG).is_file() else [CONFIG]
        if not any((folder / name).is_file() for name in _TOKENIZER):
            lacks.append(_TOKENIZER[0])
        if (folder / SINGLE).is_file():
            return lacks
        if not (folder / INDEX).is_file():
            return [*lacks, f"{SINGLE} or {INDEX}"]
        shards = sorted(set(_weight_map(folder).values()))
        return lacks + [name for name in shards if not (folder / name).is_file()]

    def mistakes(self, folder: Path, model: Mapping[str, Any], resolution: int) -> list[str]:
        """Another model, or a resolution that its tokens do not divide."""
        del model
        config = read_json(folder / CONFIG)
        generator = config.get(GENERATOR)
        if not isinstance(generator, dict):
            kind = config.get("model_type", config.get("_class_name", "of no named kind"))
            return [
                f"{_KEY}: {folder / CONFIG} is of another model ({kind}): it has no {GENERATOR}. "
                "Choose the model=... that it belongs to."
            ]
        vae = generator.get("vae_config")
        if not isinstance(vae, dict) or "block_out_channels" not in vae:
            return [f"{_KEY}: {folder / CONFIG}: its {GENERATOR} has no vae_config"]
        misfit = resolution_misfit(resolution, block_size(vae, _PATCH))
        return [] if misfit is None else [misfit]

    def layers(self, folder: Path) -> list[str]:
        """Names of the transformer's matrices, without their prefix, by the files' headers."""
        single = (folder / SINGLE).is_file()
        names = {SINGLE} if single else set(_weight_map(folder).values())
        found = [name for file in sorted(names) for name in layers_of(folder / file)]
        return [name.removeprefix(BACKBONE) for name in found if name.startswith(BACKBONE)]


def _weight_map(folder: Path) -> dict[str, str]:
    table = read_json(folder / INDEX).get("weight_map")
    if not isinstance(table, dict):
        raise UserError(f"{folder / INDEX}: has no weight_map")
    return table
