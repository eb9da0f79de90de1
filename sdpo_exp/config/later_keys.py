"""Keys that came after runs had been recorded: at their defaults they are as if not there.

So the hash of a configuration that leaves them alone stays what it was, and a run from before a key
counts as one that has its default.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from sdpo_exp.config.parsed import TargetError
from sdpo_exp.config.signatures import read_signature

# By dotted key: the values by which all is done as before there was the key, first the one that a
# run from before it is taken to have: the key's default, unless the default is something new.
LATER_KEYS: dict[str, tuple[Any, ...]] = {
    "schedule": ("constant",),
    "timesteps.min": (0,),
    "timesteps.max": (None,),
    "max_time": (None,),
    "callbacks.checkpoint.every_n_minutes": (None,),
    "callbacks.checkpoint.keep_last": (1,),
    "callbacks.progress.every_seconds": (30,),
    "data.cache": (None,),
    "model.base": ("unfinished",),
    "data.train.columns.preferred": (None,),
    "data.train.columns.values": (None,),
    "data.train.template": (None,),
    "data.train.base": ("unfinished",),
    "data.validation.base": ("unfinished", "${data.train.base}"),
    "data.train.k": (None,),
    "data.train.min_gap": (0.0,),
    "data.train.label_noise": (0.0,),
    "data.train.label_noise_seed": (0,),
    "data.validation.k": (None, "${data.train.k}"),
    "data.validation.min_gap": (0.0, "${data.train.min_gap}"),
    "data.validation.template": (None, "${data.train.template}"),
}


def with_harmless(node: DictConfig, group: str) -> DictConfig:
    """A stored node of a group, completed by the later keys that its class knows by now."""
    try:
        known = read_signature(str(node["_target_"])).parameters
    except TargetError:  # somebody else's class
        return node
    for key, harmless in LATER_KEYS.items():
        place, _, name = key.rpartition(".")
        if place == group and name in known and name not in node:
            node[name] = harmless[0]
    return node


def without_later_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the later keys that have their defaults, nor nodes left empty so."""
    for key, harmless in LATER_KEYS.items():
        tree = _without(tree, key.split("."), harmless)
    return tree


def _without(tree: dict[str, Any], path: list[str], harmless: tuple[Any, ...]) -> dict[str, Any]:
    name, *below = path
    if name not in tree:
        return tree
    others = {key: value for key, value in tree.items() if key != name}
    if not below:
        value = tree[name]
        same = any(value == other and type(value) is type(other) for other in harmless)
        return others if same else tree
    if not isinstance(tree[name], dict):
        return tree
    inner = _without(tree[name], below, harmless)
    if inner is tree[name]:
        return tree
    return {key: inner if key == name else v for key, v in tree.items()} if inner else others
