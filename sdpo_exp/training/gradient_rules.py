"""How a loss becomes gradients: the seam for rules in parameter or optimiser geometry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdpo_exp.protocols import GradientRule, Safeguard
from sdpo_exp.types import LossParts


class PlainBackward:
    """Ordinary backpropagation of the mean loss."""

    needs_parts = False

    def backward(
        self, loss: Tensor | LossParts, module: nn.Module, optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Accumulate d loss / d parameter."""
        del module, optimizer
        if isinstance(loss, LossParts):
            loss = loss.winner + loss.loser
        loss.backward()


def rule_of(safeguard: Safeguard) -> GradientRule:
    """The safeguard itself where it acts on gradients (`sdpo_exp.rules`), else plain backward."""
    itself: Any = safeguard
    return itself if hasattr(safeguard, "backward") else PlainBackward()
