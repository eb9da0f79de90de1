"""Ovis-Image (arXiv 2511.22982): a transformer over packed FLUX latents and Qwen3 text states.

diffusers' own classes throughout: prompts are encoded and latents are packed by the pipeline's
methods, so that training asks the transformer what sampling asks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import OvisImagePipeline
from torch import Tensor, nn
from transformers import Qwen2TokenizerFast, Qwen3Model

from sdpo_exp.errors import UserError
from sdpo_exp.models import checkpoint_folder
from sdpo_exp.models.families import Family
from sdpo_exp.models.flow_process import FlowProcess, resolution_line
from sdpo_exp.models.latent import LatentBackbone
from sdpo_exp.types import Conditioning


class OvisImage(LatentBackbone):
    """Ovis-Image checkpoints, whose transformer predicts noise minus image.

    Text states are the encoder's last hidden states of the pipeline's chat template, without its
    first 28 tokens and 0 where padded, (N, 256, 2048): the padding is attended to, as in the
    pipeline. The empty prompt is the pipeline's unconditional one.

    Args:
        pretrained: hub id or folder.
        process: of the training's times; shifts by resolution that it leaves out (None) are the
            checkpoint's scheduler's. None: logit-normal(0, 1), shifted as the sampler's times are;
            what the model itself was trained with is not published.
        options: `LatentBackbone`'s, by name.

    Raises:
        UserError: a part cannot be had or does not fit; the message names it.
    """

    FAMILY = Family(
        name="OvisImage",
        parts=("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        text_encoders=("text_encoder",),
        latent_scale=0.3611,
        part="transformer",
        network="OvisImageTransformer2DModel",
        text_width="joint_attention_dim",
        patch=2,
    )
    PIPELINE = OvisImagePipeline

    def __init__(
        self, pretrained: str, *, process: FlowProcess | None = None, **options: Any
    ) -> None:
        self._asked = process
        super().__init__(pretrained, **options)

    def _process(self) -> FlowProcess:
        return (self._asked or _usual_process(self.scheduler_config)).completed(
            *_shifts(self.scheduler_config)
        )

    def _load_text(self, dtype: torch.dtype) -> None:
        folder = self.folder
        self.tokenizer = checkpoint_folder.load_part(Qwen2TokenizerFast, folder / "tokenizer")
        if self.tokenizer.chat_template is None:
            raise UserError(
                f"{folder}/tokenizer: has no chat template, which prompts are wrapped in: add the "
                "model's chat_template.jinja"
            )
        encoder = checkpoint_folder.load_part(
            Qwen3Model, folder / "text_encoder", dtype, self._variant
        )
        self.text_encoder = encoder.requires_grad_(False).eval()

    def _encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        text, *_ = self.pipeline().encode_prompt(
            list(prompts), do_classifier_free_guidance=False, device=self.text_encoder.device
        )
        return {"text": text}

    def _predict(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Velocity (N, 16, h, w) at times t (N,) in (0, 1)."""
        count, channels, height, width = x_t.shape
        text, of_image = cond["text"], (count, height // 2, width // 2, x_t.device, torch.float32)
        place = torch.arange(text.shape[1], dtype=torch.float32, device=text.device)
        tokens = network(
            hidden_states=OvisImagePipeline._pack_latents(
                x_t.contiguous(), count, channels, height, width
            ),
            timestep=t,
            encoder_hidden_states=text,
            txt_ids=torch.stack([torch.zeros_like(place), place, place], dim=-1),
            img_ids=OvisImagePipeline._prepare_latent_image_ids(*of_image),
            return_dict=False,
        )[0]
        velocity: Tensor = OvisImagePipeline._unpack_latents(tokens, height, width, 1)
        return velocity

    def _text_parts(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "text_encoder": self.text_encoder}


def _usual_process(scheduler: Mapping[str, Any]) -> FlowProcess:
    if scheduler.get("use_dynamic_shifting"):
        return FlowProcess("logit_normal", shift="resolution", base_shift=None, max_shift=None)
    return FlowProcess("logit_normal", shift="static", shift_factor=scheduler.get("shift", 1.0))


def _shifts(scheduler: Mapping[str, Any]) -> tuple[float, float]:
    """log of the sampler's shift at 256 and at 4096 tokens, with the pipeline's defaults."""
    return resolution_line(
        (scheduler.get("base_image_seq_len", 256), scheduler.get("base_shift", 0.5)),
        (scheduler.get("max_image_seq_len", 4096), scheduler.get("max_shift", 1.15)),
    )
