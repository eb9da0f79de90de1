"""What every learned score looks like from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL.Image import Image
from torch import Tensor


class Scorer(Protocol):
    """A learned score of images under prompts, on the raw scale of its official script."""

    name: str

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """Scores float32 (B,) on the CPU, detached; row i follows from image i and prompt i alone.

        Args:
            images: B images of any size and mode.
            prompts: B prompts, byte for byte as generated from.

        Raises:
            ValueError: not as many prompts as images.
        """
