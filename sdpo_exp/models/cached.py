"""A backbone whose frozen work is read from a cache: its VAE and text encoders stay unloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sdpo_exp.protocols import NoiseDraw
from sdpo_exp.types import Conditioning, Geometry


class CachedBackbone:
    """A backbone that takes posteriors in the place of pixels; all else is the backbone's own.

    Args:
        backbone: a `CachedWork`, whose parts load when they are asked for, as for an evaluation.
        texts: from a prompt to its cached tensors.
    """

    def __init__(self, backbone: Any, texts: Callable[[str], Mapping[str, Tensor]]) -> None:
        self._backbone, self._texts = backbone, texts
        self._device = torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_backbone":
            raise AttributeError(name)
        return getattr(self._backbone, name)

    def to(self, device: torch.device) -> None:
        """Where conditions go; parts that are loaded move."""
        self._device = device
        self._backbone.to(device)

    def encode_images(self, pixels: Tensor, draw: NoiseDraw) -> Tensor:
        """Latents (N, C, h, w) of cached posteriors (N, 2, C, h, w)."""
        latents: Tensor = self._backbone.latents_from(pixels, draw)
        return latents

    def encode_prompts(self, prompts: Sequence[str], geometry: Sequence[Geometry]) -> Conditioning:
        """Conditioning of N prompts that the cache holds."""
        rows = {p: self._texts(p) for p in dict.fromkeys(prompts)}
        moved = {p: {k: v.to(self._device) for k, v in text.items()} for p, text in rows.items()}
        found: Conditioning = self._backbone.conditions([moved[p] for p in prompts], geometry)
        return found
