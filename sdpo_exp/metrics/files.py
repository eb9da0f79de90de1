"""Files of the scorers: where they are, which they are, and why they cannot be had."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdpo_exp import hub
from sdpo_exp.errors import UserError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MODEL = (("config.json",), WEIGHTS)
_VOCABULARY = ("tokenizer.json", "vocab.json", "vocab.txt")
_TOKENIZER = (*_VOCABULARY, "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def locate_folder(
    source: str,
    revision: str | None,
    groups: Sequence[Sequence[str]],
    optional: Sequence[str] = (),
) -> Path:
    """The folder of a hub id or local path with one of each group of alternative files.

    Args:
        source, revision: as for `hub.locate`.
        groups: of names; of a hub repository the first of a group that exists is fetched.
        optional: names that are fetched where they exist.

    Raises:
        UserError: it cannot be had, or lacks a whole group.
    """

    def wanted(there: Sequence[str]) -> list[str]:
        chosen = [name for group in groups for name in [n for n in group if n in there][:1]]
        return [*chosen, *(name for name in optional if name in there)]

    folder = hub.locate(source, "model", revision, wanted)
    if lacks := _lacks(folder, groups):
        raise UserError(f"{source}: {folder} {lacks}")
    return folder


def _lacks(folder: Path, groups: Sequence[Sequence[str]]) -> str | None:
    for group in groups:
        if not any((folder / name).is_file() for name in group):
            return f"has no {' and no '.join(group)}"
    return None


def locate_file(
    source: str, revision: str | None, names: Sequence[str], optional: Sequence[str] = ()
) -> Path:
    """A file: `source` itself, or the first of `names` in the folder or repository.

    `optional` as for `locate_folder`.

    Raises:
        UserError: it cannot be had.
    """
    path = hub.local_path(source)
    if path is not None and path.is_file():
        return path
    folder = locate_folder(source, revision, [names], optional)
    return next(folder / name for name in names if (folder / name).is_file())


def locate_tokenizer(source: str) -> Path:
    """The folder of a tokenizer, by hub id or path.

    Raises:
        UserError: it cannot be had, or there is no tokenizer in it.
    """
    folder = hub.locate(source, "model", None, lambda there: [n for n in _TOKENIZER if n in there])
    if _lacks(folder, [_VOCABULARY]):
        raise UserError(f"{source}: {folder} has no tokenizer ({', '.join(_VOCABULARY)})")
    return folder


def absent(
    key: str, source: str, revision: str | None, groups: Sequence[Sequence[str]]
) -> str | None:
    """Why files cannot be had, with both ways out, or None; loads and fetches nothing.

    Args:
        key: the configuration key that names `source`.
        source, revision, groups: as for `locate_folder`; a file may stand for a lone group.
    """
    if (path := hub.local_path(source)) is not None:
        if path.is_file() and len(groups) == 1:
            return None
        lacks = _lacks(path, groups) if path.is_dir() else "is no folder"
        return f"{key}={source}: {lacks}" if lacks else None
    why = hub.absence(source, "model", revision, lambda folder: _lacks(folder, groups) is None)
    if why is None:
        return None
    needed = ", ".join(" or ".join(group) for group in groups)
    return f"{key}: {why} (needed: {needed}), or give a local folder: {key}=/path/to/folder"


def absent_tokenizer(key: str, source: str) -> str | None:
    """As `absent`, for a tokenizer."""
    return absent(key, source, None, [_VOCABULARY])


def together(*lines: str | None) -> str | None:
    """What several `absent` say, a line each."""
    return "\n".join(filter(None, lines)) or None


def check_sha256(file: Path, expected: str) -> None:
    """Refuse a file that is not the released one.

    Raises:
        UserError: its sha256 differs.
    """
    found = _digest(file)
    if found != expected:
        raise UserError(
            f"{file}: not the released file (sha256 {found}, expected {expected}); fetch it again"
        )


def sha256(file: Path) -> str:
    """sha256 of a file; where the hub's cache has stored it under that, it is not read again."""
    stored = file.resolve()
    if stored.parent.name == "blobs" and _SHA256.fullmatch(stored.name):
        return stored.name
    return _digest(file)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def origin(source: str, *read: Path) -> dict[str, Any]:
    """Where a model comes from, for result files.

    Returns:
        `source` as given, the `commit` of a hub's snapshot or None, and `sha256` by name of file.

    Args:
        source: hub id, folder or file.
        read: what was read of it, at least one file.
    """
    commit = hub.commit(read[0].parent)
    return {
        "source": source,
        "commit": commit,
        "sha256": {file.name: sha256(file) for file in read},
    }


def origin_with_tokenizer(source: str, file: Path, tokenizer: str, folder: Path) -> dict[str, Any]:
    """As `origin`, and under `tokenizer` the same of a tokenizer, without its files.

    Args:
        source, file: of the weights.
        tokenizer: hub id or folder, as given.
        folder: where it was found.
    """
    words = {"source": tokenizer, "commit": hub.commit(folder)}
    return {**origin(source, file), "tokenizer": words}
