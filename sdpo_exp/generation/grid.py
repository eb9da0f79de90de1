"""A grid of images to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_COLUMNS = 8
_GAP = 4
# Smaller images are shown at least this large in a grid, in whole multiples of their pixels.
_VISIBLE_SIDE = 128


def make_grid(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Rows of equally many images of one size, one below the other, small ones magnified.

    A single row has no label. Rows of more than eight images go on below, all of them together.
    """
    width, height = next(iter(rows.values()))[0].size
    scale = max(1, _VISIBLE_SIDE // min(width, height))
    tile = (width * scale, height * scale)
    lines = list(_lines(rows))
    margin = _label_width(rows) if len(rows) > 1 else 0
    columns = max(len(images) for _, images in lines)
    size = (margin + columns * (tile[0] + _GAP) + _GAP, len(lines) * (tile[1] + _GAP) + _GAP)
    grid = Image.new("RGB", size, "white")
    for line, (label, images) in enumerate(lines):
        top = _GAP + line * (tile[1] + _GAP)
        if margin:
            place = (_GAP, top + tile[1] // 2)
            ImageDraw.Draw(grid).text(place, label, "black", ImageFont.load_default())
        for column, image in enumerate(images):
            left = margin + _GAP + column * (tile[0] + _GAP)
            grid.paste(image.resize(tile, Image.Resampling.NEAREST), (left, top))
    return grid


def _lines(
    rows: Mapping[str, Sequence[Image.Image]],
) -> Iterator[tuple[str, Sequence[Image.Image]]]:
    longest = max(len(images) for images in rows.values())
    for start in range(0, longest, _COLUMNS):
        for label, images in rows.items():
            yield label, images[start : start + _COLUMNS]


def _label_width(labels: Mapping[str, Any]) -> int:
    font = ImageFont.load_default()
    return _GAP + int(max(font.getlength(label) for label in labels)) + _GAP
