"""The formats that a policy is written in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sdpo_exp.models.lora import merged
from sdpo_exp.models.unet_file import write_state
from sdpo_exp.protocols import Backbone


def write_diffusers(backbone: Backbone, folder: Path, dtype: torch.dtype) -> None:
    """The pipeline's folder, adapters merged."""
    backbone.save(folder)
    cast_weights(folder, dtype)


def write_lora(backbone: Any, folder: Path, dtype: torch.dtype) -> None:
    """The adapters alone, as the pipeline's `load_lora_weights` takes them."""
    backbone.save_lora(folder)
    cast_weights(folder, dtype)


def write_unet(backbone: Backbone, folder: Path, dtype: torch.dtype) -> None:
    """The denoiser's plain state dict, adapters merged, as the public code writes it."""
    # The plain method: diffusers' own warns about modules that it has none of.
    write_state(nn.Module.to(merged(backbone.denoiser), dtype), folder / "unet.pth")


WRITERS: Mapping[str, Callable[[Any, Path, torch.dtype], None]] = {
    "diffusers": write_diffusers,
    "lora": write_lora,
    "unet_pth": write_unet,
}


def cast_weights(folder: Path, dtype: torch.dtype) -> None:
    """Rewrite every safetensors file below `folder` in `dtype`, integers as they are.

    One file is in memory at a time. Configurations that name their weights' dtype follow.
    """
    if dtype == torch.float32:
        return
    sizes: dict[Path, int] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        tensors, metadata = _read(file)
        cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
        # Not in place: what is not cast is still read from the file.
        partial = file.with_suffix(".partial")
        save_file(cast, partial, metadata)
        partial.replace(file)
        own = sum(tensor.nbytes for tensor in cast.values())
        sizes[file.parent] = sizes.get(file.parent, 0) + own
    for index in folder.rglob("*.safetensors.index.json"):
        _edit(index, lambda content, size: content["metadata"].update(total_size=size), sizes)
    name = str(dtype).removeprefix("torch.")
    for config in folder.rglob("config.json"):
        _edit(config, _name_dtype, {config.parent: name})


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return tensors, opened.metadata()


def _name_dtype(content: dict[str, Any], name: str) -> None:
    content.update({key: name for key in ("dtype", "torch_dtype") if key in content})


def _edit(file: Path, change: Callable[[Any, Any], None], values: Mapping[Path, Any]) -> None:
    content = json.loads(file.read_text())
    change(content, values[file.parent])
    file.write_text(json.dumps(content, indent=2) + "\n")
