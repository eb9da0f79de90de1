"""The lines of python that load an export; what lies in the folder decides which."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LORA_FILE = "pytorch_lora_weights.safetensors"
UNET_FILE = "unet.pth"
OVIS_U1 = "sdpo_exp.models.ovis_u1.OvisU1"  # its pipeline is not diffusers'


def how_to_load(
    folder: Path, dtype: str, config: Mapping[str, Any], environment: Mapping[str, Any]
) -> str:
    """Code that ends with `pipeline`, to be run beside the files or with another `folder`.

    Args:
        folder: of the export.
        dtype: of the export's weights.
        config: of the run.
        environment: of the run; names the base's commit.
    """
    where = 'folder = "."  # this one, or its name on the hub'
    if (folder / LORA_FILE).is_file():
        imports, lines = _base(config, environment)
        if unet := (config.get("model") or {}).get("unet"):
            lines.append(f"# Here {unet} belongs into pipeline.unet: the run began with it.")
        lines.append(_putting_adapters(folder / LORA_FILE, ours=_is_ovis_u1(config)))
    elif (folder / UNET_FILE).is_file():
        imports, lines = _base(config, environment)
        imports.append("import torch")
        where = 'folder = "."  # this one'
        lines.append(f'state = torch.load(f"{{folder}}/{UNET_FILE}", weights_only=True)')
        lines.append("pipeline.unet.load_state_dict(state)")
    elif _is_ovis_u1(config):
        imports = ["import sdpo_exp"]
        lines = ["pipeline = sdpo_exp.load_pipeline(folder)"]
    else:
        arguments = ["folder"]
        imports = ["from diffusers import DiffusionPipeline"]
        if dtype != "float32":
            imports.append("import torch")
            arguments.append(f"torch_dtype=torch.{dtype}")
        if (folder / "pipeline.py").is_file():
            arguments.append("trust_remote_code=True")
        lines = [f"pipeline = DiffusionPipeline.from_pretrained({', '.join(arguments)})"]
    return "\n".join([*sorted(imports, reverse=True), "", where, *lines]) + "\n"


def _putting_adapters(file: Path, *, ours: bool) -> str:
    """Transformers read their adapters themselves: not every pipeline of theirs can."""
    if ours:
        return "pipeline.load_lora_weights(folder)"
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        names = json.loads(stream.read(size))
    if any(name.startswith("transformer.") for name in names):
        return f'pipeline.transformer.load_lora_adapter(folder, weight_name="{LORA_FILE}")'
    return "pipeline.load_lora_weights(folder)"


def _is_ovis_u1(config: Mapping[str, Any]) -> bool:
    return bool((config.get("model") or {}).get("_target_") == OVIS_U1)


def _base(config: Mapping[str, Any], environment: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Imports and lines for the pipeline that the run began with."""
    model = config.get("model") or {}
    if model.get("pretrained") is None:
        room, _, kind = str(model.get("_target_")).rpartition(".")
        base = model.get("base", "unfinished")  # before there was the key there was this one
        return [f"from {room} import {kind}"], [f'pipeline = {kind}(base="{base}").pipeline()']
    commit = (environment.get("base") or {}).get("commit")
    if _is_ovis_u1(config):
        words = [f'"{model["pretrained"]}"', f'revision="{commit}"' if commit else None]
        asked = ", ".join([*filter(None, words), 'text_dtype="float32"'])
        return [f"from {OVIS_U1.rpartition('.')[0]} import OvisU1"], [
            f"pipeline = OvisU1({asked}).pipeline()"
        ]
    options = {"revision": commit, "variant": model.get("variant")}
    arguments = [f'"{model["pretrained"]}"']
    arguments += [f'{key}="{value}"' for key, value in options.items() if value]
    kinds, lines = "DiffusionPipeline", []
    if model.get("vae"):
        kinds = "AutoencoderKL, DiffusionPipeline"
        lines.append(f'vae = AutoencoderKL.from_pretrained("{model["vae"]}")')
        arguments.append("vae=vae")
    lines.append(f"pipeline = DiffusionPipeline.from_pretrained({', '.join(arguments)})")
    return [f"from diffusers import {kinds}"], lines
