"""Pairs from a folder of image files: `winner/` and `loser/` with equal names, and captions."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from sdpo_exp.bounds import HalfOpenUnit, PositiveInt
from sdpo_exp.data.columns import Columns, Part, Rules, is_held_out
from sdpo_exp.data.rows import checked_caption, decode_named, edges
from sdpo_exp.errors import UserError
from sdpo_exp.types import ImagePair

_log = logging.getLogger(__name__)
_SIDES = (("winner", "loser"), ("w", "l"))
_CAPTIONS = ("captions.csv", "captions.jsonl")
_LAYOUT = (
    "a folder of pairs has winner/ and loser/ with images of equal names, and captions in "
    "captions.csv or captions.jsonl (file, caption), or one <name>.txt per pair in winner/ or "
    "captions/"
)


class _Pair(NamedTuple):
    winner: Path
    loser: Path
    caption: str


class FolderPairs:
    """Pairs of a folder, by name.

    Args:
        path: folder with `winner` and `loser` (or `w` and `l`) below it.
        holdout, part: split by a hash of the caption: `train` and `validation` share no caption.
        max_samples: stop after so many pairs; null: all.

    Raises:
        UserError: no such folder, images without partner, pairs without caption, or no pair left.
    """

    def __init__(
        self,
        path: str,
        holdout: HalfOpenUnit = 0.0,
        part: Part = "all",
        max_samples: PositiveInt | None = None,
    ) -> None:
        Rules(None, holdout, part).check(Columns(winner="winner", loser="loser"), path)
        self.path = path
        found = _find_pairs(Path(path).expanduser())
        if part != "all":
            held = part == "validation"
            found = [pair for pair in found if is_held_out(pair.caption, holdout) == held]
        if not found:
            raise UserError(f"{path}: no pair left for part={part}")
        self.pairs = found[:max_samples]
        self.description = f"{path}: {len(self.pairs):,} pairs"
        _log.info("%s", self.description)

    @classmethod
    def absent(cls, path: str, **_: Any) -> str | None:
        """Why the data cannot be had, in one sentence, or None; loads nothing."""
        return None if Path(path).expanduser().is_dir() else _no_folder(path)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> ImagePair:
        """Pair `index`.

        Raises:
            BadRow: it cannot be used.
            IndexError: outside 0..len-1.
        """
        if not 0 <= index < len(self.pairs):
            raise IndexError(f"pair {index} of {len(self.pairs)}")
        pair, name = self.pairs[index], self.row_name(index)
        prompt = checked_caption(pair.caption, name)
        winner = decode_named(pair.winner, name, "winner", None)
        return ImagePair(winner, decode_named(pair.loser, name, "loser", None), prompt)

    def row_name(self, index: int) -> str:
        """`<path> pair <name>`."""
        return f"{self.path} pair {self.pairs[index].winner.stem}"

    def fingerprint(self) -> str:
        """sha256 over captions and, of every image, byte length and first and last 64 bytes.

        In the order of the files' names, which are not covered themselves. Computed once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(pair.caption.encode() + b"\0")
            digest.update(edges(pair.winner, "", None) + edges(pair.loser, "", None))
        return digest.hexdigest()


def _find_pairs(folder: Path) -> list[_Pair]:
    if not folder.is_dir():
        raise UserError(_no_folder(str(folder)))
    sides = next((s for s in _SIDES if all((folder / side).is_dir() for side in s)), None)
    if sides is None:
        raise UserError(f"{folder}: has no winner/ and loser/; {_LAYOUT}")
    winners, losers = (_images(folder / side) for side in sides)
    captions = _captions(folder, folder / sides[0], winners)
    problems = [
        _named(f"without an image in {sides[1]}/", winners.keys() - losers.keys()),
        _named(f"without an image in {sides[0]}/", losers.keys() - winners.keys()),
        _named("without a caption", (winners.keys() & losers.keys()) - captions.keys()),
    ]
    if not winners and not losers:
        problems = ["no images"]
    if any(problems):
        raise UserError(f"{folder}: {'; '.join(filter(None, problems))}. Note: {_LAYOUT}")
    return [_Pair(winners[name], losers[name], captions[name]) for name in sorted(winners)]


def _images(folder: Path) -> dict[str, Path]:
    """Image files by stem.

    Raises:
        UserError: two of one name.
    """
    known = Image.registered_extensions()
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in known:
            continue
        if path.stem in found:
            raise UserError(f"{folder}: {found[path.stem].name} and {path.name} have one name")
        found[path.stem] = path
    return found


def _captions(folder: Path, beside: Path, winners: Iterable[str]) -> dict[str, str]:
    """Captions by stem."""
    tables = [folder / name for name in _CAPTIONS if (folder / name).is_file()]
    if len(tables) > 1:
        raise UserError(f"{folder}: both {' and '.join(_CAPTIONS)}; leave one")
    if tables:
        return _table_of_captions(tables[0])
    places = {
        name: (beside / f"{name}.txt", folder / "captions" / f"{name}.txt") for name in winners
    }
    texts = {name: next((p for p in paths if p.is_file()), None) for name, paths in places.items()}
    return {name: _text(path).strip() for name, path in texts.items() if path is not None}


def _table_of_captions(path: Path) -> dict[str, str]:
    text = _text(path)
    try:
        rows: list[Mapping[str, Any]] = (
            list(csv.DictReader(io.StringIO(text, newline="")))
            if path.suffix == ".csv"
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
        # A file's ending may be left out, and a name may hold dots.
        known = Image.registered_extensions()
        names = [Path(row["file"]) for row in rows]
        stems = [name.stem if name.suffix.lower() in known else name.name for name in names]
        return {stem: row["caption"] or "" for stem, row in zip(stems, rows, strict=True)}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: should hold rows with file and caption, but {type(error).__name__}: {error}"
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def _named(what: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    if not listed:
        return ""
    more = ", ..." if len(listed) > 5 else ""
    return f"{len(listed)} {what}: {', '.join(listed[:5])}{more}"


def _no_folder(path: str) -> str:
    return f"{path}: no such folder; {_LAYOUT}"
