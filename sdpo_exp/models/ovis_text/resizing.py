"""The sizes at which Ovis-U1 sees pictures; pure functions of height and width in pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

from sdpo_exp.errors import UserError

FACTOR = 28  # a visual token's side in pixels: a patch of 14, merged two by two
LOWEST = 56 * 56
HIGHEST = 1_003_520
EDIT_FACTOR = 32  # the edited picture's sides: two steps of the VAE's tokens
_LONGEST_RATIO = 200


class Size(NamedTuple):
    """Height and width in pixels; both positive."""

    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Their product."""
        return self.height * self.width


class ViewBounds(NamedTuple):
    """Pixels of a picture at the ViT's entry, and the step its sides are multiples of."""

    lowest: int = 448 * 448
    highest: int = 2_408_448
    factor: int = FACTOR


def rounded_size(
    height: int, width: int, factor: int = FACTOR, lowest: int = LOWEST, highest: int = HIGHEST
) -> Size:
    """Multiples of `factor` near height and width, with `lowest` to `highest` pixels in all.

    Ties of rounding go to the even multiple. A side shorter than `factor` is first drawn out to it;
    a side more than 200 times the other is first cut. The order of operations is the released
    model's: another one rounds other sizes.

    Raises:
        ValueError: a side is not positive.
        UserError: the picture is so narrow that nothing of its shorter side is left.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height}x{width} pixels has no size")
    size = _rounded(*_within_ratio(height, width, factor), factor, lowest, highest)
    if not size.pixels:
        raise UserError(f"a picture of {height}x{width} pixels is too narrow for Ovis-U1")
    return size


def view_sizes(height: int, width: int, bounds: ViewBounds = ViewBounds()) -> tuple[Size, Size]:  # noqa: B008
    """The two sizes that a picture passes on its way into the ViT, first and second.

    The first resize brings it down to about `bounds.lowest` pixels; the second raises whatever the
    first left below them, so the number of tokens depends on the aspect ratio.
    """
    first = rounded_size(height, width, FACTOR, LOWEST, bounds.lowest)
    return first, rounded_size(*first, bounds.factor, bounds.lowest, bounds.highest)


def visual_tokens(height: int, width: int, bounds: ViewBounds = ViewBounds()) -> int:  # noqa: B008
    """How many visual tokens a picture of this size becomes; 256 for every square."""
    return view_sizes(height, width, bounds)[1].pixels // bounds.factor**2


def edit_size(height: int, width: int) -> Size:
    """The size to which a picture to be edited is stretched; at most 1,003,520 pixels.

    1024x1024 becomes 992x992. A size that this function gave stays as it is.
    """
    return rounded_size(height, width, EDIT_FACTOR)


def _rounded(height: int, width: int, factor: int, lowest: int, highest: int) -> Size:
    size = Size(round(height / factor) * factor, round(width / factor) * factor)
    if size.pixels > highest:
        scale = math.sqrt((height * width) / highest)
        return Size(*(math.floor(side / scale / factor) * factor for side in (height, width)))
    if size.pixels < lowest:
        scale = math.sqrt(lowest / (height * width))
        return Size(*(math.ceil(side * scale / factor) * factor for side in (height, width)))
    return size


def _within_ratio(height: int, width: int, factor: int) -> tuple[int, int]:
    """The shorter side at least `factor`; else the longer at most 200 times the shorter."""
    if height < factor or width < factor:
        if height < width:
            return factor, round(factor / height * width)
        return round(factor / width * height), factor
    if max(height, width) / min(height, width) > _LONGEST_RATIO:
        if height > width:
            return _LONGEST_RATIO * width, width
        return height, _LONGEST_RATIO * height
    return height, width
