"""Latents that a pipeline packs into tokens of 2 x 2, as FLUX's kin do (Ovis-Image among them)."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

_PATCH = 2
_TAKES = ["latents", "batch_size", "num_channels_latents", "height", "width"]


def packs(pipeline: Any) -> bool:
    """Whether the pipeline takes latents, and gives them, as tokens (B, h w / 4, 4 C)."""
    pack = getattr(pipeline, "_pack_latents", None)
    return pack is not None and list(inspect.signature(pack).parameters) == _TAKES


def packed(pipeline: Any, latents: Tensor) -> Tensor:
    """Tokens of latents (B, C, h, w); latents themselves where the pipeline packs none."""
    if not packs(pipeline):
        return latents
    tokens: Tensor = pipeline._pack_latents(latents, *latents.shape)
    return tokens


def unpacked(pipeline: Any, found: Tensor, height: int, width: int) -> Tensor:
    """Latents (B, C, height, width) of what the pipeline gives."""
    if not packs(pipeline):
        return found
    # The last argument divides pixels to latents, which these are already.
    latents: Tensor = pipeline._unpack_latents(found, height, width, 1)
    return latents


def packed_shape(pipeline: Any, channels: int) -> tuple[int, int]:
    """Channels and side of the latents of a pipeline that packs, at its own size."""
    return channels // _PATCH**2, int(pipeline.default_sample_size)


def block(pipeline: Any) -> int:
    """Of how many pixels both sides of an image must be multiples."""
    return int(getattr(pipeline, "vae_scale_factor", 1)) * (_PATCH if packs(pipeline) else 1)
