"""From pictures to the rows that Ovis-U1's ViT reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdpo_exp.models.ovis_text.resizing import Size, ViewBounds, edit_size, view_sizes

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageRows(NamedTuple):
    """A picture in patches: rows (N, 3 patch^2), and its grid (1, rows, columns) of patches."""

    rows: Tensor
    grid: tuple[int, int, int]


class RowFormat(NamedTuple):
    """How pixels become rows; defaults are Ovis-U1's."""

    patch: int = 14
    stride: int = 2  # patches on a side of what becomes one token
    bounds: ViewBounds = ViewBounds()
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD


def blank(height: int, width: int) -> Image.Image:
    """The white picture that stands where there is none."""
    return Image.new("RGB", (width, height), (255, 255, 255))


def stretched_for_edit(picture: Image.Image) -> Image.Image:
    """A picture to be edited at the size of `edit_size`; its aspect ratio gives way."""
    return _resized(picture.convert("RGB"), edit_size(picture.height, picture.width))


def image_rows(picture: Image.Image, form: RowFormat = RowFormat()) -> ImageRows:  # noqa: B008
    """Resize twice, normalise, cut: float32 rows, and the grid they came from.

    Both resizes are PIL's bicubic on bytes; where a size stays, pixels stay.
    """
    first, second = view_sizes(picture.height, picture.width, form.bounds)
    seen = _resized(_resized(picture.convert("RGB"), first), second)
    rows = patch_rows(normalised(seen, form.mean, form.std), form.patch, form.stride)
    return ImageRows(rows, (1, second.height // form.patch, second.width // form.patch))


def normalised(
    picture: Image.Image, mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD
) -> Tensor:
    """Float32 pixels (3, H, W): bytes over 255, less `mean`, over `std`, per channel."""
    # A product in double precision, as CLIP's image processor has it: the last bit counts.
    pixels = (np.asarray(picture, dtype=np.float64) * (1 / 255)).astype(np.float32)
    centred = (pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(centred.transpose(2, 0, 1)))


def patch_rows(pixels: Tensor, patch: int, stride: int) -> Tensor:
    """(C, H, W) -> (H W / patch^2, C patch^2).

    A row is one patch: channel, then its lines. Rows of one token stand together, line by line;
    tokens follow each other line by line as well. H and W are multiples of patch x stride.
    """
    channels, height, width = pixels.shape
    token = patch * stride
    tiled = pixels.reshape(
        channels, height // token, stride, patch, width // token, stride, patch
    ).permute(1, 4, 2, 5, 0, 3, 6)
    return tiled.reshape(-1, channels * patch * patch)


def _resized(picture: Image.Image, size: Size) -> Image.Image:
    return picture.resize((size.width, size.height), Image.Resampling.BICUBIC)
