"""Latents of a frozen VAE, as every latent family makes them."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.models.families import block_size, resolution_misfit
from sdpo_exp.protocols import NoiseDraw

VaeDtype = Literal["auto", "float32", "bfloat16", "float16"]
Latents = Literal["sample", "mode"]


def vae_latents(
    vae: AutoencoderKL,
    pixels: Tensor,
    latents: Latents,
    draw: NoiseDraw,
    at_once: int,
    patch: int = 1,
) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> float32 latents (N, C, h, w), shifted and scaled as denoisers are.

    Outside any autocast: the VAE's own dtype is what counts.

    Args:
        vae: frozen.
        pixels: images.
        latents: `sample` the posterior with the noise of `draw`, or take its `mode`.
        draw: as in `protocols.Backbone.encode_images`.
        at_once: images per pass.
        patch: latents per token in each direction, of which sides must be multiples, too.

    Raises:
        UserError: height or width is no multiple of the VAE's factor times `patch`.
    """
    for side in pixels.shape[-2:]:
        if problem := resolution_misfit(side, block_size(vae.config, patch)):
            raise UserError(problem)
    with torch.autocast(pixels.device.type, enabled=False):
        chunks = pixels.to(vae.dtype).split(at_once)
        posteriors = [vae.encode(chunk).latent_dist for chunk in chunks]
    mean = torch.cat([posterior.mean.float() for posterior in posteriors])
    if latents == "sample":
        std = torch.cat([posterior.std.float() for posterior in posteriors])
        mean = mean + std * draw(mean.shape[1:]).to(mean)
    shift = vae.config.shift_factor or 0.0
    return (mean - shift) * vae.config.scaling_factor


def vae_dtype_on(vae: AutoencoderKL, chosen: VaeDtype, device: torch.device) -> torch.dtype:
    """The dtype of a VAE on a device: `auto` is float16 on CUDA where its configuration allows."""
    if chosen != "auto":
        found: torch.dtype = getattr(torch, chosen)
        return found
    safe = not vae.config.force_upcast
    return torch.float16 if safe and device.type == "cuda" else torch.float32
