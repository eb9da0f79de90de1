"""How a loss becomes gradients: the seam for rules in parameter or optimiser geometry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
