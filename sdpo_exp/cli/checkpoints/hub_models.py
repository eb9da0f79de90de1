"""A model by its hub id, in diffusers' layout or in that of Ovis-U1's release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdpo_exp.cli.checkpoints.pipelines import INDEX, open_released
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models import ovis_files


def is_whole(folder: Path) -> bool:
    """Whether a snapshot holds a model, as far as names tell."""
    if ovis_files.is_released(folder):
        return not ovis_files.OvisU1Files().missing(folder)
    return (folder / INDEX).is_file()


def from_hub(name: str, revision: str | None) -> tuple[Any, str | None]:
    """The pipeline of a hub id in float32 on the CPU, and its commit.

    Raises:
        UserError: it cannot be had or loaded.
    """
    import torch
    from diffusers import DiffusionPipeline

    from sdpo_exp import hub
    from sdpo_exp.cli.checkpoints.model_identity import NOT_NEEDED

    folder = hub.locate(name, "model", revision, _wanted)
    if ovis_files.is_released(folder):
        return open_released(folder), hub.commit(folder)
    index = (folder / INDEX).read_text() if (folder / INDEX).is_file() else ""
    without: dict[str, Any] = {part: None for part in NOT_NEEDED if f'"{part}"' in index}
    if "safety_checker" in without:
        without["requires_safety_checker"] = False
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder, local_files_only=True, torch_dtype=torch.float32, **without
        )
    except Exception as error:
        raise UserError(f"{name}: the model cannot be loaded: {first_line(error)}") from error
    return pipeline, hub.commit(folder)


def _wanted(files: Any) -> list[str]:
    from sdpo_exp.cli.checkpoints.model_identity import NOT_NEEDED
    from sdpo_exp.models.checkpoint_folder import wanted_files

    if INDEX not in files:
        return ovis_files.wanted(files)
    parts = sorted({file.partition("/")[0] for file in files if "/" in file} - set(NOT_NEEDED))
    return list(wanted_files(parts, None)(files))
