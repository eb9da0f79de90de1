"""Adapters from a file into a pipeline, by whatever diffusers has for its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def put_adapters(pipeline: Any, folder: Path, name: str) -> None:
    """Put the LoRA in the file `name` of `folder` into the denoiser of `pipeline`.

    A few pipelines, such as Ovis-Image's, have no `load_lora_weights`; their denoisers read the
    same file by themselves.
    """
    if hasattr(pipeline, "load_lora_weights"):
        pipeline.load_lora_weights(folder, weight_name=name)
        return
    pipeline.transformer.load_lora_adapter(folder, weight_name=name, local_files_only=True)
