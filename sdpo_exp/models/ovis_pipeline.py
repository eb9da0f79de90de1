"""Text to image by Ovis-U1's parts, called as diffusers' pipelines are.

diffusers has no pipeline for this model; the released one runs code from the model's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from sdpo_exp.errors import UserError
from sdpo_exp.models import lora
from sdpo_exp.models.ovis_text.encoder import OvisTextEncoder
from sdpo_exp.models.ovis_text.prompts import Kind
from sdpo_exp.models.yak.config import YakConfig
from sdpo_exp.models.yak.latents import PATCH, grid_ids, pack, schedule, text_ids, unpack
from sdpo_exp.models.yak.network import YakTransformer
from sdpo_exp.models.yak.sampling import sample_t2i
from sdpo_exp.types import Conditioning

_SIDE = 1024  # pixels of the released model


def velocity(network: YakTransformer, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """Velocity (N, C, h, w) of `network` for latents (N, C, h, w) at times t (N,) in 0..1.

    Args:
        network: a `YakTransformer`, with or without adapters.
        x_t: noisy latents.
        t: float32; half precision would round 1000 t.
        cond: `text` (N, L, width) and, where rows differ in length, `mask` bool (N, L).
    """
    dtype = network.dtype
    text, (height, width) = cond["text"].to(dtype), x_t.shape[-2:]
    rows, columns = height // PATCH, width // PATCH
    tokens = network(
        pack(x_t.to(dtype)),
        grid_ids(rows, columns, len(x_t), device=x_t.device),
        text,
        text_ids(text.shape[1], len(text), text.device),
        t,
        txt_mask=cond.get("mask"),
    )
    return unpack(tokens, height, width)


def states(
    encoder: OvisTextEncoder, prompts: Sequence[str], size: tuple[int, int], kind: Kind
) -> list[Tensor]:
    """Text states (L_i, width) of prompts beside a blank image of `size` (height, width).

    A prompt that comes twice is encoded once; its states depend on nothing but itself and the size.

    Raises:
        UserError: a prompt has a placeholder of its own.
    """
    distinct = list(dict.fromkeys(prompts))
    encoded = dict(zip(distinct, encoder.encode(distinct, size, kind), strict=True))
    return [encoded[prompt] for prompt in prompts]


def _nothing(x: Tensor, t: Tensor) -> Tensor:
    del t
    return torch.zeros_like(x)


def padded(rows: Sequence[Tensor]) -> Conditioning:
    """States (L_i, width) as `text` (N, L, width), with `mask` (N, L) where lengths differ."""
    text = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        return {"text": text}
    places = torch.arange(text.shape[1])
    return {"text": text, "mask": (places < torch.tensor(lengths)[:, None]).to(text.device)}


class OvisSchedule:
    """Euler's method on times shifted by the number of tokens; the configuration of a manifest."""

    def __init__(self, config: YakConfig) -> None:
        self._config = config
        names = ("timestep_shift", "base_shift", "max_shift")
        self.config: Mapping[str, Any] = {name: getattr(config, name) for name in names}

    def times(self, steps: int, tokens: int) -> Tensor:
        """float32 (steps + 1,) from 1 down to 0."""
        return schedule(steps, tokens, self._config)


class OvisU1Pipeline:
    """Ovis-U1's text-to-image sampler around a network as it is; the parts are shared.

    Args:
        transformer: predicts velocity.
        vae: decodes latents.
        text_encoder: makes conditions.
        official_times: hand the network times rounded as the official run in bfloat16 does, for
            comparisons with its images at equal noise.
    """

    vae_scale_factor = 8

    def __init__(
        self,
        transformer: YakTransformer,
        vae: AutoencoderKL,
        text_encoder: OvisTextEncoder,
        official_times: bool = False,
    ) -> None:
        self.transformer, self.vae, self.text_encoder = transformer, vae, text_encoder
        self.scheduler: Any = OvisSchedule(transformer.config)
        self.official_times = official_times
        self._progress: Callable[[Any], Any] = lambda steps: steps

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name."""
        names = ("transformer", "vae", "text_encoder", "scheduler")
        return {name: getattr(self, name) for name in names}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.transformer.parameters()).device

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the network, the VAE and the text encoder; a dtype is the network's alone."""
        nn.Module.to(self.transformer, *args, **kwargs)
        for part in (self.vae, self.text_encoder):
            nn.Module.to(part, self.device)
        return self

    def load_lora_weights(self, folder: str | Path, weight_name: str = lora.FILE) -> None:
        """Put the adapters of a file that `OvisU1.save_lora` wrote into the network.

        Raises:
            UserError: the file is broken, or of another network.
        """
        lora.read_adapters(self.transformer, Path(folder) / weight_name, "transformer")

    def set_progress_bar_config(self, **options: Any) -> None:
        """Taken for likeness; there is no bar."""
        del options

    def latent_shape(self, height: int | None, width: int | None) -> tuple[int, int, int]:
        """(C, h, w) of the noise; sizes in pixels are floored to multiples of 16, as released."""
        block = PATCH * self.vae_scale_factor
        sides = [PATCH * ((given or _SIDE) // block) for given in (height, width)]
        return self.transformer.config.in_channels // PATCH**2, sides[0], sides[1]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generate images.

        Args:
            prompt: one or N prompts.
            height, width: in pixels; None: 1024.
            num_inference_steps: Euler steps, two network evaluations each.
            guidance_scale: v = v_b + scale (v_c - v_b), v_b of the request for any image; 1 is the
                conditional model alone, at half the cost.
            num_images_per_prompt: images of one prompt stand next to each other.
            generator: of the noise, where `latents` are not given.
            latents: (images, 4, h, w) standard normal.
            output_type: "pil", "np", "pt", or "latent" (images, 4, h, w), scaled as in training.

        Raises:
            UserError: another sampler was put in the place of its own, or a prompt has a
                placeholder of its own.
            ValueError: latents of another shape.
        """
        if not isinstance(self.scheduler, OvisSchedule):
            raise UserError(
                "sampler: Ovis-U1 is sampled by Euler's method on times of its own; leave sampler "
                "out"
            )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        prompts = [text for text in prompts for _ in range(num_images_per_prompt)]
        channels, rows, columns = self.latent_shape(height, width)
        shape = (len(prompts), channels, rows, columns)
        x = self._noise(shape, generator, latents)
        size = (rows * self.vae_scale_factor, columns * self.vae_scale_factor)
        times = self.scheduler.times(num_inference_steps, rows * columns // PATCH**2)
        x = self._sampled(x, times, prompts, size, guidance_scale)
        images = x if output_type == "latent" else self._decoded(x, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _sampled(
        self, x: Tensor, times: Tensor, prompts: list[str], size: tuple[int, int], scale: float
    ) -> Tensor:
        wanted = padded(states(self.text_encoder, prompts, size, "t2i"))

        def prompted(x: Tensor, t: Tensor) -> Tensor:
            return velocity(self.transformer, x, t, wanted)

        if scale == 1.0:  # v = 0 + 1 (v_c - 0)
            return sample_t2i(x, times, prompted, _nothing, 1.0, official_times=self.official_times)
        anything = padded(states(self.text_encoder, [""], size, "unconditional"))
        bare = {name: rows.expand(len(x), *rows.shape[1:]) for name, rows in anything.items()}

        def unprompted(x: Tensor, t: Tensor) -> Tensor:
            return velocity(self.transformer, x, t, bare)

        return sample_t2i(x, times, prompted, unprompted, scale, official_times=self.official_times)

    def _noise(self, shape: tuple[int, ...], generator: Any, latents: Tensor | None) -> Tensor:
        if latents is None:
            return randn_tensor(shape, generator=generator, device=self.device)
        if latents.shape != shape:
            raise ValueError(f"latents must be {shape}, got {tuple(latents.shape)}")
        return latents.to(self.device)

    def _decoded(self, latents: Tensor, kind: str) -> Any:
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.device, self.vae.dtype)
        with torch.autocast(self.vae.device.type, enabled=False):
            pixels = self.vae.decode(scaled).sample.float()
        return VaeImageProcessor(vae_scale_factor=self.vae_scale_factor).postprocess(pixels, kind)
