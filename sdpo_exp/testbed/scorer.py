"""The exact checker as a score like any other: PIL images and captions of the embedded world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.testbed.attributes import Scene
from sdpo_exp.testbed.captions import parse_caption
from sdpo_exp.testbed.checker import check
from sdpo_exp.testbed.render import SIDE

Part = Literal["reward", "accuracy", "exact", "cleanliness"]


class ExactScorer:
    """A verdict of `testbed.checker.check` in [0, 1], which no learned part can blur.

    Args:
        part: reward = 0.7 accuracy + 0.3 cleanliness; accuracy: the share of the five attributes
            that are as asked for; exact: whether all are; cleanliness: whatever was asked for.

    Raises:
        UserError: another part.
    """

    display_scale = 1.0
    image_size: int | None = None

    def __init__(self, part: Part = "reward") -> None:
        if part not in get_args(Part):
            raise UserError(f"part must be one of {', '.join(get_args(Part))}, got {part!r}")
        self._part, self.name = part, f"tiny_{part}"
        self.origin: Mapping[str, Any] = {}

    @classmethod
    def refuses(cls, prompts: Sequence[str]) -> str | None:
        """Why these prompts cannot be judged, or None; asked before anything is drawn."""
        for index, prompt in enumerate(prompts):
            try:
                parse_caption(prompt)
            except UserError as error:
                return (
                    f"metric: tiny_* judge captions of the embedded world; prompt {index}: {error}"
                )
        return None

    def cut_prompts(self, prompts: Sequence[str]) -> int:
        """How many of the prompts are cut: none, for captions are read to the end."""
        del prompts
        return 0

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """See `Scorer.score`.

        Raises:
            UserError: an image is not 32 x 32, or a prompt is no caption of this world.
            ValueError: not as many prompts as images.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images and {len(prompts)} prompts: one per image")
        if not images:
            return torch.empty(0)
        scenes = [_scene(i, prompt, self.name) for i, prompt in enumerate(prompts)]
        pixels = np.stack([_pixels(i, image, self.name) for i, image in enumerate(images)])
        values = getattr(check(pixels, scenes), self._part)
        return torch.from_numpy(values.astype(np.float32))


def _scene(index: int, prompt: str, name: str) -> Scene:
    try:
        return parse_caption(prompt)
    except UserError as error:
        raise UserError(f"{name}: prompt {index} is {error}") from None


def _pixels(index: int, image: Image, name: str) -> np.ndarray:
    if image.size != (SIDE, SIDE):
        file = f" ({path})" if (path := getattr(image, "filename", "")) else ""
        raise UserError(
            f"{name}: image {index}{file} is {image.width} x {image.height}; the embedded world's "
            f"are {SIDE} x {SIDE}"
        )
    return np.asarray(image.convert("RGB"))
