"""Manifests of images, ours and public ones: lists of `{prompt, gen_image_path, metadata, ...}`.

Ours say of every image its set, its prompt's index and its seed. Of a public one an image is known
by its place alone, as the public comparison has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.pairing import ImageKey

_KEY = {"set", "index", "seed"}


@dataclass(frozen=True)
class ManifestEntry:
    """An entry that counts.

    Attributes:
        place: in the file, from 0.
        image: its own key, or (name of the file, place among the entries that count, 0).
        prompt: byte for byte.
        path: of the image, as the file has it.
        fields: all that the entry says.
    """

    place: int
    image: ImageKey
    prompt: str
    path: str
    fields: Mapping[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        """The texts of its `metadata`: what the prompt is filed under, by axis."""
        metadata = self.fields.get("metadata")
        filed = metadata.items() if isinstance(metadata, dict) else ()
        return {axis: value for axis, value in filed if isinstance(value, str) and value}


class ManifestEntries(NamedTuple):
    """Entries that count, whether these say set, index and seed, and how many others there are."""

    entries: list[ManifestEntry]
    by_index: bool
    dropped: int


def read_entries(path: Path) -> ManifestEntries:
    """Read a manifest by the public rules.

    An entry counts if its prompt is a text and its image path, or the first filled one of a list of
    them, is one.

    Raises:
        UserError: no manifest, a broken one, no entry that counts, or a key that is none.
    """
    raw = _read(path)
    by_index = all(entry.keys() >= _KEY for entry in raw)
    found: list[ManifestEntry] = []
    for place, entry in enumerate(raw):
        prompt, image = entry.get("prompt"), image_path(entry.get("gen_image_path"))
        if isinstance(prompt, str) and image is not None:
            counted = ImageKey(path.stem, len(found), 0)
            key = _own_key(path, place, entry) if by_index else counted
            found.append(ManifestEntry(place, key, prompt, image, entry))
    if not found:
        raise UserError(f"{path}: no entry with a prompt and the path of an image")
    return ManifestEntries(found, by_index, len(raw) - len(found))


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a manifest ({first_line(error)})") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{path}: no manifest; one is a JSON list of objects with prompt and gen_image_path"
        )
    return entries


def image_path(value: Any) -> str | None:
    """The path of an entry's image: a text, or the first filled one of a list; else None."""
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, str) and item), None)
    return value if isinstance(value, str) and value else None


def _own_key(path: Path, place: int, entry: Mapping[str, Any]) -> ImageKey:
    try:
        return ImageKey(str(entry["set"]), int(entry["index"]), int(entry["seed"]))
    except (TypeError, ValueError):
        raise UserError(f"{path}: entry {place}: index and seed must be whole numbers") from None
