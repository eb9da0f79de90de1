"""Stage 2, too: models and data that are not here and cannot be fetched, told before a run begins.

A class says so itself by a classmethod `absent(**arguments) -> str | None`, which takes what its
constructor takes (or the classmethod that the node names in its place), loads nothing and answers
within seconds: a line per thing that is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.check import INSTANTIATE_KEYS
from sdpo_exp.config.schema import GROUPS


def absent_sources(config: DictConfig, groups: Sequence[str] = GROUPS) -> list[str]:
    """One sentence per model or dataset of these groups that cannot be had; each is told once."""
    chosen = (config.get(group) for group in groups)
    nodes = (n for node in chosen if isinstance(node, DictConfig) for n in _built_nodes(node))
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
    builder = get_object(target)
    # Of a classmethod it is the class that is asked.
    absent = getattr(getattr(builder, "__self__", builder), "absent", None)
    if absent is None:
        return []
    arguments: Any = OmegaConf.to_container(node, resolve=True)
    found: str | None = absent(**{k: v for k, v in arguments.items() if k not in INSTANTIATE_KEYS})
    return found.splitlines() if found else []
