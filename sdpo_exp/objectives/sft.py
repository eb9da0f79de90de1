"""Fine-tuning on the winners alone: the control that every preference objective must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sdpo_exp.types import ObjectiveOutput, PairErrors, PairWeights


def sft_loss(errors: PairErrors) -> ObjectiveOutput:
    """Per-pair L_w, (B,). The logits are -Delta, i.e. u at beta = 2: there is no beta here."""
    return ObjectiveOutput(loss=errors.winner, logits=-errors.delta)


def sft_weights(errors: PairErrors) -> PairWeights:
    """a = 1, b = 0: the loser takes no part, so the safeguard has nothing to scale."""
    return PairWeights(torch.ones_like(errors.winner), torch.zeros_like(errors.winner))


@dataclass(frozen=True)
class SFT:
    """`sft_loss` as a configurable objective."""

    def __call__(self, errors: PairErrors) -> ObjectiveOutput:
        """Per-pair loss and logits."""
        return sft_loss(errors)

    def weights(self, errors: PairErrors) -> PairWeights:
        """Closed-form (a, b)."""
        return sft_weights(errors)
