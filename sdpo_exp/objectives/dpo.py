"""Diffusion-DPO (Wallace et al., arXiv 2311.12908, eq. 14): -log sigmoid(u).

The paper's factors T and w(t) are absorbed in beta, and errors are means over elements, not sums:
beta_mean = D * beta_sum with D latent elements (`beta_from_sum`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sdpo_exp.bounds import PositiveFloat
from sdpo_exp.types import ObjectiveOutput, PairErrors, PairWeights


def implicit_logits(errors: PairErrors, *, beta: float) -> Tensor:
    """u = -(beta/2) Delta, (B,). Above 0 the policy prefers the winner more than the reference."""
    return -0.5 * beta * errors.delta


def dpo_loss(errors: PairErrors, *, beta: float) -> ObjectiveOutput:
    """Per-pair loss -log sigmoid(u), (B,); ln 2 at zero margin."""
    logits = implicit_logits(errors, beta=beta)
    return ObjectiveOutput(loss=-logsigmoid(logits), logits=logits)


def dpo_weights(errors: PairErrors, *, beta: float) -> PairWeights:
    """a = b = (beta/2) sigmoid(-u), detached."""
    weight = 0.5 * beta * torch.sigmoid(-implicit_logits(errors, beta=beta).detach())
    return PairWeights(winner=weight, loser=weight)


def beta_from_sum(beta_sum: float, *, elements: int) -> float:
    """beta for mean errors that equals `beta_sum` for summed errors over `elements` per image."""
    return beta_sum * elements


@dataclass(frozen=True)
class DPO:
    """`dpo_loss` at a fixed beta."""

    beta: PositiveFloat

    def __call__(self, errors: PairErrors) -> ObjectiveOutput:
        """Per-pair loss and logits."""
        return dpo_loss(errors, beta=self.beta)

    def weights(self, errors: PairErrors) -> PairWeights:
        """Closed-form (a, b)."""
        return dpo_weights(errors, beta=self.beta)
