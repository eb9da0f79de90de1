"""Hard negatives: what the base model typically draws instead of what it was asked for.

Winner: the clean image of a caption. Loser: the clean image of the scene that the checker read in
one of the base's samples for that caption, where this is another one. Both images are clean and
equally placed, so that a pair differs in the base's own mistakes and in nothing else.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from sdpo_exp.bounds import NonNegativeInt
from sdpo_exp.models.pixel_backbone import Base
from sdpo_exp.testbed.attributes import ATTRIBUTES, VALUES, Scene
from sdpo_exp.testbed.captions import caption, parse_caption
from sdpo_exp.testbed.checker import read
from sdpo_exp.testbed.render import draw_offsets, render
from sdpo_exp.testbed.sampled import SampledPairs, SampledSplit
from sdpo_exp.types import PairRow


class HardPairs:
    """Pairs from the readings of sampled images; samples that show the caption make none.

    Args:
        split: "train" or "validation", as in `SampledPairs`.
        folder: of sampled pairs; None takes samples that ship with the package.
        seed: of the jitter, which winner and loser share.
        base: whose shipped samples are read without a folder.

    Raises:
        UserError: the folder is missing or broken.
    """

    def __init__(
        self,
        split: SampledSplit = "train",
        folder: str | None = None,
        seed: NonNegativeInt = 0,
        base: Base = "unfinished",
    ) -> None:
        self.seed = seed
        self.scenes = tuple(_mistakes(SampledPairs(split, folder, base=base)))

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> PairRow:
        """Pair `index`; IndexError outside 0..len-1."""
        if not 0 <= index < len(self.scenes):
            raise IndexError(f"pair {index} of {len(self.scenes)}")
        wanted, drawn = self.scenes[index]
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(index,)))
        offsets = np.repeat(draw_offsets(generator, 1), 2, axis=0)
        winner, loser = torch.from_numpy(render([wanted, drawn], offsets))
        return PairRow(winner=winner, loser=loser, prompt=caption(wanted))

    def fingerprint(self) -> str:
        """sha256 hex digest of seed and scenes."""
        return hashlib.sha256(repr((self.seed, self.scenes)).encode()).hexdigest()


def _mistakes(pairs: SampledPairs) -> list[tuple[Scene, Scene]]:
    """(wanted, drawn) of every sampled image that shows a scene, but not its caption's."""
    wanted = [parse_caption(row.prompt) for row in pairs.rows for _ in range(2)]
    readings = read(pairs.images.reshape(-1, *pairs.images.shape[2:])).values
    drawn = [_scene(values.tolist()) for values in readings]
    return [(w, d) for w, d in zip(wanted, drawn, strict=True) if d is not None and d != w]


def _scene(indices: list[int]) -> Scene | None:
    """The scene of five indices into `VALUES`; None where one was not recognised."""
    if min(indices) < 0:
        return None
    values = (VALUES[name][i] for name, i in zip(ATTRIBUTES, indices, strict=True))
    try:
        return Scene(*values)
    except ValueError:  # foreground and background of one colour
        return None
