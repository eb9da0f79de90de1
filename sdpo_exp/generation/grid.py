"""A grid of images to look at."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_COLUMNS = 8
_GAP = 4
# Smaller images are shown at least this large in a grid, in whole multiples of their pixels.
_VISIBLE_SIDE = 128


def make_grid(
    rows: Mapping[str, Sequence[Image.Image]], captions: Sequence[str] = ()
) -> Image.Image:
    """Rows of equally many images of one size, one below the other, small ones magnified.

    A single row has no label, unless there are captions. Rows of more than eight images go on
    below, all of them together.

    Args:
        rows: by label.
        captions: of the columns, below them; empty: none.
    """
    width, height = next(iter(rows.values()))[0].size
    scale = max(1, _VISIBLE_SIDE // min(width, height))
    tile = (width * scale, height * scale)
    below = _Captions(captions, tile[0]) if captions else None
    margin = _label_width(rows) if len(rows) > 1 or captions else 0
    longest = max(len(images) for images in rows.values())
    step = len(rows) * (tile[1] + _GAP) + (below.height if below else 0)
    blocks = -(-longest // _COLUMNS)
    columns = min(longest, _COLUMNS)
    grid = Image.new(
        "RGB", (margin + columns * (tile[0] + _GAP) + _GAP, blocks * step + _GAP), "white"
    )
    for block in range(blocks):
        part = slice(block * _COLUMNS, (block + 1) * _COLUMNS)
        for line, (label, images) in enumerate(rows.items()):
            top = _GAP + block * step + line * (tile[1] + _GAP)
            if margin:
                _write(grid, (_GAP, top + tile[1] // 2), label)
            for column, image in enumerate(images[part]):
                left = margin + _GAP + column * (tile[0] + _GAP)
                grid.paste(image.resize(tile, Image.Resampling.NEAREST), (left, top))
        if below:
            below.write(grid, margin + _GAP, (block + 1) * step - below.height, part)
    return grid


class _Captions:
    """Texts below images of a width, in at most three lines each."""

    def __init__(self, texts: Sequence[str], width: int) -> None:
        size = max(11, width // 24)
        self._font, self._width = ImageFont.load_default(size), width
        letters = max(8, int(width / self._font.getlength("n")))
        self._texts = [
            "\n".join(textwrap.wrap(text, letters, max_lines=3, placeholder=" ..."))
            for text in texts
        ]
        self.height = 4 * size + _GAP

    def write(self, grid: Image.Image, left: int, top: int, part: slice) -> None:
        for column, text in enumerate(self._texts[part]):
            place = (left + column * (self._width + _GAP), top + _GAP)
            _write(grid, place, text, self._font)


def _write(grid: Image.Image, place: tuple[int, int], text: str, font: Any = None) -> None:
    ImageDraw.Draw(grid).text(place, text, "black", font or ImageFont.load_default())


def _label_width(labels: Mapping[str, Any]) -> int:
    font = ImageFont.load_default()
    return _GAP + int(max(font.getlength(label) for label in labels)) + _GAP
