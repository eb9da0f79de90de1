"""IPO (Azar et al., arXiv 2310.12036, eq. 17) on denoising errors: a squared, finite target."""

from __future__ import annotations

from dataclasses import dataclass

from sdpo_exp.bounds import PositiveFloat
from sdpo_exp.objectives.dpo import implicit_logits
from sdpo_exp.types import ObjectiveOutput, PairErrors, PairWeights


def ipo_loss(errors: PairErrors, *, beta: float) -> ObjectiveOutput:
    """Per-pair (-Delta - 1/(2 beta))^2, (B,); 1/(4 beta^2) at zero margin."""
    loss = (-errors.delta - 0.5 / beta).square()
    return ObjectiveOutput(loss=loss, logits=implicit_logits(errors, beta=beta))


def ipo_weights(errors: PairErrors, *, beta: float) -> PairWeights:
    """a = b = 2 (Delta + 1/(2 beta)), detached; negative beyond the target -Delta = 1/(2 beta)."""
    weight = 2.0 * (errors.delta.detach() + 0.5 / beta)
    return PairWeights(winner=weight, loser=weight)


@dataclass(frozen=True)
class IPO:
    """`ipo_loss` at a fixed beta."""

    beta: PositiveFloat

    @property
    def target_logit(self) -> float:
        """u at the target -Delta = 1/(2 beta); beyond it the gradient turns round."""
        return 0.25

    def __call__(self, errors: PairErrors) -> ObjectiveOutput:
        """Per-pair loss and logits."""
        return ipo_loss(errors, beta=self.beta)

    def weights(self, errors: PairErrors) -> PairWeights:
        """Closed-form (a, b)."""
        return ipo_weights(errors, beta=self.beta)
