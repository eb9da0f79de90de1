"""`conf/data/relabelled.yaml`: the source's data, with its parts in their new order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.whole_files import write_text

NAME = "relabelled"
TARGET = "sdpo_exp.data.relabelled.RelabelledPairs"
# What refers to the data node itself, by its name or by its place.
_INTO_DATA = re.compile(r"(\$\{|[:,])\s*(\.|data\b)")


def source_node(config: DictConfig, part: str) -> dict[str, Any]:
    """A part's node with every value settled: labels hold for these alone."""
    node: Any = OmegaConf.to_container(config.data[part], resolve=True)
    return dict(node)


def data_node(
    data: DictConfig, sources: Mapping[str, Mapping[str, Any]], labels: Mapping[str, Path]
) -> dict[str, Any]:
    """The data node with parts wrapped.

    Interpolations of root keys, such as `${effective_batch}`, stay as they are. Those that point
    into the data node get their value, because what they point at moves.

    Args:
        data: composed, in its whole configuration.
        sources: by part, the node that was relabelled.
        labels: by part, the labels' file.
    """
    node = _settled(data)
    for part, source in sources.items():
        path = str(labels[part].absolute())
        node[part] = {"_target_": TARGET, "source": dict(source), "labels": path, "min_margin": 0.0}
    return node


def write_data_node(folder: Path, node: Mapping[str, Any], comment: str) -> Path:
    """Write `conf/data/relabelled.yaml` below a folder; returns `conf`, for `--config-dir`."""
    path = folder / "conf" / "data" / f"{NAME}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f"# {comment}\n{OmegaConf.to_yaml(OmegaConf.create(dict(node)))}")
    return folder / "conf"


def model_words(config: DictConfig) -> list[str]:
    """What names a model that such data is made for: the embedded world's needs no word.

    The others' images are cut to `resolution`, which is the model's own unless it was given.
    """
    if "testbed" in str(OmegaConf.to_container(config.data)):
        return []
    model = "sdxl" if config.resolution >= 1024 else "sd15"
    return [f"model={model}"]


def _settled(node: DictConfig) -> dict[str, Any]:
    return {str(key): _value(node, str(key)) for key in node}


def _value(node: DictConfig, key: str) -> Any:
    if OmegaConf.is_missing(node, key):
        return "???"
    if OmegaConf.is_interpolation(node, key):
        raw = str(node._get_node(key)._value())  # type: ignore[union-attr]
        return _plain(node[key]) if _INTO_DATA.search(raw) else raw
    child = node[key]
    return _settled(child) if isinstance(child, DictConfig) else _plain(child)


def _plain(value: Any) -> Any:
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    return value
