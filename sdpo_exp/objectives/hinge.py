"""Hinge on the margin (as in SLiC, arXiv 2305.10425): linear until a margin, then silent."""

from __future__ import annotations

from dataclasses import dataclass

from sdpo_exp.bounds import PositiveFloat
from sdpo_exp.objectives.dpo import implicit_logits
from sdpo_exp.types import ObjectiveOutput, PairErrors, PairWeights


def hinge_loss(errors: PairErrors, *, beta: float) -> ObjectiveOutput:
    """Per-pair max(0, 1 + beta Delta), (B,); 1 at zero margin."""
    loss = (1.0 + beta * errors.delta).clamp_min(0.0)
    return ObjectiveOutput(loss=loss, logits=implicit_logits(errors, beta=beta))


def hinge_weights(errors: PairErrors, *, beta: float) -> PairWeights:
    """a = b = beta where the margin is not reached, else 0; detached."""
    weight = beta * (1.0 + beta * errors.delta.detach() > 0).float()
    return PairWeights(winner=weight, loser=weight)


@dataclass(frozen=True)
class Hinge:
    """`hinge_loss` at a fixed beta."""

    beta: PositiveFloat

    def __call__(self, errors: PairErrors) -> ObjectiveOutput:
        """Per-pair loss and logits."""
        return hinge_loss(errors, beta=self.beta)

    def weights(self, errors: PairErrors) -> PairWeights:
        """Closed-form (a, b)."""
        return hinge_weights(errors, beta=self.beta)
