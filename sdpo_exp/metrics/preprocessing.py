"""From images to what the towers see; one pipeline for all scores, in PIL to the last pixel.

Resizing as a float tensor, as some packages do, differs by up to 33 of 255 levels on sharp edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import functional as tv
from torchvision.transforms.functional import InterpolationMode

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def crop(image: Image, size: int) -> Image:
    """RGB, shortest edge resized to `size` by PIL's bicubic (antialiased), centre cropped."""
    resized = tv.resize(image.convert("RGB"), [size], InterpolationMode.BICUBIC)
    return tv.center_crop(resized, [size, size])


def pixels(images: Sequence[Image], prompts: Sequence[str], size: int) -> Tensor:
    """Normalised float32 pixels (B, 3, size, size) of B images.

    Args:
        images: of any sizes and modes.
        prompts: of the images; only counted.
        size: side of the square that the tower takes, in pixels.

    Raises:
        ValueError: not as many prompts as images.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images and {len(prompts)} prompts: one prompt per image")
    if not images:
        return torch.empty(0, 3, size, size)
    rows = [tv.normalize(tv.to_tensor(crop(image, size)), MEAN, STD) for image in images]
    return torch.stack(rows)
