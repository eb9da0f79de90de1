"""Names for the folders of runs: what was chosen, and a hash of everything that matters."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

_AXES = ("model", "objective", "safeguard")
# What may differ between two runs of one cell.
_NOT_PART = frozenset({"hydra", "name", "run_dir", "resume", "logger", "torch_threads", "redo"})
_LABEL_LENGTH = 60


def register_resolvers() -> None:
    """Make `${cell:}`, `${cell_hash:}` and `${choice:<group>}` known to OmegaConf."""
    OmegaConf.register_new_resolver("cell", _resolve_cell, replace=True)
    OmegaConf.register_new_resolver("cell_hash", _resolve_hash, replace=True)
    OmegaConf.register_new_resolver("choice", _resolve_choice, replace=True)


def _hydra_of(root: DictConfig) -> Any:
    """Hydra's own node: part of a config composed for a look, elsewhere while a job runs."""
    hydra = root.get("hydra") if "hydra" in root else None
    if hydra is None and HydraConfig.initialized():
        hydra = HydraConfig.get()
    return hydra


def _resolve_hash(*, _root_: DictConfig) -> str:
    return config_hash(_root_)


def _resolve_choice(group: str, *, _root_: DictConfig) -> str:
    """What was chosen of a group; "unknown" without Hydra, or where there is no such group."""
    hydra = _hydra_of(_root_)
    choices = hydra.runtime.choices if hydra is not None else {}
    return str(choices.get(group, "unknown"))


def _resolve_cell(*, _root_: DictConfig) -> str:
    hydra = _hydra_of(_root_)
    if hydra is None:
        return config_hash(_root_)
    choices = [str(hydra.runtime.choices[axis]) for axis in _AXES]
    return cell_name(choices, list(hydra.overrides.task), config_hash(_root_))


def cell_name(choices: list[str], overrides: list[str], digest: str) -> str:
    """`<model>-<objective>-<safeguard>[-<key><value>...]-<digest>`.

    Other overrides appear by the last part of their key, cut to a safe length; the digest keeps
    cells apart whose labels agree.
    """
    labels = "-".join(filter(None, (_label(override) for override in sorted(overrides))))
    short = labels[:_LABEL_LENGTH].rstrip("-.")
    return "-".join(filter(None, ["-".join(choices), short, digest]))


def _label(override: str) -> str:
    key, _, value = override.lstrip("+~").partition("=")
    if key in _AXES or key.partition(".")[0] in _NOT_PART or key.startswith("hydra"):
        return ""
    return re.sub(r"[^A-Za-z0-9.]+", "", key.split(".")[-1] + value)


def cell_labels(cells: Sequence[Sequence[str]]) -> list[str]:
    """What sets each cell of a sweep apart: its overrides, without those that all have."""
    shared = set.intersection(*map(set, cells)) if len(cells) > 1 else set()
    return [" ".join(line for line in cell if line not in shared) for cell in cells]


def config_hash(config: DictConfig) -> str:
    """8 hex digits over all that decides a run's numbers, names and paths left out."""
    kept: dict[str, Any] = {}
    for key in config:
        if key not in _NOT_PART:
            node = config._get_node(key)
            kept[str(key)] = (
                OmegaConf.to_container(node, resolve=False)
                if OmegaConf.is_config(node)
                else config._get_node(key)._value()  # type: ignore[union-attr]
            )
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
