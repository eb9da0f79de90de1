"""Images to score, decoded and cropped once for all scorers that look at the same square."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.metrics.preprocessing import crop

_THREADS = 4  # decoding and resizing run outside the interpreter's lock


class Pictures:
    """Images by position, as a scorer of a given `image_size` takes them.

    Crops are kept as 8-bit pixels, 150 kB each at 224, so a second scorer neither decodes nor
    resizes; a crop that is cropped again stays as it is.

    Args:
        files: of the images.

    Raises:
        UserError: a file cannot be read as an image, when it is asked for.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._crops: dict[tuple[int, int], np.ndarray] = {}
        self._pool = ThreadPoolExecutor(_THREADS)

    def __len__(self) -> int:
        return len(self._files)

    def batch(self, positions: Sequence[int], size: int | None) -> list[Image.Image]:
        """Images at `positions`: whole, or cropped to `size` x `size`."""
        return list(self._pool.map(lambda position: self._one(position, size), positions))

    def _one(self, position: int, size: int | None) -> Image.Image:
        if size is None:
            return _open(self._files[position])
        kept = self._crops.get((position, size))
        if kept is None:
            kept = np.asarray(crop(_open(self._files[position]), size))
            self._crops[position, size] = kept
        return Image.fromarray(kept)


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except OSError as error:
        raise UserError(f"{file}: cannot be read as an image ({first_line(error)})") from None
