"""Synthetic preference pairs: a clean image of the caption against one that breaks it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.errors import UserError
from sdpo_exp.testbed.attributes import (
    ATTRIBUTES,
    SPLITS,
    Scene,
    Split,
    alternatives,
    split_scenes,
)
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.render import draw_offsets, render
from sdpo_exp.types import PairRow

_ROWS_IN_FINGERPRINT = 16


class SyntheticPairs:
    """Pairs whose winner shows its caption and whose loser has a few more attributes wrong.

    Row i is a pure function of (split, seed, changed, flaws, i); `size` only says where to stop, so
    a larger source begins with the rows of a smaller one. Never a tie: the loser's scene differs.

    Args:
        split: which captions, disjoint between splits.
        size: number of pairs; captions repeat, with other jitter and losers.
        seed: another draw of scenes, jitter and losers.
        changed: numbers of changed attributes (1 to 5) to choose from, with equal chances.
        flaws: attributes that are wrong in the winner too, and in the loser in the same way.
            With 0 the winner is perfect, and imitating it is all there is to learn.

    Raises:
        UserError: an unknown split, a size below 1, or `changed` is empty or, together with
            `flaws`, outside 1 to 5.
    """

    def __init__(
        self,
        split: Split = "train",
        size: PositiveInt = 4096,
        seed: NonNegativeInt = 0,
        changed: Sequence[PositiveInt] = (1, 2),
        flaws: NonNegativeInt = 0,
    ) -> None:
        self.split, self.size, self.seed = split, size, seed
        self.changed, self.flaws = tuple(changed), flaws
        self._check()

    def _check(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if self.size < 1 or self.seed < 0:
            raise UserError(f"size must be >= 1 and seed >= 0, got {self.size} and {self.seed}")
        if not self.changed or not all(1 <= count <= len(ATTRIBUTES) for count in self.changed):
            raise UserError(
                f"changed must hold numbers of attributes from 1 to {len(ATTRIBUTES)}, "
                f"such as [1, 2], got {list(self.changed)}"
            )
        if self.flaws < 0 or self.flaws + max(self.changed) > len(ATTRIBUTES):
            raise UserError(
                f"flaws={self.flaws} and changed={list(self.changed)} together touch more than "
                f"the {len(ATTRIBUTES)} attributes of a scene, or fewer than none"
            )

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> PairRow:
        """Pair `index`; IndexError outside 0..size-1."""
        if not 0 <= index < self.size:
            raise IndexError(f"pair {index} of {self.size}")
        generator = self._generator(index)
        wanted, winner, loser = self._draw(generator)
        images = torch.from_numpy(render([winner, loser], draw_offsets(generator, 2)))
        return PairRow(winner=images[0], loser=images[1], prompt=caption(wanted))

    def scenes(self, index: int) -> tuple[Scene, Scene]:
        """What winner and loser of pair `index` show."""
        _, winner, loser = self._draw(self._generator(index))
        return winner, loser

    def fingerprint(self) -> str:
        """sha256 hex digest of the parameters and of the first and last rows' content."""
        parameters = (type(self).__name__, self.split, self.size, self.seed, self.changed)
        flawed = (self.flaws,) if self.flaws else ()  # so that perfect winners keep their hash
        digest = hashlib.sha256(repr((*parameters, *flawed)).encode())
        for index in sorted({*range(min(self.size, _ROWS_IN_FINGERPRINT)), self.size - 1}):
            row = self[index]
            digest.update(row.winner.numpy().tobytes() + row.loser.numpy().tobytes())
            digest.update(row.prompt.encode())
        return digest.hexdigest()

    def _generator(self, index: int) -> np.random.Generator:
        key = (SPLITS.index(self.split), index)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _draw(self, generator: np.random.Generator) -> tuple[Scene, Scene, Scene]:
        """What was asked for, what the winner shows, and what the loser shows."""
        scenes = split_scenes(self.split)
        wanted = scenes[generator.integers(len(scenes))]
        count = self.changed[generator.integers(len(self.changed))]
        chosen = generator.choice(len(ATTRIBUTES), size=self.flaws + count, replace=False)
        winner = _corrupt_at(wanted, chosen[: self.flaws], wanted, generator)
        return wanted, winner, _corrupt_at(winner, chosen[self.flaws :], wanted, generator)


def corrupt(scene: Scene, count: int, generator: np.random.Generator) -> Scene:
    """`scene` with exactly `count` attributes (of 5, chosen uniformly) given another value."""
    chosen = generator.choice(len(ATTRIBUTES), size=count, replace=False)
    return _corrupt_at(scene, chosen, scene, generator)


def _corrupt_at(
    scene: Scene, attributes: NDArray[np.int64], wanted: Scene, generator: np.random.Generator
) -> Scene:
    """`scene` with other values at these indices into `ATTRIBUTES`, none of them `wanted`'s."""
    for index in attributes:
        name = ATTRIBUTES[index]
        options = [v for v in alternatives(scene, name) if v != getattr(wanted, name)]
        scene = dataclasses.replace(scene, **{name: options[generator.integers(len(options))]})
    return scene
