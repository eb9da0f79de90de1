"""The parameter rule by the last layers alone: cheap, for the backward pass stops early.

lambda is `parameter.largest_safe_share` of inner products over those trained tensors that the
backward pass reaches first, for each micro-batch and rank; then the loss's gradient is taken as
usual, with the losers' part scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdpo_exp.bounds import PositiveInt, UnitInterval
from sdpo_exp.rules.flat import gradient, trained
from sdpo_exp.rules.parameter import largest_safe_share
from sdpo_exp.safeguard import preserve_winner
from sdpo_exp.types import LossParts, PairErrors, PairWeights, SafeguardOutput

if TYPE_CHECKING:
    from sdpo_exp.training import PreferenceModule


class LastLayersRule:
    """lambda from gradients of the layers nearest to the output.

    Args:
        mu: as in the published rule.
        tensors: how many trained tensors count, in the order in which the first backward pass
            reaches them.
    """

    needs_parts = True

    def __init__(self, mu: UnitInterval, tensors: PositiveInt = 8) -> None:
        self.mu, self.tensors = mu, tensors
        self._counted: list[Tensor] = []
        self._lambda: Tensor | None = None

    def __call__(self, errors: PairErrors, weights: PairWeights | None) -> SafeguardOutput:
        """The errors as they are; lambda (B,) is filled in by `backward`."""
        del weights
        self._lambda = torch.ones_like(errors.winner.detach())
        return SafeguardOutput(errors, self._lambda, preserve_winner(errors, self.mu)[1])

    def backward(self, loss: Tensor | LossParts, module: PreferenceModule, optimizer: Any) -> None:
        """Scale the losers' part, then accumulate as usual."""
        del module
        assert isinstance(loss, LossParts)
        assert self._lambda is not None
        if not self._counted:
            self._counted = first_reached(loss.protected, trained(optimizer))[: self.tensors]
        winner, loser, protected = (gradient(part, self._counted, keep=True) for part in loss)
        share = largest_safe_share(protected @ winner, -(protected @ loser), self.mu)
        self._lambda.fill_(share)
        (loss.winner + share * loss.loser).backward()


def first_reached(scalar: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The parameters in the order in which a backward pass of a scalar () reaches them."""
    order: list[int] = []
    handles = [
        parameter.register_hook(lambda _, number=number: order.append(number))
        for number, parameter in enumerate(parameters)
    ]
    try:
        torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return [parameters[number] for number in order]
