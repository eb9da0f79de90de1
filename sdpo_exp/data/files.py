"""Files of a table: which of a folder's or a hub dataset's files are a split.

A hub id ends as a snapshot folder of the hub's cache, so what is opened is always local, but for a
stream.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sdpo_exp import hub
from sdpo_exp.errors import UserError

FORMATS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".json": "json",
}
# What datasets.save_to_disk leaves: one split, or several.
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_KEYS = "data.train.path=/path/to/folder (validation follows it, or data.validation.path=...)"


class TableFiles(NamedTuple):
    """Files of one split in one format, and the folder that relative image paths start at."""

    files: list[str]
    format: str
    folder: Path


def split_files(files: Sequence[str], split: str, config: str | None = None) -> list[str]:
    """The files of a split, by the hub's naming, in order.

    `train.parquet`, `train-00000-of-00002.parquet`, `data/train_1.csv` and `train/any.parquet` are
    of the split `train`. Files that name no split at all are `train`. With `config` only the files
    below a folder of that name count. JSON files beside tables of other formats are about these.
    """
    paths = [Path(name) for name in sorted(files) if _format(name) is not None]
    if any(_format(path) != "json" for path in paths):
        paths = [path for path in paths if path.suffix.lower() != ".json"]
    if config is not None:
        paths = [path for path in paths if config in path.parts[:-1]]
    chosen = [path for path in paths if _names_split(path, re.escape(split))]
    if not chosen and split == "train":
        others = r"(train|validation|valid|val|dev|test|eval)(_[a-z]+)?"
        if not any(_names_split(path, others) for path in paths):
            chosen = paths
    return [str(path) for path in chosen]


def _format(path: str | Path) -> str | None:
    return FORMATS.get(Path(path).suffix.lower())


def _names_split(path: Path, split: str) -> bool:
    own_name = re.fullmatch(rf"{split}([-_.]\d.*)?", path.stem)
    return bool(own_name or any(re.fullmatch(split, part) for part in path.parts[:-1]))


def missing_files(found: Sequence[str]) -> str | None:
    """What is missing of a split whose files say how many they are, in words, or None."""
    totals = {match[1] for name in found if (match := re.search(r"-\d+-of-0*(\d+)", name))}
    if len(totals) != 1 or len(found) >= int(total := totals.pop()):
        return None
    return f"only {len(found)} of {total} files of the split are here ({_few(found)})"


def find_table(path: str, revision: str | None, config: str | None, split: str) -> TableFiles:
    """Local files of a split of a file, a folder or a hub dataset, fetched where needed.

    Raises:
        UserError: there is nothing, nothing of this split, or files of several formats.
    """
    located = hub.locate(path, "dataset", revision, lambda names: split_files(names, split, config))
    if located.is_file():
        folder, names = located.parent, [located.name]
    else:
        folder, names = located, names_below(located)
    if any(name in names for name in (_SAVED, _SAVED_SPLITS)):
        return TableFiles([str(folder)], "saved", folder)
    found = split_files(names, split, config)
    if not found or missing_files(found) is not None:
        raise UserError(f"{path}: {_what_lacks(located, split, config)}")
    formats = {_format(name) or "" for name in found}
    if len(formats) > 1:
        raise UserError(f"{path}: the split {split} has files of several formats: {_few(found)}")
    parents = [str((folder / name).parent) for name in found]
    files = [str(folder / name) for name in found]
    return TableFiles(files, formats.pop(), Path(os.path.commonpath(parents)))


def absent_table(path: str, revision: str | None, config: str | None, split: str) -> str | None:
    """Why the table cannot be had, in one sentence, or None; nothing is loaded or fetched."""

    def complete(folder: Path) -> bool:
        if folder.is_file():
            return bool(split_files([folder.name], split, None))
        return is_complete(folder, split, config)

    reason = hub.absence(path, "dataset", revision, complete)
    if reason is None:
        return None
    if (folder := hub.local_path(path)) is not None:
        return f"{path}: {_what_lacks(folder, split, config)}"
    return f"{reason}; or give local files: {_KEYS}"


def is_complete(folder: Path, split: str, config: str | None) -> bool:
    """Whether a folder has all files of a split, as far as their names tell."""
    names = names_below(folder)
    found = split_files(names, split, config)
    saved = {_SAVED, _SAVED_SPLITS} & set(names)
    return bool(saved or (found and missing_files(found) is None))


def names_below(folder: Path) -> list[str]:
    """Files of a folder and its folders, sorted, by their path in it; none that is hidden."""
    files = (p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file())
    return [str(file) for file in files if not any(part[0] == "." for part in file.parts)]


def _what_lacks(located: Path, split: str, config: str | None) -> str:
    names = [located.name] if located.is_file() else names_below(located)
    tables = [name for name in names if _format(name) is not None]
    if not tables:
        return f"no table in it; looked for {', '.join(FORMATS)}"
    found = split_files(names, split, config)
    if found and (missing := missing_files(found)) is not None:
        return missing
    below = f" below {config}/" if config is not None else ""
    return (
        f"no file of the split {split}{below}. It has {_few(tables)}. Files are matched by name: "
        f"{split}.parquet, {split}-00000-of-00002.parquet or {split}/<any name>.parquet"
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
