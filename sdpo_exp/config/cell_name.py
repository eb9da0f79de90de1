"""Names for the folders of runs: what was chosen, and a hash of everything that matters."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.hydra_versions import register_resolver
from sdpo_exp.config.later_keys import without_later_keys
from sdpo_exp.shaping import is_plumbing

_AXES = ("model", "objective", "safeguard")
# What may differ between two runs of one cell.
_NOT_PART = frozenset(
    {"hydra", "name", "run_dir", "resume", "resume_changes", "logger", "torch_threads", "redo"}
)
_LABEL_LENGTH = 60
# What comes first in a name, by the last part of its key.
_FIRST = ("mu", "beta", "alpha", "lr", "seed")


def register_resolvers() -> None:
    """Make `${cell:}`, `${cell_hash:}` and `${choice:<group>}` known to OmegaConf."""
    register_resolver("cell", _resolve_cell)
    register_resolver("cell_hash", _resolve_hash)
    register_resolver("choice", _resolve_choice)


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

    Of the other overrides those appear that a study is about, by the last part of their key and
    cut to a safe length; the digest keeps cells apart whose labels agree.
    """
    labels = "-".join(filter(None, (_label(override) for override in sorted(overrides, key=_rank))))
    short = labels[:_LABEL_LENGTH].rstrip("-.")
    return "-".join(filter(None, ["-".join(choices), short, digest]))


def _rank(override: str) -> tuple[int, str]:
    last = override.partition("=")[0].rpartition(".")[2].lstrip("+~")
    return (_FIRST.index(last) if last in _FIRST else len(_FIRST), override)


def _label(override: str) -> str:
    key, _, value = override.lstrip("+~").partition("=")
    parts = key.split(".")
    if key in _AXES or parts[0] in _NOT_PART or key.startswith("hydra") or is_plumbing(key):
        return ""
    return re.sub(r"[^A-Za-z0-9.]+", "", key.split(".")[-1] + value)


def cell_labels(cells: Sequence[Sequence[str]]) -> list[str]:
    """What sets each cell of a sweep apart: its overrides, without those that all have."""
    shared = set.intersection(*map(set, cells)) if len(cells) > 1 else set()
    return [" ".join(line for line in cell if line not in shared) for cell in cells]


def config_hash(config: DictConfig) -> str:
    """8 hex digits over all that decides a run's numbers, names and paths left out.

    Keys that came later are left out at their defaults (`later_keys`).
    """
    kept: dict[str, Any] = {}
    for key in config:
        if key not in _NOT_PART:
            node = config._get_node(key)
            kept[str(key)] = (
                OmegaConf.to_container(node, resolve=False)
                if OmegaConf.is_config(node)
                else config._get_node(key)._value()  # type: ignore[union-attr]
            )
    kept = without_later_keys(kept)
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
