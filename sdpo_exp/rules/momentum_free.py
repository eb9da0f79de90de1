"""The losers' part stays out of the optimiser's memory.

The optimiser sees the winners' part only, so its momentum and second moments are the winners'.
After its step the losers' part is added with the same preconditioner and no momentum:

    theta <- theta - lambda D G_l,   D = lr / (sqrt(v) + eps)   (lr for SGD),

with v the second moments after the step. lambda is the parameter rule's in that geometry:
clip((1 - mu) <G_A, D G_w> / -<G_A, D G_l>, 0, 1). What a loser did at one step is then gone at
the next, where AdamW's own memory would go on pushing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from sdpo_exp.rules.flat import parts_of, trained, write_gradient
from sdpo_exp.rules.parameter import largest_safe_share
from sdpo_exp.rules.updates import check_known, preconditioner
from sdpo_exp.rules.window import WindowGradients, WindowRule, clip_of

if TYPE_CHECKING:
    from sdpo_exp.training import PreferenceModule


class MomentumFreeRule(WindowRule):
    """The optimiser steps with the winners' part; the losers' follows without momentum."""

    def check(self, optimizer: torch.optim.Optimizer, trainer: L.Trainer) -> None:
        """Raises UserError where the preconditioner is not known, or the loss is scaled."""
        super().check(optimizer, trainer)
        check_known(optimizer, "safeguard=momentum_free")

    def write(
        self,
        gradients: WindowGradients,
        optimizer: torch.optim.Optimizer,
        module: PreferenceModule,
    ) -> Tensor:
        """The winners' part into `.grad`; the losers' is added right after the step."""
        clip = clip_of(module.trainer)
        write_gradient(gradients.winner, trained(optimizer))
        share = torch.zeros((), device=gradients.winner.device)

        def add_losers(*_: Any) -> None:
            handle.remove()
            winner = clip(gradients.winner)
            # Losers are shortened as much as winners were, or clipping would change their balance.
            kept = winner.norm() / gradients.winner.norm().clamp_min(1e-30)
            loser = kept * gradients.loser
            share.copy_(push_losers(optimizer, winner, loser, gradients.protected, self.mu))
            for later in filled:
                later.fill_(share)

        filled = list(self._lambdas)
        handle = optimizer.register_step_post_hook(add_losers)
        return share


@torch.no_grad()
def push_losers(
    optimizer: torch.optim.Optimizer, winner: Tensor, loser: Tensor, protected: Tensor, mu: float
) -> Tensor:
    """Move the parameters by -lambda D G_l, and return lambda ()."""
    scale = preconditioner(optimizer)
    natural, harm = protected @ (scale * winner), -(protected @ (scale * loser))
    share = largest_safe_share(natural, harm, mu)
    parameters = trained(optimizer)
    moves = parts_of(share * scale * loser, parameters)
    for part, parameter in zip(moves, parameters, strict=True):
        parameter.sub_(part.to(parameter.dtype))
    return share
