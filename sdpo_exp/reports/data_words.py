"""What a run was trained on, in a word or two: `tiny_hard`, `folder own`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdpo_exp.reports.run_records import RunRecord

# Of runs whose command line leaves the choice to the model: the group's name by its class.
_CHOICES = {
    "SyntheticPairs": "tiny",
    "HardPairs": "tiny_hard",
    "SampledPairs": "tiny_sampled",
    "FolderPairs": "folder",
    "TablePairs": "table",
    "StreamPairs": "stream",
    "MixedPairs": "mixture",
}
_WHERE = ("path", "folder")


def data_of(record: RunRecord) -> str:
    """The choice of `data=` and the last part of its path; empty where nobody knows."""
    return data_words(record.config, record.overrides)


def data_words(config: Mapping[str, Any], overrides: list[str]) -> str:
    """As `data_of`, from a resolved configuration and a command line's words."""
    words = (line.lstrip("+").partition("=") for line in overrides)
    chosen = next((value for key, _, value in words if key == "data"), None)
    train = _mapping(_mapping(config.get("data")).get("train"))
    kind = chosen or _kind(train)
    place = next((str(train[key]) for key in _WHERE if train.get(key)), "")
    name = place.replace("\\", "/").rstrip("/").rpartition("/")[2]
    names = [name] if name else list(map(str, _mapping(train.get("sources"))))
    if kind == "table" and names:
        kind = ""
    return " ".join(dict.fromkeys(filter(None, (kind, "+".join(names)))))


def _kind(train: Mapping[str, Any]) -> str:
    name = str(train.get("_target_") or "").rpartition(".")[2]
    kind = _CHOICES.get(name, name)
    return "tiny_flawed" if kind == "tiny" and train.get("flaws") else kind


def _mapping(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}
