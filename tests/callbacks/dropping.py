"""A policy with dropout, as adapters may have it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tests.harness import SmallBackbone


class Dropping(SmallBackbone):
    """A policy that uses the global generator in training."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.denoiser.dropout = self.dropout

    def denoise(self, network: Any, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        return network.dropout(super().denoise(network, x_t, t, cond))
