"""What travels between the rooms. `protocols` says what the rooms look like to each other.

Shapes: B pairs, C x h x w latents, H x W pixels. A pair batch is stacked on axis 0 with the
winners first: rows `[winner_0 .. winner_{B-1}, loser_0 .. loser_{B-1}]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

from sdpo_exp.pair_errors import PairErrors as PairErrors

if TYPE_CHECKING:
    from PIL.Image import Image

Conditioning: TypeAlias = Mapping[str, Tensor]


class PairKey(NamedTuple):
    """Where a pair stands in training: row `row` of the source, at `position` of `epoch`."""

    epoch: int
    position: int
    row: int


class Geometry(NamedTuple):
    """Where an image's pixels come from, in SDXL's order of its six time ids, all in pixels.

    Size of the image as stored, offset of the crop after resizing, and size of the crop. A pair
    shares one: the winner's.
    """

    original_height: int
    original_width: int
    top: int
    left: int
    height: int
    width: int


class ImagePair(NamedTuple):
    """One pair as stored: RGB images of any size, and the prompt of both."""

    winner: Image
    loser: Image
    prompt: str


class PairRow(NamedTuple):
    """One pair as trained on: float32 pixels (3, H, W) in [-1, 1], and the prompt of both.

    `geometry` None: the pixels are the image, uncropped.
    """

    winner: Tensor
    loser: Tensor
    prompt: str
    geometry: Geometry | None = None


class SkippedRow(NamedTuple):
    """A row of a source that could not be used, by the source's own name for it, and why."""

    row: str
    reason: str


class PairBatch(NamedTuple):
    """B pairs: winner and loser (B, 3, H, W), B prompts, keys and geometries.

    Keys and geometries are python ints, so they stay on the host when the batch moves to a device.
    `skipped` are bad rows met on the way, which their neighbours stand in for.
    """

    winner: Tensor
    loser: Tensor
    prompts: list[str]
    keys: list[PairKey]
    geometry: list[Geometry]
    skipped: list[SkippedRow]


class NoisyPair(NamedTuple):
    """Model input and target, winners first: x_t (2B, C, h, w), t (2B,), target (2B, C, h, w).

    `weight` (B,) is w(t) of each pair's errors; None: 1.
    """

    x_t: Tensor
    t: Tensor
    target: Tensor
    weight: Tensor | None = None

    def half(self, rows: slice) -> NoisyPair:
        """All winners or all losers, B of the 2B rows, with the weights of their pairs."""
        return NoisyPair(self.x_t[rows], self.t[rows], self.target[rows], self.weight)

    def errors(self, pred: Tensor, ref: Tensor) -> PairErrors:
        """The errors of predictions (2B, C, h, w) of policy and reference."""
        return PairErrors.from_predictions(pred, ref, self.target, weight=self.weight)


class PairWeights(NamedTuple):
    """Detached per-pair derivatives of the loss, each (B,): a = dl/dL_w and b = -dl/dL_l."""

    winner: Tensor
    loser: Tensor


class ObjectiveOutput(NamedTuple):
    """`loss` (B,), one value per pair, and `logits` (B,) = u (u > 0: prefers the winner)."""

    loss: Tensor
    logits: Tensor


class StepRecord(NamedTuple):
    """What one micro-batch leaves for the callbacks: detached (B,) tensors, no host read.

    `finite` is () bool on the device: errors, loss and lambda of the micro-batch are all finite.
    `lambda_would_be` is what the recipe's safeguard would have applied (equal to `lambda_safe`
    where it did apply).
    """

    loss: Tensor
    logits: Tensor
    winner_error: Tensor
    loser_error: Tensor
    winner_ref_error: Tensor
    loser_ref_error: Tensor
    lambda_safe: Tensor
    lambda_would_be: Tensor
    cosine: Tensor
    timestep: Tensor
    finite: Tensor


class ValidationRecord(NamedTuple):
    """Held-out pairs as the policy sees them: detached (B,) tensors, no host read."""

    loss: Tensor
    winner_error: Tensor
    loser_error: Tensor
    winner_ref_error: Tensor
    loser_ref_error: Tensor


class SafeguardOutput(NamedTuple):
    """Errors with the guarded loser, the applied lambda (B,) and what lambda would have been."""

    errors: PairErrors
    lambda_safe: Tensor
    lambda_would_be: Tensor


class LossParts(NamedTuple):
    """Scalars () whose gradients make up the loss's, and the one that a rule protects.

    Attributes:
        winner: its gradient is the loss's through the winners' predictions, sum(a grad L_w)/B
            where the objective has weights.
        loser: through the losers' predictions, -sum(b grad L_l)/B (before any lambda).
        protected: the winners' mean error, every pair counted alike.
    """

    winner: Tensor
    loser: Tensor
    protected: Tensor


class ModelScores(NamedTuple):
    """One model on n fixed prompts: `scores` by name, each (n,), and the images (n, H, W, 3) uint8.

    Row i of two models has the same prompt and the same initial noise, so they compare in pairs.
    """

    prompts: list[str]
    scores: Mapping[str, np.ndarray]
    images: np.ndarray


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt of a set.

    Attributes:
        index: its position in the set; with the set's name and a seed it identifies an image.
        text: byte for byte as the set has it, blanks at the ends included.
        labels: what it is filed under, by axis, such as `{"category": "anime"}`.
    """

    index: int
    text: str
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
