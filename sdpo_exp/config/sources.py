"""Stage 2, too: models and data that are not here and cannot be fetched, told before a run begins.

A class says so itself by a classmethod `absent(**arguments) -> str | None`, which takes what its
constructor takes, loads nothing and answers within seconds: a line per thing that is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.check import INSTANTIATE_KEYS
from sdpo_exp.config.schema import GROUPS


def absent_sources(config: DictConfig) -> list[str]:
    """One sentence per model or dataset that cannot be had; each is told once."""
    nodes = (node for group in GROUPS for node in _built_nodes(config[group]))
    return list(dict.fromkeys(line for node in nodes for line in _absences(node)))


def _built_nodes(node: DictConfig) -> Iterator[DictConfig]:
    if isinstance(node.get("_target_"), str):
        yield node
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from _built_nodes(child)


def _absences(node: DictConfig) -> list[str]:
    target = str(node["_target_"])
    if not target.startswith("sdpo_exp."):
        return []
    absent = getattr(get_class(target), "absent", None)
    if absent is None:
        return []
    arguments: Any = OmegaConf.to_container(node, resolve=True)
    found: str | None = absent(**{k: v for k, v in arguments.items() if k not in INSTANTIATE_KEYS})
    return found.splitlines() if found else []
