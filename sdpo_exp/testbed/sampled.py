"""Preference pairs of the base model's own samples, as on the sites where people vote.

Two samples of one caption, ranked by the exact checker, ties left out. The images are kept in PNG
sheets that anybody can look at, winner and loser side by side. `sample_pairs` makes such a folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.testbed.captions import parse_caption
from sdpo_exp.testbed.render import SIDE
from sdpo_exp.types import PairRow

SHIPPED = Path(__file__).parent / "sampled"
INDEX_FILE = "pairs.json"
SampledSplit = Literal["train", "validation"]
Pixels = NDArray[np.uint8]
_PAIRS_PER_LINE = 20


class SampledPair(NamedTuple):
    """One row of the index: caption, and the checker's reward of winner and loser."""

    prompt: str
    winner_reward: float
    loser_reward: float


class SampledPairs:
    """Pairs of a folder that `sample_pairs` made.

    Args:
        split: "train" (train captions) or "validation" (validation captions).
        folder: with `pairs.json` and the sheets; None takes the pairs that ship with the package,
            samples of the shipped base model.

    Raises:
        UserError: folder or index are missing or broken, or sheet and index do not fit.
    """

    def __init__(self, split: SampledSplit = "train", folder: str | None = None) -> None:
        self.folder = SHIPPED if folder is None else Path(folder)
        self.split = split
        self.rows = _read_index(self.folder, split)
        self.images = _read_sheet(sheet_path(self.folder, split), len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PairRow:
        """Pair `index`; IndexError outside 0..len-1."""
        if not 0 <= index < len(self.rows):
            raise IndexError(f"pair {index} of {len(self.rows)}")
        winner, loser = self.images[index]
        return PairRow(_to_tensor(winner), _to_tensor(loser), self.rows[index].prompt)

    def fingerprint(self) -> str:
        """sha256 hex digest of all images, captions and rewards."""
        return hashlib.sha256(self.images.tobytes() + repr(self.rows).encode()).hexdigest()


def sheet_path(folder: Path, split: str) -> Path:
    """Where the images of a split are."""
    return folder / f"{split}.png"


def write_pairs(
    folder: Path, content: dict[str, list[SampledPair]], images: dict[str, Pixels], made_by: Any
) -> None:
    """Write index and sheets below an existing folder.

    Args:
        folder: to write to.
        content: rows by split.
        images: (rows, 2, 32, 32, 3), winner first, by split.
        made_by: provenance, kept in the index.
    """
    for split, pixels in images.items():
        Image.fromarray(_to_sheet(pixels)).save(sheet_path(folder, split), optimize=True)
    lines = {split: [json.dumps(list(row)) for row in rows] for split, rows in content.items()}
    text = ",\n".join(
        f'"{split}": [\n ' + ",\n ".join(rows) + "\n]" for split, rows in lines.items()
    )
    (folder / INDEX_FILE).write_text(f'{{"made_by": {json.dumps(made_by)},\n{text}}}\n')


def _read_index(folder: Path, split: str) -> list[SampledPair]:
    path = folder / INDEX_FILE
    try:
        content = json.loads(path.read_text())
        rows = [SampledPair(*row) for row in content[split]]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; python -m sdpo_exp.sample_pairs folder={folder} makes it"
        ) from None
    except KeyError:
        raise UserError(f"{path}: has no pairs for split {split!r}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    for number, row in enumerate(rows):
        try:
            parse_caption(row.prompt)
        except UserError as error:
            raise UserError(f"{path}: {split} row {number}: {error}") from None
        if not row.winner_reward > row.loser_reward:
            raise UserError(f"{path}: {split} row {number}: the winner has no higher reward")
    return rows


def _read_sheet(path: Path, count: int) -> Pixels:
    """(count, 2, 32, 32, 3)."""
    try:
        sheet = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    height, width = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    if width != 2 * _PAIRS_PER_LINE or height != -(-count // _PAIRS_PER_LINE):
        raise UserError(
            f"{path}: {width} x {height} tiles do not fit the {count} pairs of the index"
        )
    tiles = sheet.reshape(height, SIDE, width, SIDE, 3).swapaxes(1, 2)
    return tiles.reshape(-1, 2, SIDE, SIDE, 3)[:count]


def _to_sheet(pixels: Pixels) -> Pixels:
    """(lines x 32, 40 x 32, 3) of (N, 2, 32, 32, 3); the last line is filled up with black."""
    lines = -(-len(pixels) // _PAIRS_PER_LINE)
    full = np.zeros((lines * _PAIRS_PER_LINE, *pixels.shape[1:]), np.uint8)
    full[: len(pixels)] = pixels
    tiles = full.reshape(lines, 2 * _PAIRS_PER_LINE, SIDE, SIDE, 3)
    return tiles.swapaxes(1, 2).reshape(lines * SIDE, 2 * _PAIRS_PER_LINE * SIDE, 3)


def _to_tensor(pixels: Pixels) -> Tensor:
    """(3, 32, 32) float32 in [-1, 1]."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1.0)
