"""Where an image begins: noise of its own, or the one noise that the public evaluation shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.generation.packing import block, packed_shape, packs
from sdpo_exp.randomness import Stream, draw_noise
from sdpo_exp.types import PairKey

Noise = Literal["prompt", "shared"]


@dataclass(frozen=True)
class Draw:
    """An image to draw: its prompt, the prompt's position in its set, and a seed."""

    prompt: str
    index: int
    seed: int


def initial_latents(draws: Sequence[Draw], shape: Sequence[int]) -> Tensor:
    """Standard normal float32 (B, *shape) on the CPU; row i follows from (seed, index) alone.

    Independent of batch, rank, device and torch's version. `randomness.sampling_noise(seed, n)` is
    the same for indices 0 to n - 1.
    """
    rows = [draw_noise(d.seed, [PairKey(0, d.index, d.index)], shape, Stream.SAMPLE) for d in draws]
    return torch.cat(rows)


def generators(
    draws: Sequence[Draw], noise: Noise, device: torch.device | str
) -> list[torch.Generator]:
    """A generator per image, so that no image's numbers depend on its neighbours in the batch.

    `shared`: all of one seed begin alike, on `device`, as the public Diffusion-SDPO evaluation
    seeds its generator anew for every prompt. `prompt`: for what a sampler draws on its way.
    """
    if noise == "shared":
        return [torch.Generator(device).manual_seed(draw.seed) for draw in draws]
    return [torch.Generator().manual_seed(_mixed(draw.seed, draw.index)) for draw in draws]


def _mixed(seed: int, index: int) -> int:
    # torch's CPU generator keeps 32 bits of a seed; these are well mixed ones.
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def latent_shape(pipeline: Any, height: int | None, width: int | None) -> tuple[int, int, int]:
    """(C, h, w) of the latents of a `height` x `width` image; None: the model's own size.

    Raises:
        UserError: the pipeline's denoiser does not say, or a size is no multiple of the VAE's.
    """
    if (told := getattr(pipeline, "latent_shape", None)) is not None:
        shape: tuple[int, int, int] = told(height, width)
        return shape
    config = getattr(denoiser_of(pipeline), "config", None)
    channels, own = getattr(config, "in_channels", None), getattr(config, "sample_size", None)
    if channels is not None and packs(pipeline):
        channels, own = packed_shape(pipeline, channels)
    if channels is None or own is None:
        raise UserError(
            f"{type(pipeline).__name__}: its denoiser names no in_channels and sample_size, so its "
            "noise cannot be drawn per prompt; give noise=shared"
        )
    scale, whole = int(getattr(pipeline, "vae_scale_factor", 1)), block(pipeline)
    sides = (own, own) if isinstance(own, int) else tuple(own)
    given = [s if pixels is None else _divided(pixels, scale, whole) for pixels, s in
             zip((height, width), sides, strict=True)]  # fmt: skip
    return int(channels), given[0], given[1]


def denoiser_of(pipeline: Any) -> Any:
    """The network that preference training changes: a UNet, or a transformer; None: neither."""
    found = getattr(pipeline, "unet", None)
    return found if found is not None else getattr(pipeline, "transformer", None)


def _divided(pixels: int, scale: int, whole: int) -> int:
    if pixels % whole:
        raise UserError(f"height and width must be multiples of {whole}, got {pixels}")
    return pixels // scale
