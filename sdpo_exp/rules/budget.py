"""The losers may get worse only as far as the winner has got better.

Per pair, with D = L - R the drift of an error from the reference's,

    lambda = 1   if D_l <= rate max(0, -D_w) + slack,   else 0,

from values alone: no gradients, no inner products. Policy and reference agree at the start, so
losers are pushed at the first step whatever it does to the winners; the budget is a debt that the
rule calls in afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdpo_exp.bounds import NonNegativeFloat, UnitInterval
from sdpo_exp.safeguard import preserve_winner, scale_loser_gradient
from sdpo_exp.types import PairErrors, PairWeights, SafeguardOutput


def within_budget(
    errors: PairErrors, rate: float = 1.0, slack: float = 0.0
) -> tuple[PairErrors, Tensor]:
    """Push a loser only while it has not moved further than its winner has improved.

    Args:
        errors: B pairs.
        rate: >= 0, of the loser's drift allowed over the winner's gain.
        slack: >= 0, drift of the loser that is allowed without any gain.

    Returns:
        The guarded errors and lambda (B,) float32 of zeros and ones, detached.

    Raises:
        ValueError: a negative number.
    """
    if rate < 0 or slack < 0:
        raise ValueError(f"rate and slack must be >= 0, got {rate} and {slack}")
    gain = (-errors.winner_drift.detach()).clamp_min(0.0)
    lambda_safe = (errors.loser_drift.detach() <= rate * gain + slack).float()
    return scale_loser_gradient(errors, lambda_safe), lambda_safe


@dataclass(frozen=True)
class Budget:
    """`within_budget` as a configurable safeguard; `would_be_mu` only feeds the log."""

    would_be_mu: UnitInterval
    rate: NonNegativeFloat = 1.0
    slack: NonNegativeFloat = 0.0

    def __call__(self, errors: PairErrors, weights: PairWeights | None) -> SafeguardOutput:
        """Guarded errors, lambda, and the published rule's for comparison."""
        del weights
        guarded, lambda_safe = within_budget(errors, self.rate, self.slack)
        return SafeguardOutput(guarded, lambda_safe, preserve_winner(errors, self.would_be_mu)[1])
