"""What VAE and text encoders do for a latent family, in parts that a cache can stand in for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdpo_exp.models import checkpoint_folder
from sdpo_exp.models.families import Family, block_size
from sdpo_exp.models.vae_latents import Latents, latents_of, per_pass, vae_posterior
from sdpo_exp.protocols import NoiseDraw
from sdpo_exp.types import Conditioning, Geometry

EmptyPrompt = Literal["encoded", "zeros"]


class VaeWork:
    """From pixels to latents, by posteriors that a cache can keep; the VAE need not be loaded."""

    vae: AutoencoderKL
    _latents: Latents
    _encode_batch: int

    def encode_images(self, pixels: Tensor, draw: NoiseDraw) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> float32 latents (N, C, H/8, W/8), as the denoiser takes them.

        Raises:
            UserError: height or width is no multiple of the model's block.
        """
        return self.latents_from(self.posterior(pixels), draw)

    @torch.no_grad()
    def posterior(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> float32 mean and deviation (N, 2, C, h, w) of the VAE."""
        return vae_posterior(self.vae, pixels, self._encode_batch, self._patch())

    def latents_from(self, posterior: Tensor, draw: NoiseDraw) -> Tensor:
        """Latents (N, C, h, w) of posteriors (N, 2, C, h, w)."""
        return latents_of(posterior, self._latents, draw, self._vae_config())

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of images of a size in pixels."""
        config = self._vae_config()
        block = block_size(config)
        return config.get("latent_channels", 4), height // block, width // block

    def _vae_config(self) -> Mapping[str, Any]:
        if "vae" in vars(self):
            config: Mapping[str, Any] = self.vae.config
            return config
        return self._stored_vae_config

    @cached_property
    def _stored_vae_config(self) -> Mapping[str, Any]:
        """As the files say it."""
        raise NotImplementedError

    def _patch(self) -> int:
        """Latents per token in each direction, of which sides must be multiples."""
        return 1


class FrozenWork(VaeWork):
    """The same, and from prompts to conditions; `LatentBackbone` has the parts."""

    FAMILY: ClassVar[Family]
    folder: Path
    _variant: str | None
    _vae_folder: Path
    _vae_variant: str | None
    _empty_prompt: EmptyPrompt

    def encode_prompts(self, prompts: Sequence[str], geometry: Sequence[Geometry]) -> Conditioning:
        """Named tensors with a row per prompt; a repeated prompt is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        rows = dict(zip(distinct, self.encode_texts(distinct, geometry), strict=True))
        return self.conditions([rows[prompt] for prompt in prompts], geometry)

    # -- the CachedWork protocol ----------------------------------------------------------------

    @torch.no_grad()
    def encode_texts(
        self, prompts: Sequence[str], geometry: Sequence[Geometry]
    ) -> list[dict[str, Tensor]]:
        """What the text encoders make of each prompt, float32; sizes come in later."""
        del geometry
        device, found = self.vae.device, []
        size = per_pass(self._encode_batch, device)
        for start in range(0, len(prompts), size):
            some = prompts[start : start + size]
            with torch.autocast(device.type, enabled=False):
                encoded = self._encode_text(some)
            found += [{n: rows[i].float() for n, rows in encoded.items()} for i in range(len(some))]
        if self._empty_prompt == "zeros" and "" in prompts:
            found[prompts.index("")] = _zeros(found[prompts.index("")])
        return found

    def conditions(
        self, texts: Sequence[Mapping[str, Tensor]], geometry: Sequence[Geometry]
    ) -> Conditioning:
        """Conditioning of N encoded prompts and geometries."""
        cond = {name: torch.stack([text[name] for text in texts]) for name in texts[0]}
        return cond | self._geometry_conditions(geometry, next(iter(cond.values())).device)

    def frozen_files(self) -> dict[str, str]:
        """sha256 by name of the files that VAE, text encoders and tokenizers are loaded from."""
        text = checkpoint_folder.hashes(self.folder, self.FAMILY.text_parts, self._variant)
        folder, name = self._vae_folder.parent, self._vae_folder.name
        return text | checkpoint_folder.hashes(folder, (name,), self._vae_variant, called="vae")

    def _patch(self) -> int:
        return self.FAMILY.patch

    @cached_property
    def _stored_vae_config(self) -> Mapping[str, Any]:
        return checkpoint_folder.read_json(self._vae_folder / "config.json")

    def _encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        raise NotImplementedError

    def _geometry_conditions(
        self, geometry: Sequence[Geometry], device: torch.device
    ) -> dict[str, Tensor]:
        """None, where a family does not condition on sizes."""
        del geometry, device
        return {}


def _zeros(text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(rows) for name, rows in text.items()}
