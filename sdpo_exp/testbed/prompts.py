"""Captions of the embedded world as a prompt set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.data.prompt_hashes import texts_hash
from sdpo_exp.errors import UserError
from sdpo_exp.testbed.attributes import SPLITS, Split, split_scenes
from sdpo_exp.testbed.captions import caption

if TYPE_CHECKING:
    from sdpo_exp.types import Prompt


class WorldCaptions:
    """Captions of the first scenes of a split: index i is `split_scenes(split)[i]`.

    Labels are `category`, the shape, and `size`. Any first part of a split is a mixed sample.

    Args:
        split: which captions, disjoint between splits.
        n: how many; test has 400, validation 250, train 2,150.

    Raises:
        UserError: an unknown split, or more captions than it has.
    """

    def __init__(self, split: Split = "test", n: PositiveInt = 256) -> None:
        if split not in SPLITS:
            raise UserError(f"split: one of {', '.join(SPLITS)}, got {split!r}")
        if not 1 <= n <= len(split_scenes(split)):
            raise UserError(
                f"prompts.n={n}: the split {split} has {len(split_scenes(split))} captions"
            )
        self.split: Split = split
        self.n = n
        self.name = f"tiny_{split}"

    @classmethod
    def absent(cls, **_: object) -> None:
        """None: the world is made here."""
        return

    def prompts(self) -> Sequence[Prompt]:
        """The n captions, with their labels."""
        return self._prompts

    def fingerprint(self) -> str:
        """sha256 over the captions in order."""
        return texts_hash([prompt.text for prompt in self._prompts])

    @cached_property
    def _prompts(self) -> Sequence[Prompt]:
        from sdpo_exp.types import Prompt

        return tuple(
            Prompt(i, caption(scene), {"category": scene.shape, "size": scene.size})
            for i, scene in enumerate(split_scenes(self.split)[: self.n])
        )
