"""What of a configuration shapes a training, and how a training that goes on differs in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdpo_exp.config.flat import flatten
from sdpo_exp.config.later_keys import LATER_KEYS
from sdpo_exp.shaping import shapes


def values_of(config: DictConfig) -> dict[str, Any]:
    """A composed configuration's values by dotted key, Hydra's own left out."""
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return flatten(OmegaConf.to_container(kept, resolve=True))


def saved_values(run: Path) -> dict[str, Any] | None:
    """The same of a run's `config.yaml`; None where it cannot be read.

    A run from before a key has what was done without it.
    """
    try:
        content = OmegaConf.load(run / "config.yaml")
    except (OSError, ValueError, OmegaConfBaseException):
        return None
    if not isinstance(content, DictConfig):
        return None
    defaults = {key: harmless[0] for key, harmless in LATER_KEYS.items()}
    return {**defaults, **flatten(OmegaConf.to_container(content))}


def run_of(path: Path) -> Path:
    """The run that a folder, or a file in its `checkpoints/`, belongs to."""
    return path.parent.parent if path.is_file() else path


def differing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys that shape a training and have another value, or none, than in a saved run.

    A key that came later says nothing about a run that never had it. The end of a training is
    free, unless the learning rate goes down to it.
    """
    found = [
        key
        for key in saved
        if shapes(key) and saved[key] != now.get(key) and not _never_there(key, saved, now)
    ]
    if now.get("schedule", "constant") != "constant" and not _same("max_steps", saved, now):
        found.append("max_steps")
    return found


def _never_there(key: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """A later key of something else than what is trained: taken to have been at its default."""
    return key not in now and key in LATER_KEYS and bool(saved[key] == LATER_KEYS[key][0])


def _same(key: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return bool(saved.get(key) == now.get(key))


def changes_of(config: DictConfig) -> list[str]:
    """`key: old -> new` of all that differs from the run that `config.resume` names."""
    saved = saved_values(run_of(Path(config.resume)))
    if saved is None:
        return []
    now = values_of(config)
    return [f"{key}: {_told(saved[key])} -> {_told(now.get(key))}" for key in differing(saved, now)]


def check_changes(config: DictConfig) -> list[str]:
    """Changes of a training that goes on, where nobody asked for them."""
    if config.get("resume") is None or config.get("resume_changes"):
        return []
    found = changes_of(config)
    if not found:
        return []
    lines = "\n".join(f"    {line}" for line in found)
    return [
        f"resume={config.resume}: that run was trained with other values:\n{lines}\n"
        "    leave out the words that change them, or add resume_changes=true to go on so"
    ]


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
