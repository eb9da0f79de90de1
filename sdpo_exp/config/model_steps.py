"""Stage 2, too: a range of timesteps against the scheduler of a model that lies here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig

from sdpo_exp import hub

_SCHEDULER = "scheduler/scheduler_config.json"


def timesteps_beyond(config: DictConfig) -> list[str]:
    """A sentence where `timesteps` names steps that the model does not have.

    Nothing about a model that has to be fetched first, or one without a scheduler's file: that is
    told when it is built.
    """
    limits = config.timesteps
    steps = _steps(config.model) if limits.min or limits.max is not None else None
    if steps is None or (limits.min < steps and (limits.max or steps) <= steps):
        return []
    key = "min" if limits.min >= steps else "max"
    return [
        f"timesteps.{key}={limits[key]}: the model has {steps} training steps, 0 to {steps - 1}"
    ]


def _steps(model: DictConfig) -> int | None:
    if "pretrained" not in model:
        return None
    folder = _embedded(model) if model.pretrained is None else _folder(model)
    if folder is None:
        return None
    try:
        content: Any = json.loads((folder / _SCHEDULER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    steps = content.get("num_train_timesteps") if isinstance(content, dict) else None
    return steps if isinstance(steps, int) else None


def _embedded(model: DictConfig) -> Path | None:
    """Of the weights that ship with the package."""
    shipped: dict[str, Path] = getattr(get_class(model["_target_"]), "SHIPPED", {})
    return shipped.get(model.get("base"))


def _folder(model: DictConfig) -> Path | None:
    here = hub.local_path(model.pretrained)
    return here or hub.cached(model.pretrained, "model", model.get("revision"))
