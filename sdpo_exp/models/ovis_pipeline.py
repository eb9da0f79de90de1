"""Text to image, and image editing, by Ovis-U1's parts, called as diffusers' pipelines are.

diffusers has no pipeline for this model; the released one runs code from the model's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from sdpo_exp.errors import UserError
from sdpo_exp.models import lora
from sdpo_exp.models.ovis_conditions import (
    EditConditions,
    edit_conditions,
    edit_sources,
    padded,
    pixels_of,
    states,
    velocity,
)
from sdpo_exp.models.ovis_text.encoder import OvisTextEncoder
from sdpo_exp.models.vae_latents import latents_of, vae_posterior
from sdpo_exp.models.yak.config import YakConfig
from sdpo_exp.models.yak.latents import PATCH, schedule
from sdpo_exp.models.yak.network import YakTransformer
from sdpo_exp.models.yak.sampling import sample_edit, sample_t2i
from sdpo_exp.types import Conditioning

_SIDE = 1024  # pixels of the released model
_TEXT_SCALE, _EDIT_SCALE = 5.0, 6.0  # its scripts' guidance


def _given(value: float | None, usual: float) -> float:
    return usual if value is None else value


def _velocity_under(network: YakTransformer, cond: Conditioning, x: Tensor, t: Tensor) -> Tensor:
    return velocity(network, x, t, cond)


def _nothing(x: Tensor, t: Tensor) -> Tensor:
    del t
    return torch.zeros_like(x)


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
    """Ovis-U1's sampler, of both tasks, around a network as it is; the parts are shared.

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
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        image: Image.Image | Sequence[Image.Image] | None = None,
        image_guidance_scale: float = 1.5,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generate images.

        Args:
            prompt: one or N prompts.
            height, width: in pixels; None: 1024, or an edit's own.
            num_inference_steps: Euler steps, two network evaluations each; three of an edit.
            guidance_scale: v = v_b + scale (v_c - v_b), v_b of the request for any image; 1 is the
                conditional model alone, at half the cost. None: 5, or 6 of an edit.
            num_images_per_prompt: images of one prompt stand next to each other.
            generator: of the noise, where `latents` are not given.
            latents: (images, 4, h, w) standard normal.
            output_type: "pil", "np", "pt", or "latent" (images, 4, h, w), scaled as in training.
            image: to edit as the prompt says: one for all prompts, or one per prompt. The result
                has the size that the model gives its source (`resizing.edit_size`).
            image_guidance_scale: s_img of v = v_b + s_img (v_i - v_b) + guidance (v_c - v_i), v_i
                of the image without the prompt.

        Raises:
            UserError: another sampler was put in the place of its own, or a prompt has a
                placeholder of its own, or images to edit are of several sizes, or of another one
                than is asked for.
            ValueError: latents of another shape.
        """
        self._check_sampler()
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        pictures = None
        if image is not None:
            found = edit_sources(image, len(prompts), (height, width))
            width, height = found[0].size
            pictures = [picture for picture in found for _ in range(num_images_per_prompt)]
        prompts = [text for text in prompts for _ in range(num_images_per_prompt)]
        channels, rows, columns = self.latent_shape(height, width)
        shape = (len(prompts), channels, rows, columns)
        x = self._noise(shape, generator, latents)
        size = (rows * self.vae_scale_factor, columns * self.vae_scale_factor)
        times = self.scheduler.times(num_inference_steps, rows * columns // PATCH**2)
        if pictures is None:
            x = self._sampled(x, times, prompts, size, _given(guidance_scale, _TEXT_SCALE))
        else:
            source = self._encoded(pictures, generator)
            asked = edit_conditions(self.text_encoder, prompts, pictures, source)
            scales = (image_guidance_scale, _given(guidance_scale, _EDIT_SCALE))
            x = self._edited(x, times, asked, scales)
        images = x if output_type == "latent" else self._decoded(x, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _check_sampler(self) -> None:
        if not isinstance(self.scheduler, OvisSchedule):
            raise UserError(
                "sampler: Ovis-U1 is sampled by Euler's method on times of its own; leave sampler "
                "out"
            )

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

    def _edited(
        self, x: Tensor, times: Tensor, asked: EditConditions, scales: tuple[float, float]
    ) -> Tensor:
        full, image, bare = (partial(_velocity_under, self.transformer, cond) for cond in asked)
        return sample_edit(
            x, times, full, image, bare, scales[0], scales[1], official_times=self.official_times
        )

    def _encoded(self, pictures: Sequence[Image.Image], generator: Any) -> Tensor:
        """Latents of pictures to edit, of the posterior's noise that follows the image's own."""

        def draw(shape: Sequence[int]) -> Tensor:
            return randn_tensor((len(pictures), *shape), generator=generator, device=self.device)

        pixels = pixels_of(pictures).to(self.vae.device)
        posterior = vae_posterior(self.vae, pixels, len(pictures), PATCH)
        return latents_of(posterior, "sample", draw, self.vae.config)

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
