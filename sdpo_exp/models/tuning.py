"""What of the denoiser is trained."""

from __future__ import annotations

import torch
from torch import nn


class FullTuning:
    """All weights, kept as float32 masters whatever the autocast dtype.

    Args:
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a
            third more time, equal gradients.
    """

    def __init__(self, gradient_checkpointing: bool = False) -> None:
        self.gradient_checkpointing = gradient_checkpointing

    def apply(self, denoiser: nn.Module) -> None:
        """Make `denoiser` trainable in place."""
        nn.Module.to(denoiser, torch.float32).requires_grad_(True).train()
        if self.gradient_checkpointing:
            denoiser.enable_gradient_checkpointing()  # type: ignore[operator]

    def prepare(self, network: nn.Module) -> None:
        """Nothing yet."""
        del network
