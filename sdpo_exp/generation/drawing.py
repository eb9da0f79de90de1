"""A batch of images from any text-to-image pipeline of diffusers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.generation.noise import (
    Draw,
    Noise,
    denoiser_of,
    generators,
    initial_latents,
    latent_shape,
)
from sdpo_exp.generation.packing import packed, packs, unpacked

_log = logging.getLogger(__name__)
_DECODED_AT_ONCE = 4  # images; at 1024 px a VAE needs several GiB for each


@dataclass(frozen=True)
class DrawSettings:
    """How images are drawn.

    Attributes:
        guidance: classifier-free guidance in diffusers' convention,
            `unconditional + guidance * (conditional - unconditional)`; 1: none. The public
            Diffusion-SDPO code's 7.5 is 8.5 here.
        steps: network evaluations per image (and branch).
        negative_prompt: what guidance leads away from; None leaves it to the pipeline, which is
            not the encoded empty prompt everywhere (SDXL's stock pipeline takes zeros).
        noise: `prompt`: from (seed, index); `shared`: every prompt of a seed begins alike.
        noise_device: where shared noise is drawn; None: where the model is. Devices differ.
        height, width: in pixels; None: the model's own.
    """

    guidance: float = 2.0
    steps: int = 20
    negative_prompt: str | None = None
    noise: Noise = "prompt"
    noise_device: str | None = None
    height: int | None = None
    width: int | None = None


@torch.no_grad()
def draw_batch(pipeline: Any, draws: Sequence[Draw], settings: DrawSettings) -> NDArray[np.float32]:
    """Images (B, H, W, 3) in [0, 1]; image i follows from `draws[i]` and the settings alone.

    In float32 the batch size moves a value by rounding only, 1e-4 at most.

    Raises:
        UserError: the pipeline does not take one of the settings, for example a prompt.
    """
    arguments = _arguments(pipeline, draws, settings)
    known = inspect.signature(pipeline.__call__).parameters
    if unknown := sorted(arguments.keys() - known.keys()):
        raise UserError(f"{type(pipeline).__name__} takes no {', '.join(unknown)}")
    decodes = _has_vae(pipeline)
    kind = "latent" if decodes else "np"
    (found,) = pipeline(**arguments, output_type=kind, return_dict=False)[:1]
    if decodes and packs(pipeline):
        _, *sides = latent_shape(pipeline, settings.height, settings.width)
        found = unpacked(pipeline, found, *sides)
    images = _decoded(pipeline.vae, found) if decodes else np.asarray(found, np.float32)
    broken = [draws[int(i)] for i in np.flatnonzero(~np.isfinite(images).all((1, 2, 3)))]
    if broken:
        _log.warning(
            "%d images are not finite and were made grey where they are not (prompt %d, seed %d, "
            "...): the model diverged, or dtype overflows",
            *(len(broken), broken[0].index, broken[0].seed),
        )
    # Grey, so that a model that diverged is judged like any other.
    return np.nan_to_num(images, nan=0.5).clip(0, 1)


def draw_in_batches(
    pipeline: Any, draws: Sequence[Draw], settings: DrawSettings, batch: int
) -> Iterator[list[tuple[Draw, Image.Image]]]:
    """Each of `draws` with its 8-bit image, in lists of `batch` and what is left.

    Raises:
        UserError: as `draw_batch`, or the device's memory is too small.
    """
    for start in range(0, len(draws), batch):
        part = draws[start : start + batch]
        try:
            pictures = as_pictures(draw_batch(pipeline, part, settings))
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                f"batch={batch}: the device's memory is too small for so many images at once; give "
                "a smaller batch. Images that are written stay."
            ) from None
        yield list(zip(part, pictures, strict=True))


def as_pictures(images: NDArray[np.float32]) -> list[Image.Image]:
    """8-bit RGB of images (B, H, W, 3) in [0, 1], rounded to the nearest level."""
    return [Image.fromarray(np.round(image * 255).astype(np.uint8)) for image in images]


def _arguments(pipeline: Any, draws: Sequence[Draw], settings: DrawSettings) -> dict[str, Any]:
    device = settings.noise_device or pipeline.device
    arguments: dict[str, Any] = {
        "prompt": [draw.prompt for draw in draws],
        "guidance_scale": settings.guidance,
        "num_inference_steps": settings.steps,
        "generator": generators(draws, settings.noise, device),
    }
    if settings.negative_prompt is not None:
        arguments["negative_prompt"] = [settings.negative_prompt] * len(draws)
    arguments |= _sides(pipeline, settings)
    if settings.noise == "prompt" and "latents" in inspect.signature(pipeline.__call__).parameters:
        shape = latent_shape(pipeline, settings.height, settings.width)
        latents = initial_latents(draws, shape)
        latents = latents.to(pipeline.device, denoiser_of(pipeline).dtype)
        arguments["latents"] = packed(pipeline, latents)
    return arguments


def _sides(pipeline: Any, settings: DrawSettings) -> dict[str, int]:
    """Both sides in pixels, where one is given: some pipelines ignore a single one."""
    given = {"height": settings.height, "width": settings.width}
    if all(value is None for value in given.values()):
        return {}
    scale = int(getattr(pipeline, "vae_scale_factor", 1))
    own = dict(zip(given, latent_shape(pipeline, None, None)[1:], strict=True))
    return {name: value or scale * own[name] for name, value in given.items()}


def _has_vae(pipeline: Any) -> bool:
    vae = getattr(pipeline, "vae", None)
    return vae is not None and "scaling_factor" in vae.config


def _decoded(vae: Any, latents: Tensor) -> NDArray[np.float32]:
    """By the VAE in its own dtype, whatever the denoiser's is: the public evaluation decodes in
    float32 what bfloat16 drew."""
    config = vae.config
    if latents.ndim != 4 or latents.shape[1] != config.get("latent_channels", latents.shape[1]):
        raise UserError("the pipeline's latents are packed, which cannot be decoded here yet")
    latents = latents.to(vae.device, vae.dtype)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (latents.new_tensor(value).view(1, -1, 1, 1) for value in (mean, std))
        latents = latents * std / config.scaling_factor + mean
    else:
        latents = latents / config.scaling_factor + (config.get("shift_factor") or 0.0)
    with torch.autocast(vae.device.type, enabled=False):
        parts = [vae.decode(part).sample for part in latents.split(_DECODED_AT_ONCE)]
    pixels = torch.cat(parts).float() / 2 + 0.5
    return np.asarray(pixels.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy(), np.float32)
