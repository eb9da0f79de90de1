"""The exact checker: reads a scene back from an image and compares it with what was asked for.

Analytic, without a learned part, so that a reward of this world cannot be gamed by a scorer's
blind spots. Free of torch; tensors on the CPU are accepted as arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sdpo_exp.testbed.attributes import ATTRIBUTES, Scene
from sdpo_exp.testbed.captions import parse_caption
from sdpo_exp.testbed.render import COLOUR_TABLE, SIDE, Array, compose, position_of, templates

Index = NDArray[np.int64]

# Less colour than that, or a best match that noise can reach, is no object: of 8,000 images of
# uniform, normal and blocky (up to 8 x 8) noise the best overlap was 0.49.
MIN_PIXELS = 6
MIN_OVERLAP = 0.5
_CHUNK = 256


class Reading(NamedTuple):
    """What B images show: `values` (B, 5) indices into `VALUES`, -1 for nothing recognised.

    `overlap` (B,) is the best match with a template, `error` (B,) the mean absolute difference to
    the ideal render of the reading, colours in [0, 1].
    """

    values: Index
    overlap: Array
    error: Array


class CheckerResult(NamedTuple):
    """Verdicts on B images; columns of `correct` (B, 5) are in the order of `ATTRIBUTES`.

    `accuracy` is the mean of the five, `exact` says all five, `cleanliness` is in [0, 1] and
    independent of the prompt, `reward` = 0.7 accuracy + 0.3 cleanliness. All (B,).
    """

    correct: NDArray[np.bool_]
    accuracy: Array
    exact: NDArray[np.bool_]
    cleanliness: Array
    reward: Array

    def by_attribute(self) -> dict[str, float]:
        """Share of images with each attribute right."""
        return dict(zip(ATTRIBUTES, self.correct.mean(0).tolist(), strict=True))


def check(images: ArrayLike, scenes: Sequence[Scene]) -> CheckerResult:
    """Compare images with the scenes that they should show.

    Args:
        images: (B, 3, 32, 32) floating in [-1, 1], or (B, 32, 32, 3) uint8.
        scenes: B scenes.

    Raises:
        ValueError: shape or dtype of the images is another, or the counts differ.
    """
    pixels = _unit_pixels(images)
    if len(pixels) != len(scenes):
        raise ValueError(f"{len(pixels)} images for {len(scenes)} scenes")
    reading = _read(pixels)
    wanted = np.array([scene.indices for scene in scenes]).reshape(-1, len(ATTRIBUTES))
    correct = reading.values == wanted
    accuracy = correct.mean(1, dtype=np.float32)
    cleanliness = reading.overlap * np.clip(1.0 - 4.0 * reading.error, 0.0, 1.0)
    reward = np.float32(0.7) * accuracy + np.float32(0.3) * cleanliness
    return CheckerResult(correct, accuracy, correct.all(1), cleanliness, reward)


def reward_from_prompts(images: ArrayLike, prompts: Sequence[str]) -> Array:
    """Rewards (B,) in [0, 1] of images as in `check`, given their captions.

    Raises:
        UserError: a prompt is not a caption of this world.
    """
    return check(images, [parse_caption(prompt) for prompt in prompts]).reward


def read(images: ArrayLike) -> Reading:
    """What images, as in `check`, show, whatever was asked for."""
    return _read(_unit_pixels(images))


def _unit_pixels(images: ArrayLike) -> Array:
    """(B, 3, 32, 32) float32 in [0, 1]."""
    array = np.asarray(images)
    if array.dtype == np.uint8 and array.shape[1:] == (SIDE, SIDE, 3):
        return array.transpose(0, 3, 1, 2).astype(np.float32) / 255
    if np.issubdtype(array.dtype, np.floating) and array.shape[1:] == (3, SIDE, SIDE):
        return np.clip(np.nan_to_num(array.astype(np.float32) * 0.5 + 0.5), 0.0, 1.0)
    raise ValueError(
        "images must be (B, 3, 32, 32) floating in [-1, 1] or (B, 32, 32, 3) uint8, got "
        f"{array.shape} {array.dtype}"
    )


def _read(pixels: Array) -> Reading:
    starts = range(0, max(len(pixels), 1), _CHUNK)
    parts = [_read_chunk(pixels[start : start + _CHUNK]) for start in starts]
    return Reading(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _read_chunk(pixels: Array) -> Reading:
    background = _background(pixels)
    foreground, found = _foreground(pixels, background)
    mask = _soft_mask(pixels, foreground, background)
    best, overlap = _best_template(mask)
    shape, size, row, column = np.unravel_index(best, templates().shape[:4])
    seen = found & (overlap >= MIN_OVERLAP)
    ideal = compose(templates()[shape, size, row, column], foreground, background)
    values = [
        np.where(seen, shape, -1),
        np.where(seen, size, -1),
        np.where(found, foreground, -1),
        background,
        np.where(seen, position_of(row, column), -1),
    ]
    error = np.abs(pixels - ideal).mean((1, 2, 3))
    return Reading(np.stack(values, axis=1), np.where(seen, overlap, np.float32(0)), error)


def _background(pixels: Array) -> Index:
    """Palette index (B,) nearest to the median of the outermost ring of pixels."""
    sides = [pixels[..., 0, :], pixels[..., -1, :], pixels[..., 1:-1, 0], pixels[..., 1:-1, -1]]
    median = np.median(np.concatenate(sides, axis=-1), axis=-1)
    return _squared_distances(median).argmin(-1)


def _foreground(pixels: Array, background: Index) -> tuple[Index, NDArray[np.bool_]]:
    """The most frequent other palette colour (B,), and whether there is enough of it (B,).

    Votes weigh by squared contrast to the background: the blended pixels of a rim, which can look
    like a third colour and outnumber the inside of a small shape, count a quarter.
    """
    rows, colours = np.arange(len(pixels)), _flat(pixels).transpose(0, 2, 1)
    nearest = _squared_distances(colours).argmin(-1)
    contrast = np.square(colours - COLOUR_TABLE[background][:, None]).sum(-1)
    member = nearest[..., None] == np.arange(len(COLOUR_TABLE))
    votes = np.einsum("bp,bpk->bk", contrast, member)
    votes[rows, background] = -1
    chosen = votes.argmax(-1)
    return chosen, member.sum(1)[rows, chosen] >= MIN_PIXELS


def _flat(pixels: Array) -> Array:
    return pixels.reshape(len(pixels), 3, SIDE * SIDE)


def _squared_distances(colours: Array) -> Array:
    """(..., 8) to each palette colour, up to a term that all share, of colours (..., 3)."""
    return (COLOUR_TABLE**2).sum(1) - 2.0 * colours @ COLOUR_TABLE.T


def _soft_mask(pixels: Array, foreground: Index, background: Index) -> Array:
    """(B, 1024) in [0, 1]: how far each pixel lies on the way from background to foreground."""
    back = COLOUR_TABLE[background]
    axis = COLOUR_TABLE[foreground] - back
    offset = np.einsum("bcp,bc->bp", _flat(pixels), axis)
    start, length = (back * axis).sum(1, keepdims=True), (axis * axis).sum(1, keepdims=True)
    return np.clip((offset - start) / length, 0.0, 1.0)


@lru_cache(maxsize=1)
def _flat_templates() -> tuple[Array, Array]:
    """Templates (4410, 1024) and their squared norms (4410,)."""
    flat = templates().reshape(-1, SIDE * SIDE)
    return flat, np.einsum("tp,tp->t", flat, flat)


def _best_template(mask: Array) -> tuple[Index, Array]:
    """Flat index (B,) and soft IoU (B,) of the best template for masks (B, 1024).

    Soft intersection over union <m, t> / (<m, m> + <t, t> - <m, t>): 1 only for m = t, the usual
    IoU on binary masks, and one matrix product for all templates.
    """
    flat, norms = _flat_templates()
    inner = mask @ flat.T
    ratio = inner / (np.einsum("bp,bp->b", mask, mask)[:, None] + norms - inner)
    best = ratio.argmax(1)
    return best, np.take_along_axis(ratio, best[:, None], axis=1)[:, 0]
