"""The errors of a pair batch: float32 whatever comes in, differences without cancellation."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from sdpo_exp.tensor_checks import check_finite_halves, check_tensors


@dataclasses.dataclass(frozen=True)
class PairErrors:
    """Denoising errors of B pairs and the residuals behind them, all float32.

    Attributes:
        winner, loser: L_w and L_l (B,), mean squared error of the policy over all other axes.
        ref_winner, ref_loser: R_w and R_l (B,), the same for the reference, without gradient.
        winner_drift, loser_drift: L_w - R_w and L_l - R_l (B,), from the mean of
            (p - f)(p + f - 2y), whose terms are small where policy and reference are close. The
            difference of two means is a hundred times further from the truth there, in float32.
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
