"""Manifests of images, ours and public ones: lists of `{prompt, gen_image_path, metadata, ...}`.

Ours say of every image its set, its prompt's index and its seed. Of a public one an image is known
by its place alone, as the public comparison has it. A CSV of `file` and `prompt` is one, too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.evaluation.pairing import ImageKey

MANIFEST_FILE = "manifest.json"
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


def manifest_in(folder: Path) -> Path:
    """The manifest of a folder: `manifest.json`, or its only CSV with columns file and prompt.

    Raises:
        UserError: there is neither, or there are several such CSVs.
    """
    if (folder / MANIFEST_FILE).is_file():
        return folder / MANIFEST_FILE
    tables = [p for p in sorted(folder.glob("*.csv")) if {"file", "prompt"} <= set(_header(p))]
    if len(tables) == 1:
        return tables[0]
    if tables:
        names = ", ".join(table.name for table in tables[:4])
        raise UserError(f"{folder}: several CSVs of file and prompt ({names}); name one of them")
    raise UserError(
        f"{folder}: no {MANIFEST_FILE}, as generate writes it, and no CSV with columns file and "
        "prompt, a row per image"
    )


def read_entries(path: Path) -> ManifestEntries:
    """Read a manifest by the public rules, or a CSV as one.

    An entry counts if its prompt is a text and its image path, or the first filled one of a list of
    them, is one.

    Raises:
        UserError: no manifest, a broken one, no entry that counts, or a key that is none.
    """
    raw = _rows(path) if path.suffix.lower() == ".csv" else _read(path)
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
    if isinstance(entries, dict):
        entries = _of_one_prompt(entries)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{path}: no manifest; one is a JSON list of objects with prompt and gen_image_path"
        )
    return entries


def _of_one_prompt(content: Mapping[str, Any]) -> Any:
    """The tuned model's images of a manifest as `generate prompt=...` used to write it."""
    prompt, seed, rows = (content.get(key) for key in ("prompt", "seed", "images"))
    images = [*rows.values()][-1] if isinstance(rows, dict) and rows else None
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        return None
    known = isinstance(seed, int)
    return [
        {"prompt": prompt, "gen_image_path": image.get("file")}
        | ({"set": "prompt", "index": 0, "seed": int(seed or 0) + i} if known else {})
        for i, image in enumerate(images)
    ]


def _header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return next(csv.reader(stream), [])
    except (OSError, ValueError, csv.Error):
        return []


def _rows(path: Path) -> list[dict[str, Any]]:
    """Entries from a CSV's columns: file, prompt, and set, index and seed where all three exist."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            header, rows = list(table.fieldnames or ()), list(table)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a CSV ({first_line(error)})") from None
    if lacks := [name for name in ("file", "prompt") if name not in header]:
        there = ", ".join(header[:8])[:120] or "none"
        raise UserError(f"{path}: no column {' and '.join(lacks)}; its columns: {there}")
    keys = [name for name in _KEY if set(header) >= _KEY]
    return [
        {"prompt": row["prompt"], "gen_image_path": row["file"], **{key: row[key] for key in keys}}
        for row in rows
    ]


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
