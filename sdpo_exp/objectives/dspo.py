"""DSPO (Zhu et al., ICLR 2025) in the two forms that are trained in public.

`dspo_loss` is the SD1.5 form. At the published beta = 0.001 it is fine-tuning on the winners to
three digits (the loser's share of the gradient is about 1e-10), so no safeguard can matter there.
`dspo_sdxl_loss` is the form used for SDXL: another objective, with a branch on the data.
Neither has the form loss(L_w, L_l), so neither has closed-form pair weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdpo_exp.bounds import PositiveFloat
from sdpo_exp.objectives.dpo import implicit_logits
from sdpo_exp.types import ObjectiveOutput, PairErrors

SDXL_BRANCH_THRESHOLD = 0.1


def dspo_loss(errors: PairErrors, *, beta: float) -> ObjectiveOutput:
    """Per-pair mean of (r_w - beta (1 - sigmoid(u)) (p_w - f_w))^2, (B,).

    The gradient also flows through sigmoid(u), and that is the only way the loser takes part.
    """
    logits = implicit_logits(errors, beta=beta)
    scale = beta * torch.sigmoid(-logits)
    residual = errors.winner_residual - _rows(scale, errors.winner_shift) * errors.winner_shift
    return ObjectiveOutput(loss=residual.square().flatten(1).mean(1), logits=logits)


def dspo_sdxl_loss(errors: PairErrors, *, beta: float) -> ObjectiveOutput:
    """Per-pair (1 - sigmoid(u))^2, times the mean of d^2 where the policy has moved far.

    With d = p_w - f_w: if the micro-batch mean of d^2 is at least 0.1, mean (1-sigmoid(u))^2 d^2,
    else (1-sigmoid(u))^2. The jump at 0.1 is the public code's. Chosen on the device: no host read.
    """
    logits = implicit_logits(errors, beta=beta)
    gate = torch.sigmoid(-logits).square()
    shift = errors.winner_shift.square().flatten(1).mean(1)
    far = shift.detach().mean() >= SDXL_BRANCH_THRESHOLD
    return ObjectiveOutput(loss=torch.where(far, gate * shift, gate), logits=logits)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class DSPO:
    """`dspo_loss` at a fixed beta."""

    beta: PositiveFloat

    def __call__(self, errors: PairErrors) -> ObjectiveOutput:
        """Per-pair loss and logits."""
        return dspo_loss(errors, beta=self.beta)


@dataclass(frozen=True)
class DSPOSDXL:
    """`dspo_sdxl_loss` at a fixed beta."""

    beta: PositiveFloat

    def __call__(self, errors: PairErrors) -> ObjectiveOutput:
        """Per-pair loss and logits."""
        return dspo_sdxl_loss(errors, beta=self.beta)
