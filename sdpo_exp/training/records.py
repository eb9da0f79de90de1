"""What a training step makes of its parts: tensors in, records out."""

from __future__ import annotations

import torch
from torch import Tensor

from sdpo_exp.types import (
    LossParts,
    ObjectiveOutput,
    PairErrors,
    PairWeights,
    SafeguardOutput,
    StepRecord,
)


def for_both(per_pair: Tensor) -> Tensor:
    """(B, ...) -> (2B, ...): the same for winner and loser."""
    return torch.cat([per_pair, per_pair])


def loss_parts(errors: PairErrors, weights: PairWeights | None) -> LossParts:
    """The two weighted means that a gradient rule takes apart.

    Raises:
        ValueError: the objective has no closed-form weights.
    """
    if weights is None:
        raise ValueError("this gradient rule needs an objective with closed-form weights(errors)")
    winner = (weights.winner * errors.winner).mean()
    return LossParts(winner=winner, loser=-(weights.loser * errors.loser).mean())


def step_record(
    errors: PairErrors, guarded: SafeguardOutput, output: ObjectiveOutput, t: Tensor
) -> StepRecord:
    """What a micro-batch leaves for callbacks; nothing of it is read back to the host."""
    loss, lambda_safe = output.loss.detach(), guarded.lambda_safe
    winner, loser = errors.winner.detach(), errors.loser.detach()
    finite = torch.isfinite(torch.stack([loss, winner, loser, lambda_safe])).all()
    return StepRecord(
        loss=loss,
        logits=output.logits.detach(),
        winner_error=winner,
        loser_error=loser,
        winner_ref_error=errors.ref_winner,
        loser_ref_error=errors.ref_loser,
        lambda_safe=lambda_safe,
        lambda_would_be=guarded.lambda_would_be,
        cosine=errors.cosine,
        timestep=t[: len(t) // 2],
        finite=finite,
    )
