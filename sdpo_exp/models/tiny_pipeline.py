"""The diffusers pipelines of pixel-shuffle models: text to 32 px images, no VAE.

diffusers has no pipeline class for a text-conditional network without a VAE, so these are ours; the
parts are all diffusers' and transformers' own classes. An exported folder carries a copy of this
file as `pipeline.py`, which therefore imports nothing of `sdpo_exp`: the folder loads without it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import (
    DiffusionPipeline,
    ImagePipelineOutput,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from diffusers.schedulers import DPMSolverMultistepScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, PreTrainedTokenizerFast

_UNSHUFFLE = 2


class PixelShufflePipeline(DiffusionPipeline):
    """Text to image by a UNet over pixel-unshuffled images.

    Args:
        unet: predicts v from (N, 12, 16, 16), timesteps and text states.
        text_encoder: its last hidden states are the text states.
        tokenizer: pads and cuts to its `model_max_length`.
        scheduler: its configuration gives the noise schedule; sampling is by second-order
            DPM-Solver++, whatever its class, unless another is put in its place afterwards.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: Any,
    ) -> None:
        super().__init__()
        solver = DPMSolverMultistepScheduler.from_config(scheduler.config)
        self.register_modules(
            unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=solver
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 2.0,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generate images.

        Args:
            prompt: one or N prompts.
            negative_prompt: what guidance leads away from; the empty prompt by default.
            num_inference_steps: network evaluations per image (and branch).
            guidance_scale: 1 is the conditional model alone, at half the cost.
            num_images_per_prompt: images of one prompt stand next to each other.
            generator: of the initial noise, where `latents` are not given.
            latents: (images, 12, 16, 16) standard normal, where the trajectories start.
            output_type: "pil", "np" (images, 32, 32, 3) in [0, 1], or "pt" (images, 3, 32, 32) in
                [-1, 1].

        Raises:
            ValueError: negative prompts or latents do not fit the prompts in number or shape.
        """
        prompts = _repeat(prompt, num_images_per_prompt)
        negative = [""] if negative_prompt is None else _repeat(negative_prompt, 1)
        if len(negative) not in (1, len(prompts) // num_images_per_prompt):
            raise ValueError(f"{len(negative)} negative prompts for {len(prompts)} images")
        against = _repeat(negative, len(prompts) // len(negative))
        x = self._start(len(prompts), generator, latents)
        text = self._encode(prompts)
        unguided = None if guidance_scale == 1.0 else self._encode(against)
        x = x * self._prepare(num_inference_steps)
        for t in self.progress_bar(self.scheduler.timesteps):
            scaled = self._scaled(x, t)
            prediction = self._predict(scaled, t, text)
            if unguided is not None:
                against_it = self._predict(scaled, t, unguided)
                prediction = torch.lerp(against_it, prediction, guidance_scale)
            x = self.scheduler.step(prediction, t, x).prev_sample
        images = _output(functional.pixel_shuffle(x.float(), _UNSHUFFLE).clamp(-1, 1), output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _start(
        self,
        count: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None,
    ) -> Tensor:
        config = self.network.config
        shape = (count, config.in_channels, config.sample_size, config.sample_size)
        if latents is None:
            device, dtype = self.device, self.network.dtype
            return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        if latents.shape != shape:
            raise ValueError(f"latents must be {shape}, got {tuple(latents.shape)}")
        return latents.to(self.device, self.network.dtype)

    @property
    def network(self) -> Any:
        """The denoiser."""
        return self.unet

    def _prepare(self, steps: int) -> float:
        """Set the steps; what the noise is multiplied by at the first of them."""
        self.scheduler.set_timesteps(steps)
        return float(self.scheduler.init_noise_sigma)

    def _scaled(self, x: Tensor, t: Tensor) -> Tensor:
        return self.scheduler.scale_model_input(x, t)

    def _encode(self, prompts: list[str]) -> Any:
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.text_encoder.device)
        return self.text_encoder(ids)

    def _predict(self, x: Tensor, t: Tensor, text: Any) -> Tensor:
        x, states = x.contiguous(memory_format=torch.channels_last), text.last_hidden_state
        return self.unet(x, t.expand(len(x)).to(x.device), encoder_hidden_states=states).sample


class PixelShuffleFlowPipeline(PixelShufflePipeline):
    """Text to image by a joint-attention transformer that predicts velocity.

    Args:
        transformer: predicts noise minus image from (N, 12, 16, 16), 1000 t and text states.
        text_encoder: its last hidden states, and their pooled one, are what the transformer reads.
        tokenizer: pads and cuts to its `model_max_length`.
        scheduler: FlowMatchEulerDiscreteScheduler, or another that takes `sigmas`; steps are even
            in t before its shift.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: Any,
    ) -> None:
        DiffusionPipeline.__init__(self)
        self.register_modules(
            transformer=transformer,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )

    @property
    def network(self) -> Any:
        """The denoiser."""
        return self.transformer

    def _prepare(self, steps: int) -> float:
        # Without these the last two of its own steps are 0.001 apart.
        self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps))
        return 1.0

    def _scaled(self, x: Tensor, t: Tensor) -> Tensor:
        del t
        return x

    def _predict(self, x: Tensor, t: Tensor, text: Any) -> Tensor:
        return self.transformer(
            hidden_states=x,
            timestep=t.expand(len(x)).to(x.device),
            encoder_hidden_states=text.last_hidden_state,
            pooled_projections=text.pooler_output,
        ).sample


def _repeat(prompt: str | list[str], times: int) -> list[str]:
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    return [text for text in prompts for _ in range(times)]


def _output(images: Tensor, kind: str) -> Any:
    if kind == "pt":
        return images
    array = (images / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy()
    return array if kind == "np" else DiffusionPipeline.numpy_to_pil(array)
