"""What a training step makes of its parts: tensors in, records out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdpo_exp.types import (
    Conditioning,
    LossParts,
    NoisyPair,
    ObjectiveOutput,
    PairErrors,
    SafeguardOutput,
    StepRecord,
)


def for_both(per_pair: Tensor) -> Tensor:
    """(B, ...) -> (2B, ...): the same for winner and loser."""
    return torch.cat([per_pair, per_pair])


def halves(noisy: NoisyPair, cond: Conditioning) -> list[tuple[NoisyPair, Conditioning]]:
    """Winners and losers as inputs of their own."""
    pairs = len(noisy.t) // 2
    return [
        (noisy.half(rows), {name: values[rows] for name, values in cond.items()})
        for rows in (slice(pairs), slice(pairs, None))
    ]


def mean_error(prediction: Tensor, noisy: NoisyPair) -> Tensor:
    """() of predictions as rows of `noisy`, float32, weighted as `PairErrors` weighs them."""
    error = (prediction.float() - noisy.target.float()).square().flatten(1).mean(1)
    return (error if noisy.weight is None else noisy.weight.float() * error).mean()


def loss_parts(loss: Tensor, predictions: Sequence[Tensor], errors: PairErrors) -> LossParts:
    """What a gradient rule takes apart.

    Args:
        loss: () of a micro-batch.
        predictions: the winners' and the losers', (B, ...) each, from passes of their own.
        errors: of these predictions.
    """
    slopes = torch.autograd.grad(
        loss, predictions, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    winner, loser = (
        (prediction.float() * slope.float()).sum()
        for prediction, slope in zip(predictions, slopes, strict=True)
    )
    return LossParts(winner, loser, protected=errors.winner.mean())


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
