"""The pairs of a folder of image files, by names and captions alone; no image is opened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sdpo_exp.data.captions import image_files, read_captions
from sdpo_exp.data.columns import Columns, Part, Rules
from sdpo_exp.data.holdout import held_out_captions, lone_caption
from sdpo_exp.errors import NoPairLeft, UserError

_SIDES = (("winner", "loser"), ("w", "l"))
_LAYOUT = (
    "a folder of pairs has winner/ and loser/ with images of equal names, and captions in "
    "captions.csv, .tsv or .jsonl (file, caption), or one <name>.txt per pair in winner/ or "
    "captions/"
)


class FilePair(NamedTuple):
    """Two image files and what they were made for."""

    winner: Path
    loser: Path
    caption: str


def read_folder(path: str, holdout: float = 0.0, part: Part = "all") -> list[FilePair]:
    """The pairs of a part of a folder, by name.

    Args:
        path: of the folder.
        holdout: share of the captions that only `validation` has.
        part: `all`, or one side of the split by caption.

    Raises:
        UserError: no such folder, images without partner, pairs without caption, or no pair left.
    """
    Rules(None, holdout, part).check(Columns(winner="winner", loser="loser"), path)
    found = _find_pairs(Path(path).expanduser())
    if part == "all":
        return found
    held = held_out_captions((pair.caption for pair in found), holdout)
    chosen = [pair for pair in found if (pair.caption in held) == (part == "validation")]
    if not chosen:
        raise NoPairLeft(f"{path}: no pair left for part={part}{lone_caption(len(found))}")
    return chosen


def is_folder_of_pairs(path: Path) -> bool:
    """Whether a folder has images of winners and losers below it."""
    return any(all((path / side).is_dir() for side in sides) for sides in _SIDES)


def _find_pairs(folder: Path) -> list[FilePair]:
    if not folder.is_dir():
        raise UserError(no_folder(str(folder)))
    sides = next((s for s in _SIDES if all((folder / side).is_dir() for side in s)), None)
    if sides is None:
        raise UserError(f"{folder}: has no winner/ and loser/; {_LAYOUT}")
    winners, losers = (image_files(folder / side) for side in sides)
    captions = read_captions(folder, folder / sides[0], winners)
    problems = [
        _named(f"without an image in {sides[1]}/", winners.keys() - losers.keys()),
        _named(f"without an image in {sides[0]}/", losers.keys() - winners.keys()),
        _named("without a caption", (winners.keys() & losers.keys()) - captions.keys()),
    ]
    if not winners and not losers:
        problems = ["no images"]
    if any(problems):
        raise UserError(f"{folder}: {'; '.join(filter(None, problems))}. Note: {_LAYOUT}")
    return [FilePair(winners[name], losers[name], captions[name]) for name in sorted(winners)]


def _named(what: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    if not listed:
        return ""
    more = ", ..." if len(listed) > 5 else ""
    return f"{len(listed)} {what}: {', '.join(listed[:5])}{more}"


def no_folder(path: str) -> str:
    """What to say where there is no folder."""
    return f"{path}: no such folder; {_LAYOUT}"
