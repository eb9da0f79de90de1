"""From images of any size to pixels of one size, alike for winner and loser."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.data.images import MAX_PIXELS
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.randomness import Stream, pair_generator
from sdpo_exp.types import Geometry, ImagePair, PairKey, PairRow

Crop = Literal["center", "random"]
Flip = Literal["off", "shared", "independent"]


class PairCrop:
    """Resize the short side to `resolution` (bilinear, antialiased), mirror, and crop a square.

    The public Diffusion-DPO code draws crop and flip for each image on its own, so that under one
    shared noise half of its pairs are mirror images of each other. Here the crop takes the same
    fraction of the free room in both, whatever their sizes, and the flip is one draw per pair.

    Args:
        resolution: side of the square, in pixels.
        crop: `center`, or `random` at a fraction drawn from the pair's own random numbers.
        flip: `off`; `shared`, half of the pairs mirrored; `independent`, as the public code does
            it. A mirror image breaks lettering and prompts about left and right.

    Raises:
        UserError: no resolution, or an unknown crop or flip.
    """

    def __init__(
        self,
        resolution: PositiveInt,
        crop: Crop = "center",
        flip: Flip = "off",
    ) -> None:
        if resolution is None or resolution < 1:
            raise UserError(
                f"resolution={resolution}: these data need a size in pixels; give resolution=512, "
                "or what the model was trained at"
            )
        if crop not in ("center", "random"):
            raise UserError(f"data.transform.crop: center or random, got {crop!r}")
        if flip not in ("off", "shared", "independent"):
            raise UserError(f"data.transform.flip: off, shared or independent, got {flip!r}")
        self.resolution, self.crop, self.flip = resolution, crop, flip

    def __call__(self, pair: ImagePair, seed: int, key: PairKey) -> PairRow:
        """Pixels of a pair, float32 (3, resolution, resolution) in [-1, 1].

        The geometry is the winner's. Mirroring comes before cropping, so its offsets are those in
        the image as the model sees it.

        Raises:
            BadRow: one of the two is a thin strip.
        """
        self._refuse_strips(pair, key)
        fraction = self._fraction(seed, key)
        mirrored = self._mirrored(seed, key)
        winner, top, left = self._square(pair.winner, fraction, mirrored[0])
        loser, _, _ = self._square(pair.loser, fraction, mirrored[1])
        stored = pair.winner.height, pair.winner.width
        geometry = Geometry(*stored, top, left, self.resolution, self.resolution)
        return PairRow(winner, loser, pair.prompt, geometry)

    def _refuse_strips(self, pair: ImagePair, key: PairKey) -> None:
        for width, height in (pair.winner.size, pair.loser.size):
            elongation = max(width, height) / min(width, height)
            if elongation * self.resolution**2 > MAX_PIXELS:
                raise BadRow(f"row {key.row}", f"image is a thin strip ({width} x {height})")

    def _fraction(self, seed: int, key: PairKey) -> float | None:
        if self.crop == "center":
            return None
        # One number is enough: of a resized image only the long side has room.
        return pair_generator(seed, key, Stream.CROP).random()

    def _mirrored(self, seed: int, key: PairKey) -> tuple[bool, bool]:
        if self.flip == "off":
            return False, False
        winner, loser = (pair_generator(seed, key, Stream.FLIP).random(2) < 0.5).tolist()
        return winner, winner if self.flip == "shared" else loser

    def _square(
        self, image: Image.Image, fraction: float | None, mirrored: bool
    ) -> tuple[Tensor, int, int]:
        image = resize(image, [self.resolution], InterpolationMode.BILINEAR, antialias=True)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        top = _offset(image.height - self.resolution, fraction)
        left = _offset(image.width - self.resolution, fraction)
        box = (left, top, left + self.resolution, top + self.resolution)
        return _to_tensor(image.crop(box)), top, left


def aspect_gap(pair: ImagePair) -> float:
    """How much the two differ in shape: the larger ratio of width to height over the smaller, - 1.

    A square and a 4:3 image differ by 0.33.
    """
    aspects = [image.width / image.height for image in (pair.winner, pair.loser)]
    return max(aspects) / min(aspects) - 1


def _offset(room: int, fraction: float | None) -> int:
    """Where the crop begins; each of the room + 1 places is equally likely."""
    return round(room / 2) if fraction is None else math.floor(fraction * (room + 1))


def _to_tensor(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return pixels.div_(127.5).sub_(1).permute(2, 0, 1).contiguous()
