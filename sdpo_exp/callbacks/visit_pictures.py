"""The first pictures of each visit below the base's, with captions, as a file and for loggers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdpo_exp.generation.grid import make_grid
from sdpo_exp.loggers.pictures import log_picture

SHOWN = 8
_SIDE = 384  # pixels; larger pictures are made smaller, for the base's travel in checkpoints


class VisitPictures:
    """What of the visits can be looked at.

    Args:
        folder: of the pictures, `images_step=<k>.png`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._base: list[Image.Image] = []

    def show(
        self, trainer: L.Trainer, pictures: Sequence[Image.Image], captions: Sequence[str]
    ) -> None:
        """Write this step's pictures and give them to the loggers; those of step 0 are the base's.

        Args:
            trainer: says the step.
            pictures: of one size, as many as captions.
            captions: stand below them.
        """
        tiles = [picture.copy() for picture in pictures]
        for tile in tiles:
            tile.thumbnail((_SIDE, _SIDE))
        step = trainer.global_step
        if step == 0:
            self._base = tiles
        rows = {"base": self._base} if self._base else {}
        if step:
            rows |= {f"step {step}": tiles}
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"images_step={step}.png"
        make_grid(rows, captions).save(path)
        log_picture(trainer.loggers, "eval/images", path, step)

    def state(self) -> Tensor | None:
        """The base's pictures as shown (n, H, W, 3) uint8; None: there are none."""
        if not self._base:
            return None
        return torch.from_numpy(np.stack([np.asarray(tile) for tile in self._base]))

    def load(self, state: Any) -> None:
        """Take them from a checkpoint's `state`."""
        self._base = [] if state is None else [Image.fromarray(pixels.numpy()) for pixels in state]
