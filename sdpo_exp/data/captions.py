"""Captions of a folder of images: one table for all of them, or a text file for each."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from sdpo_exp.data.numbers import listed
from sdpo_exp.data.prompt_formats import columns_of, iter_rows
from sdpo_exp.data.text_files import read_text
from sdpo_exp.errors import UserError

# `metadata` is what image folders are described by elsewhere.
TABLES = tuple(
    f"{name}{end}" for name in ("captions", "metadata") for end in (".csv", ".tsv", ".jsonl")
)
_FILE = ("file", "file_name", "filename", "image")
_CAPTION = ("caption", "text", "prompt")


def read_captions(folder: Path, beside: Path, names: Iterable[str]) -> dict[str, str]:
    """Captions by image name, its ending left out.

    Args:
        folder: may hold one of `TABLES`, or `captions/<name>.txt`.
        beside: may hold `<name>.txt`.
        names: whose text files are looked for, where there is no table.

    Raises:
        UserError: several tables, or one that does not say one caption per image.
    """
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise UserError(f"{folder}: both {' and '.join(t.name for t in tables)}; leave one")
    if tables:
        return _of_table(tables[0])
    places = {name: (beside / f"{name}.txt", folder / "captions" / f"{name}.txt") for name in names}
    texts = {name: next((p for p in paths if p.is_file()), None) for name, paths in places.items()}
    return {name: read_text(path).strip() for name, path in texts.items() if path is not None}


def image_files(folder: Path) -> dict[str, Path]:
    """Image files by name without ending; hidden files, such as `._a.png`, are none.

    Raises:
        UserError: two of one name.
    """
    known = _endings()
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in known or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(f"{folder}: {found[path.stem].name} and {path.name} have one name")
        found[path.stem] = path
    return found


def _of_table(path: Path) -> dict[str, str]:
    columns = columns_of(path)
    file, caption = _column(path, columns, _FILE), _column(path, columns, _CAPTION)
    found: dict[str, str] = {}
    begun: dict[str, str] = {}
    for where, row in iter_rows(path):
        name = _stem(path, where, row.get(file))
        if name in found:
            raise UserError(f"{path} {where}: {name} has a caption already, at {begun[name]}")
        text = row.get(caption)
        text = "" if text is None else text
        found[name], begun[name] = text if isinstance(text, str) else json.dumps(text), where
    return found


def _column(path: Path, columns: Collection[str], known: tuple[str, ...]) -> str:
    there = [name for name in known if name in columns]
    if len(there) == 1:
        return there[0]
    said = f"columns {', '.join(there)}; leave one" if there else f"no column {' or '.join(known)}"
    raise UserError(f"{path}: {said}. It has: {listed(list(columns))}")


def _stem(path: Path, where: str, value: Any) -> str:
    """An image's name; its ending may be left out, and a name may hold dots."""
    if not value:
        raise UserError(f"{path} {where}: no file named")
    name = Path(str(value))
    return name.stem if name.suffix.lower() in _endings() else name.name


def _endings() -> set[str]:
    """Of what Pillow opens; it only writes some others, such as PDF."""
    return {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
