"""A rule in the geometry of the real update: momentum, preconditioner, clipping, weight decay.

With s(lambda) the step that the optimiser would take with clip(G_w + lambda G_l), and G_A the
gradient of the winners' mean error, the winners' error changes by f(lambda) = <G_A, s(lambda)> to
first order in the step itself. The rule takes the largest lambda in [0, 1] with

    f(lambda) <= mu min(f(0), 0).

f is evaluated with the optimiser's own arithmetic (`updates`), so nothing of it is approximated;
its crossing is found by a few steps of a bracketing secant, from the safe side. Where even
lambda = 0 is not safe, because momentum of earlier steps or weight decay raises the winners'
error, the better of 0 and 1 is taken.
"""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor

from sdpo_exp.bounds import PositiveInt, UnitInterval
from sdpo_exp.rules.parameter import ParameterRule
from sdpo_exp.rules.updates import Step, check_known, real_step
from sdpo_exp.rules.window import Clip, WindowGradients, WindowRule


class OptimizerRule(WindowRule):
    """lambda from what the optimiser is about to do.

    Args:
        mu: share of the winners' own progress that must remain.
        evaluations: of f between 0 and 1; each costs about one optimiser step.
    """

    def __init__(self, mu: UnitInterval, evaluations: PositiveInt = 4) -> None:
        super().__init__(mu)
        self.evaluations = evaluations

    def check(self, optimizer: torch.optim.Optimizer, trainer: L.Trainer) -> None:
        """Raises UserError where the optimiser's arithmetic is not known, or the loss is scaled."""
        super().check(optimizer, trainer)
        check_known(optimizer, "safeguard=optimizer")

    def share(
        self, gradients: WindowGradients, optimizer: torch.optim.Optimizer, clip: Clip
    ) -> Tensor:
        """lambda () for the optimiser's next step."""
        if all(group["lr"] == 0 for group in optimizer.param_groups):
            # A warm-up's first step moves nothing, but what it leaves in the momentum will.
            return ParameterRule(self.mu).share(gradients, optimizer, clip)
        step = real_step(optimizer)
        return largest_safe_step(gradients, step, clip, self.mu, self.evaluations)


def largest_safe_step(
    gradients: WindowGradients, step: Step, clip: Clip, mu: float, evaluations: int
) -> Tensor:
    """The largest lambda () found in [0, 1] with f(lambda) <= mu min(f(0), 0); see above."""

    def change(share: Tensor) -> Tensor:
        return gradients.protected @ step(clip(gradients.combined(share)))

    low = torch.zeros((), device=gradients.winner.device)
    high = torch.ones_like(low)
    first, last = change(low), change(high)
    bound = mu * first.clamp(max=0.0)
    # g = f - bound: at or below 0 at `low`, above 0 at `high`, or the bracket is not used.
    at_low, at_high = first - bound, last - bound
    for _ in range(evaluations):
        middle = low + (high - low) * _towards_zero(at_low, at_high)
        found = change(middle) - bound
        safe = found <= 0
        low, at_low = torch.where(safe, middle, low), torch.where(safe, found, at_low)
        high, at_high = torch.where(safe, high, middle), torch.where(safe, at_high, found)
    better = (last < first).to(low.dtype)
    inside = torch.where(first <= bound, low, better)
    return torch.where(last <= bound, torch.ones_like(low), inside)


def _towards_zero(at_low: Tensor, at_high: Tensor) -> Tensor:
    """Where between the ends () a line is 0, kept off the ends, from which nothing would move."""
    width = at_high - at_low
    place = -at_low / torch.where(width > 0, width, torch.ones_like(width))
    return torch.where(width > 0, place, torch.full_like(place, 0.5)).clamp(0.02, 0.98)
