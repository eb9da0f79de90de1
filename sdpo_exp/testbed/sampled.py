"""Preference pairs of the base model's own samples, as on the sites where people vote.

Several samples of one caption, ranked by the exact checker: the best against the worst of the
first k, near ties left out. The images are kept in PNG sheets that anybody can look at, those of a
caption side by side. `sample_pairs` makes such a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sdpo_exp.bounds import NonNegativeInt, PositiveInt, UnitInterval
from sdpo_exp.errors import UserError
from sdpo_exp.models.pixel_backbone import Base
from sdpo_exp.testbed.captions import parse_caption
from sdpo_exp.testbed.render import SIDE
from sdpo_exp.types import PairRow

# Samples of the shipped UNet bases, by the base.
SHIPPED: Mapping[Base, Path] = {"unfinished": Path(__file__).parent / "sampled"}
INDEX_FILE = "pairs.json"
SampledSplit = Literal["train", "validation"]
Pixels = NDArray[np.uint8]
_TILES_PER_LINE = 40


class SampledRow(NamedTuple):
    """One row of the index: caption, and the checker's reward of each of its samples."""

    prompt: str
    rewards: tuple[float, ...]


class SampledPair(NamedTuple):
    """A pair: caption, and the checker's reward of what counts as winner and as loser."""

    prompt: str
    winner_reward: float
    loser_reward: float


class SampledPairs:
    """Pairs of a folder that `sample_pairs` made: the best against the worst of k samples.

    Args:
        split: "train" (train captions) or "validation" (validation captions).
        folder: with `pairs.json` and the sheets; None takes samples that ship with the package.
        k: of a caption's samples the first k count; None: all that the folder has.
        min_gap: captions whose best and worst differ by no more in reward make no pair.
        label_noise: share of the pairs whose labels are flipped, as people's are. A pair flipped
            at some share is flipped at every larger one.
        label_noise_seed: of the flips.
        base: whose samples are taken without a folder.

    Raises:
        UserError: folder or index are missing or broken, sheet and index do not fit, there are
            fewer than k samples, or no pair is left.
    """

    def __init__(
        self,
        split: SampledSplit = "train",
        folder: str | None = None,
        k: PositiveInt | None = None,
        min_gap: UnitInterval = 0.0,
        label_noise: UnitInterval = 0.0,
        label_noise_seed: NonNegativeInt = 0,
        base: Base = "unfinished",
    ) -> None:
        self.folder = SHIPPED[base] if folder is None else Path(folder)
        self.split = split
        rows = _read_index(self.folder, split)
        images = _read_sheet(sheet_path(self.folder, split), len(rows), len(rows[0].rewards))
        rewards = np.array([row.rewards for row in rows])[:, : _at_most(k, rows, self.folder)]
        chosen = np.flatnonzero(np.ptp(rewards, axis=1) > min_gap)
        if not len(chosen):
            raise UserError(f"{self.folder}: min_gap={min_gap} leaves no pair of {split!r}")
        order = np.stack([rewards.argmax(1), rewards.argmin(1)], axis=1)
        flipped = np.random.default_rng(label_noise_seed).random(len(rows)) < label_noise
        order[flipped] = order[flipped, ::-1]
        self.images: Pixels = images[chosen[:, None], order[chosen]]
        kept = np.take_along_axis(rewards, order, axis=1)[chosen].tolist()
        self.rows = [SampledPair(rows[i].prompt, *p) for i, p in zip(chosen, kept, strict=True)]

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


def write_samples(
    folder: Path, content: dict[str, list[SampledRow]], images: dict[str, Pixels], made_by: Any
) -> None:
    """Write index and sheets below an existing folder.

    Args:
        folder: to write to.
        content: rows by split, of equally many rewards each.
        images: (rows, rewards, 32, 32, 3) by split.
        made_by: provenance, kept in the index.
    """
    for split, pixels in images.items():
        Image.fromarray(_to_sheet(pixels)).save(sheet_path(folder, split), optimize=True)
    lines = {
        split: [json.dumps([row.prompt, *row.rewards]) for row in rows]
        for split, rows in content.items()
    }
    text = ",\n".join(
        f'"{split}": [\n ' + ",\n ".join(rows) + "\n]" for split, rows in lines.items()
    )
    (folder / INDEX_FILE).write_text(f'{{"made_by": {json.dumps(made_by)},\n{text}}}\n')


def _at_most(k: int | None, rows: list[SampledRow], folder: Path) -> int:
    there = len(rows[0].rewards)
    if k is None:
        return there
    if not 2 <= k <= there:
        raise UserError(
            f"k={k}: {folder} has {there} samples a caption, of which a pair needs 2 or more; "
            "python -m sdpo_exp.sample_pairs k=... makes others"
        )
    return k


def _read_index(folder: Path, split: str) -> list[SampledRow]:
    path = folder / INDEX_FILE
    try:
        content = json.loads(path.read_text())
        rows = [SampledRow(prompt, tuple(map(float, r))) for prompt, *r in content[split]]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; python -m sdpo_exp.sample_pairs folder={folder} makes it"
        ) from None
    except KeyError:
        raise UserError(f"{path}: has no pairs for split {split!r}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not rows:
        raise UserError(f"{path}: has no pairs for split {split!r}")
    for number, row in enumerate(rows):
        try:
            parse_caption(row.prompt)
        except UserError as error:
            raise UserError(f"{path}: {split} row {number}: {error}") from None
        if len(row.rewards) != len(rows[0].rewards) or len(set(row.rewards)) < 2:
            raise UserError(f"{path}: {split} row {number}: no sample is better than another")
    return rows


def _read_sheet(path: Path, count: int, samples: int) -> Pixels:
    """(count, samples, 32, 32, 3)."""
    try:
        sheet = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    height, width = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    per_line = _rows_per_line(samples)
    if width != per_line * samples or height != -(-count // per_line):
        raise UserError(
            f"{path}: {width} x {height} tiles do not fit the {count} pairs of the index"
        )
    tiles = sheet.reshape(height, SIDE, width, SIDE, 3).swapaxes(1, 2)
    return tiles.reshape(-1, samples, SIDE, SIDE, 3)[:count]


def _to_sheet(pixels: Pixels) -> Pixels:
    """(lines x 32, tiles x 32, 3) of (N, samples, 32, 32, 3); the last line ends in black."""
    count, samples = pixels.shape[:2]
    per_line = _rows_per_line(samples)
    lines = -(-count // per_line)
    full = np.zeros((lines * per_line, *pixels.shape[1:]), np.uint8)
    full[:count] = pixels
    tiles = full.reshape(lines, per_line * samples, SIDE, SIDE, 3)
    return tiles.swapaxes(1, 2).reshape(lines * SIDE, per_line * samples * SIDE, 3)


def _rows_per_line(samples: int) -> int:
    """Captions in a line of a sheet: 20 of two samples, 10 of four."""
    return max(1, _TILES_PER_LINE // samples)


def _to_tensor(pixels: Pixels) -> Tensor:
    """(3, 32, 32) float32 in [-1, 1]."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1.0)
