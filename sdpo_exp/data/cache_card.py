"""`cache.json`: what a cache of frozen work holds, and why it does not belong to a training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.whole_files import write_json

CARD = "cache.json"
PARTS = ("train", "validation")
TEXT = "text"
_FORMAT = 1


@dataclass(frozen=True)
class CacheCard:
    """What a cache was made of; two that agree in the first six hold the same numbers.

    Attributes:
        settings: the configuration's keys that shape it, by their dotted names.
        data: fingerprint of each part's source.
        files: sha256 of the files that the frozen parts were loaded from.
        pairs: rows of each part.
        shard: rows, or prompts, of a file.
        dtype: of the tensors.
        complete: whether all shards are there.
        shards: bytes and sha256 of each file, once all are there.
        made_by: versions and machine.
    """

    settings: Mapping[str, Any]
    data: Mapping[str, str]
    files: Mapping[str, str]
    pairs: Mapping[str, int]
    shard: int
    dtype: str
    complete: bool = False
    shards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `cache.json`, complete or not at all."""
        write_json(folder / CARD, {"format": _FORMAT, **asdict(self)})

    def differences(self, other: CacheCard, names: Sequence[str]) -> list[str]:
        """`key: this one's -> the other's` of what differs in some attributes."""
        found = []
        for name in names:
            mine, theirs = (_flat(name, getattr(card, name)) for card in (self, other))
            for key in dict.fromkeys([*mine, *theirs]):
                if mine.get(key) != theirs.get(key):
                    found.append(f"{key}: {_short(mine.get(key))} -> {_short(theirs.get(key))}")
        return found


def read_card(folder: Path, key: str = "data.cache") -> CacheCard:
    """The card of a cache.

    Raises:
        UserError: there is none, it cannot be read, or it is of another format.
    """
    file = folder / CARD
    if not file.is_file():
        raise UserError(
            f"{key}={folder}: no cache there (no {CARD}); python -m sdpo_exp.prepare makes one"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise ValueError("of another format")
        return CacheCard(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: cannot be read ({first_line(error)}); make the cache anew in another folder"
        ) from None


def refuse_unlike(folder: Path, card: CacheCard, settings: Mapping[str, Any]) -> list[str]:
    """Why a cache does not serve a training, as far as its configuration tells.

    Args:
        folder: of the cache.
        card: its card.
        settings: of the training, as `CacheCard.settings`.
    """
    if not card.complete:
        return [
            f"data.cache={folder}: not finished; the python -m sdpo_exp.prepare that made it goes "
            "on where it stopped"
        ]
    changed = [key for key in dict.fromkeys([*card.settings, *settings])
               if card.settings.get(key) != settings.get(key)]  # fmt: skip
    return [
        f"{key}: the cache {folder} was made with {card.settings.get(key)}, this training has "
        f"{settings.get(key)}; give the same, or make a cache of its own"
        for key in changed
    ]


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {key if name == "settings" else f"{name} {key}": v for key, v in value.items()}


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
