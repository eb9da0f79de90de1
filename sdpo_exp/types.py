"""What travels between the rooms. `protocols` says what the rooms look like to each other.

Shapes: B pairs, C x h x w latents, H x W pixels. A pair batch is stacked on axis 0 with the
winners first: rows `[winner_0 .. winner_{B-1}, loser_0 .. loser_{B-1}]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from sdpo_exp.tensor_checks import check_finite_halves, check_tensors

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


@dataclasses.dataclass(frozen=True)
class PairErrors:
    """Denoising errors of B pairs and the residuals behind them, all float32.

    Attributes:
        winner, loser: L_w and L_l (B,), mean squared error of the policy over all other axes.
        ref_winner, ref_loser: R_w and R_l (B,), the same for the reference, without gradient.
        winner_drift, loser_drift: L_w - R_w and L_l - R_l (B,), from the mean of
            (p - f)(p + f - 2y), whose terms are small where policy and reference are close. The
            difference of two means is up to 500 times further from the truth in float32.
        winner_residual, loser_residual: r = prediction - target, (B, ...).
        winner_shift: p_w - f_w (B, ...), policy minus reference prediction on the winner.
        weight: w (B,) of each pair, or None for 1. Residuals and shift are sqrt(w) times the above,
            so errors are w times the mean square, and so is all that an objective makes of them.
            An error's gradient at the prediction is sqrt(w) times the residual kept here.
    """

    winner: Tensor
    loser: Tensor
    ref_winner: Tensor
    ref_loser: Tensor
    winner_drift: Tensor
    loser_drift: Tensor
    winner_residual: Tensor
    loser_residual: Tensor
    winner_shift: Tensor
    weight: Tensor | None = None

    @classmethod
    def from_predictions(
        cls,
        pred: Tensor,
        ref: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        check_finite: bool = False,
    ) -> PairErrors:
        """Reduce predictions to errors; the arithmetic is float32 whatever comes in.

        The public Diffusion-DPO code reduces the reference error in bf16, which moves the logit by
        0.4 to 1.2 where it should be 0; casting before the subtraction is what prevents that.

        Args:
            pred, ref, target: (2B, ...) floating tensors, winners first.
            weight: w (B,) >= 0 of each pair's errors, such as (1 - t)^2; None: 1.
            check_finite: read the values back and name the half that is not finite. For
                interactive use: it waits for the device.

        Raises:
            TypeError: a tensor is not floating point.
            ValueError: shapes differ, the first axis is odd or empty, or a value is not finite.
        """
        tensors = {"pred": pred, "ref": ref, "target": target}
        check_tensors(tensors)
        if check_finite:
            check_finite_halves(tensors)
        with torch.autocast(pred.device.type, enabled=False):
            target32 = target.detach().float()
            residual = pred.float() - target32
            ref_residual = ref.detach().float() - target32
            shift = pred.float() - ref.detach().float()
            pairs = pred.shape[0] // 2
            if weight is not None:
                root = _root_of(weight, pairs, residual)
                residual, ref_residual, shift = (root * x for x in (residual, ref_residual, shift))
            error, ref_error = _mean(residual.square()), _mean(ref_residual.square())
            drift = _mean(shift * (residual + ref_residual))
            return cls(
                winner=error[:pairs],
                loser=error[pairs:],
                ref_winner=ref_error[:pairs],
                ref_loser=ref_error[pairs:],
                winner_drift=drift[:pairs],
                loser_drift=drift[pairs:],
                winner_residual=residual[:pairs],
                loser_residual=residual[pairs:],
                winner_shift=shift[:pairs],
                weight=None if weight is None else weight.detach().float(),
            )

    @property
    def delta(self) -> Tensor:
        """(B,) Delta = (L_w - L_l) - (R_w - R_l); below 0 the policy favours the winner."""
        return self.winner_drift - self.loser_drift

    @property
    def cosine(self) -> Tensor:
        """(B,) cos(r_w, r_l), detached: how far pushing the loser drags the winner along."""
        winner = self.winner_residual.detach().flatten(1)
        loser = self.loser_residual.detach().flatten(1)
        return nn.functional.cosine_similarity(winner, loser, dim=1, eps=1e-30)

    def with_loser(self, loser: Tensor) -> PairErrors:
        """The same errors with another L_l (B,)."""
        drift = self.loser_drift + (loser - self.loser)
        return dataclasses.replace(self, loser=loser, loser_drift=drift)

    def with_loser_gradient(self, factor: Tensor) -> PairErrors:
        """The same values; the gradient of L_l is scaled by `factor` (B,), itself detached."""
        factor = factor.detach()
        loser, drift = (_scaled(error, factor) for error in (self.loser, self.loser_drift))
        return dataclasses.replace(self, loser=loser, loser_drift=drift)


def _mean(elements: Tensor) -> Tensor:
    return elements.flatten(1).mean(1)


def _scaled(error: Tensor, factor: Tensor) -> Tensor:
    still = error.detach()
    return still + factor * (error - still)


def _root_of(weight: Tensor, pairs: int, like: Tensor) -> Tensor:
    """sqrt(w) of both halves, (2B, 1, ...)."""
    if weight.shape != (pairs,):
        raise ValueError(f"weight must be ({pairs},), one value per pair, got {weight.shape}")
    root = weight.detach().float().sqrt()
    return torch.cat([root, root]).view(-1, *[1] * (like.ndim - 1))


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
    """Scalars whose gradients are sum(a grad L_w)/B and -sum(b grad L_l)/B (before any lambda)."""

    winner: Tensor
    loser: Tensor


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
