"""Latents of a frozen VAE, as every latent family makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.models.families import block_size, resolution_misfit
from sdpo_exp.protocols import NoiseDraw

VaeDtype = Literal["auto", "float32", "bfloat16", "float16"]
Latents = Literal["sample", "mode"]
Loading = Literal["at_once", "on_demand"]
_SCALE = 0.18215  # of an AutoencoderKL whose configuration does not say


def vae_posterior(vae: AutoencoderKL, pixels: Tensor, at_once: int, patch: int = 1) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> float32 mean and standard deviation (N, 2, C, h, w).

    Outside any autocast: the VAE's own dtype is what counts. On the CPU images pass one by one:
    kernels round by the size of the batch, and an image's latents depend on nothing but itself.

    Args:
        vae: frozen.
        pixels: images.
        at_once: images per pass on other devices.
        patch: latents per token in each direction, of which sides must be multiples, too.

    Raises:
        UserError: height or width is no multiple of the VAE's factor times `patch`.
    """
    for side in pixels.shape[-2:]:
        if problem := resolution_misfit(side, block_size(vae.config, patch)):
            raise UserError(problem)
    with torch.autocast(pixels.device.type, enabled=False):
        chunks = pixels.to(vae.dtype).split(per_pass(at_once, pixels.device))
        found = [vae.encode(chunk).latent_dist for chunk in chunks]
    return torch.cat([torch.stack([one.mean.float(), one.std.float()], dim=1) for one in found])


def latents_of(
    posterior: Tensor, latents: Latents, draw: NoiseDraw, vae: Mapping[str, Any]
) -> Tensor:
    """Mean and deviation (N, 2, C, h, w) -> latents (N, C, h, w) as denoisers take them.

    Args:
        posterior: of the VAE.
        latents: `sample` it with the noise of `draw`, or take its `mode`.
        draw: as in `protocols.Backbone.encode_images`.
        vae: its configuration, with scale and shift.
    """
    mean, std = posterior.unbind(1)
    if latents == "sample":
        mean = mean + std * draw(mean.shape[1:]).to(mean)
    return (mean - (vae.get("shift_factor") or 0.0)) * vae.get("scaling_factor", _SCALE)


def per_pass(at_once: int, device: torch.device) -> int:
    """How many images or prompts pass together: one on the CPU, else `at_once`."""
    return 1 if device.type == "cpu" else at_once


def vae_dtype_on(vae: AutoencoderKL, chosen: VaeDtype, device: torch.device) -> torch.dtype:
    """The dtype of a VAE on a device: `auto` is float16 on CUDA where its configuration allows."""
    if chosen != "auto":
        found: torch.dtype = getattr(torch, chosen)
        return found
    safe = not vae.config.force_upcast
    return torch.float16 if safe and device.type == "cuda" else torch.float32
