"""Stable Diffusion 1 and 2: one CLIP text encoder, epsilon or v as the checkpoint says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from sdpo_exp.models import checkpoint_folder
from sdpo_exp.models.families import Family
from sdpo_exp.models.latent_unet import LatentUNet
from sdpo_exp.types import Conditioning


class StableDiffusion(LatentUNet):
    """SD 1.x and 2.x checkpoints; arguments are `LatentUNet`'s.

    Text states are the encoder's last hidden states after its final norm, (N, 77, 768) in SD 1.5.
    """

    FAMILY = Family(
        name="StableDiffusion",
        parts=("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
        text_encoders=("text_encoder",),
        latent_scale=0.18215,
    )
    PIPELINE = StableDiffusionPipeline

    def _load_text(self, dtype: torch.dtype) -> None:
        self.tokenizer = checkpoint_folder.load_part(CLIPTokenizer, self.folder / "tokenizer")
        encoder = checkpoint_folder.load_part(
            CLIPTextModel, self.folder / "text_encoder", dtype, self._variant
        )
        self.text_encoder = encoder.requires_grad_(False).eval()

    def _encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        ids = token_ids(self.tokenizer, prompts).to(self.text_encoder.device)
        return {"text": self.text_encoder(ids).last_hidden_state}

    def _unet_arguments(self, cond: Conditioning) -> dict[str, Any]:
        return {"encoder_hidden_states": cond["text"]}

    def _text_parts(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "text_encoder": self.text_encoder}

    def _pipeline(self, network: nn.Module, vae: nn.Module, text: Any) -> StableDiffusionPipeline:
        unused = {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        return super()._pipeline(network, vae, {**text, **unused})


def token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """(N, 77) ids, cut and padded to the tokenizer's length."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return tokens.input_ids
