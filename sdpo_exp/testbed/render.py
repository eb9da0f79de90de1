"""The renderer: scenes to 32 x 32 pixels by anti-aliased signed distances. Free of torch.

A shape sits at its position's anchor, moved by whole pixels of jitter. Whole pixels, so that the
checker's table of templates contains every clean image exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sdpo_exp.testbed.attributes import PALETTE, POSITIONS, SHAPES, SIZES, Scene

Array: TypeAlias = NDArray[np.floating[Any]]
Offsets: TypeAlias = NDArray[np.int64]
Distance: TypeAlias = Callable[[Array, Array, float], Array]

SIDE = 32
JITTER = 1

# Centres of shapes, in pixels from the top left corner: three bands of 7 pixels on each axis.
FIRST_CENTRE, LAST_CENTRE, BAND = 6, 26, 7
_CENTRES: Mapping[str, tuple[int, int]] = {
    "top left": (9, 9),
    "top right": (9, 23),
    "bottom left": (23, 9),
    "bottom right": (23, 23),
    "centre": (16, 16),
}
# (5, 2) row and column of each position, in the order of `POSITIONS`.
ANCHORS = np.array([_CENTRES[position] for position in POSITIONS])
# Half the extent, in pixels. The largest shape stays 1 pixel inside the image at full jitter.
RADII: Mapping[str, float] = {"small": 4.5, "large": 7.0}
COLOUR_TABLE: Array = np.array(list(PALETTE.values()), dtype=np.float32)


def _circle(x: Array, y: Array, radius: float) -> Array:
    return np.hypot(x, y) - 0.95 * radius


def _square(x: Array, y: Array, radius: float) -> Array:
    return np.maximum(abs(x), abs(y)) - 0.85 * radius


def _diamond(x: Array, y: Array, radius: float) -> Array:
    return (abs(x) + abs(y) - radius) / np.float32(np.sqrt(2))


def _triangle(x: Array, y: Array, radius: float) -> Array:
    """Upright, apex at -r and base at 0.8 r; the sides have a slope of 1.8 to 1."""
    side = (1.8 * abs(x) - (y + radius)) / np.float32(np.hypot(1.8, 1.0))
    return np.maximum(side, y - 0.8 * radius)


def _cross(x: Array, y: Array, radius: float) -> Array:
    bar = np.maximum(abs(x) - radius, abs(y) - 0.36 * radius)
    return np.minimum(bar, np.maximum(abs(y) - radius, abs(x) - 0.36 * radius))


_DISTANCES: Mapping[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "diamond": _diamond,
}


def _coverage(shape: str, radius: float) -> Array:
    """(centres, centres, SIDE, SIDE) share of each pixel that the shape covers, [row, column]."""
    centres = np.arange(FIRST_CENTRE, LAST_CENTRE + 1, dtype=np.float32)
    along = np.arange(SIDE, dtype=np.float32) + 0.5 - centres[:, None]
    distance = _DISTANCES[shape](along[None, :, None, :], along[:, None, :, None], radius)
    return np.clip(0.5 - distance, 0.0, 1.0).astype(np.float32)


@lru_cache(maxsize=1)
def templates() -> Array:
    """(5 shapes, 2 sizes, 21 rows, 21 columns, 32, 32) coverage in [0, 1], read-only, 18 MB."""
    table = np.stack([[_coverage(shape, RADII[size]) for size in SIZES] for shape in SHAPES])
    table.setflags(write=False)
    return table


def draw_offsets(generator: np.random.Generator, count: int) -> Offsets:
    """(count, 2) whole-pixel jitter (row, column), uniform over -1, 0, 1."""
    return generator.integers(-JITTER, JITTER + 1, size=(count, 2))


def render(scenes: Sequence[Scene], offsets: Offsets | None = None) -> Array:
    """Clean images (B, 3, 32, 32), float32 in [-1, 1].

    Args:
        scenes: B scenes.
        offsets: (B, 2) whole pixels (row, column) from the anchors, of at most 3; None for none.

    Raises:
        ValueError: an offset would leave the band of its position.
    """
    if not scenes:
        return np.empty((0, 3, SIDE, SIDE), dtype=np.float32)
    moved = np.zeros((len(scenes), 2), dtype=np.int64) if offsets is None else np.asarray(offsets)
    if moved.shape != (len(scenes), 2) or np.abs(moved).max() > BAND // 2:
        raise ValueError(f"offsets must be ({len(scenes)}, 2) and at most {BAND // 2} pixels")
    shape, size, foreground, background, position = np.array([s.indices for s in scenes]).T
    row, column = (ANCHORS[position] + moved - FIRST_CENTRE).T
    mask = templates()[shape, size, row, column]
    return 2.0 * compose(mask, foreground, background) - 1.0


def compose(mask: Array, foreground: NDArray[np.int64], background: NDArray[np.int64]) -> Array:
    """(B, 3, h, w) in [0, 1] from masks (B, h, w) and palette indices (B,) of the two colours."""
    front, back = (COLOUR_TABLE[index][:, :, None, None] for index in (foreground, background))
    return back + mask[:, None] * (front - back)


def position_of(row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index in `POSITIONS` (B,) of centres on the template grid (B,); -1 between two corners."""
    named = np.full((3, 3), -1)
    for index, anchor in enumerate(ANCHORS):
        named[tuple((anchor - FIRST_CENTRE) // BAND)] = index
    return named[row // BAND, column // BAND]
