"""The published rule with true parameter gradients in place of output residuals.

The output-space rule takes the Jacobians of winner and loser for equal. With G_w + lambda G_l the
gradient of the loss and G_A that of the winners' mean error, plain gradient descent changes the
winners' error by -lr <G_A, G_w + lambda G_l> to first order, and

    lambda = clip((1 - mu) <G_A, G_w> / -<G_A, G_l>, 0, 1)   if <G_A, G_l> < 0,   else 1

keeps that at or below mu times what the winners' part alone would do. Where the objective pushes
the winners' error up by itself (dmpo beyond its target margin: a < 0), <G_A, G_w> is negative,
and lambda is 0 for losers that would add to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdpo_exp.rules.window import Clip, WindowGradients, WindowRule


def largest_safe_share(natural: Tensor, harm: Tensor, mu: float) -> Tensor:
    """The largest lambda () in [0, 1] with lambda harm <= (1 - mu) natural, 0 where none has.

    Args:
        natural: () rate at which the winners' part alone lowers the winners' error.
        harm: () rate at which all of the losers' part would raise it.
        mu: share of the natural rate that must remain.
    """
    ratio = (1.0 - mu) * natural / torch.where(harm > 0, harm, torch.ones_like(harm))
    return torch.where(harm > 0, ratio.clamp(0.0, 1.0), torch.ones_like(ratio))


class ParameterRule(WindowRule):
    """lambda from parameter gradients of the whole window, with the objective's own weights."""

    def share(
        self, gradients: WindowGradients, optimizer: torch.optim.Optimizer, clip: Clip
    ) -> Tensor:
        """lambda () for plain gradient descent."""
        del optimizer, clip
        winner, loser, protected = gradients
        return largest_safe_share(protected @ winner, -(protected @ loser), self.mu)
