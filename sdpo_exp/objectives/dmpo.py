"""DMPO (arXiv 2507.07510): reverse KL between the implicit preference and a smoothed label.

With p = sigmoid(u) and q = 1 - alpha, loss = p log(p/q) + (1-p) log((1-p)/(1-q)) and
dloss/du = p (1-p) (u - logit q): the target margin u* = logit(1 - alpha) is finite (4.595 at
alpha = 0.01). Beyond it the gradient turns round and pushes the winner's error *up*, so the
safeguard's premise no longer holds there; `share_beyond_target` counts such pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sdpo_exp.bounds import PositiveFloat, UnitInterval
from sdpo_exp.objectives.dpo import implicit_logits
from sdpo_exp.types import ObjectiveOutput, PairErrors, PairWeights

_CLIP = 1e-6


def _label(alpha: float) -> float:
    return min(max(1.0 - alpha, _CLIP), 1.0 - _CLIP)


def target_logit(alpha: float) -> float:
    """u* = logit(q), q = clip(1 - alpha, 1e-6, 1 - 1e-6)."""
    label = _label(alpha)
    return math.log(label) - math.log1p(-label)


def dmpo_loss(errors: PairErrors, *, beta: float, alpha: float = 0.0) -> ObjectiveOutput:
    """Per-pair reverse KL (B,), exact in value and gradient at any |u|.

    With log p - log(1-p) = u the KL is log(1-p) - log(1-q) + p (u - u*), or its mirror image;
    taking the one whose p (or 1-p) is small keeps 1 - sigmoid(|u|) out of the float32 gradient.
    """
    logits = implicit_logits(errors, beta=beta)
    label, ahead = _label(alpha), logits - target_logit(alpha)
    misranked = logsigmoid(-logits) - math.log1p(-label) + torch.sigmoid(logits) * ahead
    ranked = logsigmoid(logits) - math.log(label) - torch.sigmoid(-logits) * ahead
    return ObjectiveOutput(loss=torch.where(logits < 0, misranked, ranked), logits=logits)


def dmpo_weights(errors: PairErrors, *, beta: float, alpha: float = 0.0) -> PairWeights:
    """a = b = (beta/2) p (1-p) (u* - u), detached; negative beyond the target margin."""
    logits = implicit_logits(errors, beta=beta).detach()
    slope = torch.sigmoid(logits) * torch.sigmoid(-logits) * (target_logit(alpha) - logits)
    return PairWeights(winner=0.5 * beta * slope, loser=0.5 * beta * slope)


def share_beyond_target(logits: Tensor, *, alpha: float) -> Tensor:
    """Share of pairs () whose gradient has turned round: u > u*."""
    return (logits > target_logit(alpha)).float().mean()


@dataclass(frozen=True)
class DMPO:
    """`dmpo_loss` at fixed beta and alpha."""

    beta: PositiveFloat
    alpha: UnitInterval = 0.0

    @property
    def target_logit(self) -> float:
        """The margin beyond which the gradient turns round; the trajectory callback reports it."""
        return target_logit(self.alpha)

    def __call__(self, errors: PairErrors) -> ObjectiveOutput:
        """Per-pair loss and logits."""
        return dmpo_loss(errors, beta=self.beta, alpha=self.alpha)

    def weights(self, errors: PairErrors) -> PairWeights:
        """Closed-form (a, b)."""
        return dmpo_weights(errors, beta=self.beta, alpha=self.alpha)
