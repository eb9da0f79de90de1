"""Stable Diffusion XL: two CLIP text encoders, a pooled embedding, and six size conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sdpo_exp.models import checkpoint_folder
from sdpo_exp.models.families import Family
from sdpo_exp.models.latent_unet import LatentUNet
from sdpo_exp.models.stable_diffusion import token_ids
from sdpo_exp.types import Conditioning, Geometry

TimeIds = Literal["constant", "true"]


class StableDiffusionXL(LatentUNet):
    """SDXL checkpoints.

    Text states are both encoders' second to last hidden states side by side, (N, 77, 768 + 1280);
    the pooled embedding (N, 1280) is the second encoder's projection.

    Args:
        pretrained: hub id or folder.
        time_ids: `constant`: (R, R, 0, 0, R, R) for every image whatever its size and crop, as
            published; `true`: size and crop of the pair's winner, for both of its images.
        options: `LatentUNet`'s, by name.
    """

    FAMILY = Family(
        name="StableDiffusionXL",
        parts=(
            "unet", "vae", "text_encoder", "text_encoder_2",
            "tokenizer", "tokenizer_2", "scheduler",
        ),
        text_encoders=("text_encoder", "text_encoder_2"),
        added_conditions="text_time",
        latent_scale=0.13025,
    )  # fmt: skip
    PIPELINE = StableDiffusionXLPipeline

    def __init__(self, pretrained: str, *, time_ids: TimeIds = "constant", **options: Any) -> None:
        self._time_ids = time_ids
        super().__init__(pretrained, **options)

    def _load_text(self, dtype: torch.dtype) -> None:
        def part(kind: Any, name: str, *options: Any) -> Any:
            return checkpoint_folder.load_part(kind, self.folder / name, *options)

        self.tokenizer = part(CLIPTokenizer, "tokenizer")
        self.tokenizer_2 = part(CLIPTokenizer, "tokenizer_2")
        first = part(CLIPTextModel, "text_encoder", dtype, self._variant)
        second = part(CLIPTextModelWithProjection, "text_encoder_2", dtype, self._variant)
        self.text_encoder = first.requires_grad_(False).eval()
        self.text_encoder_2 = second.requires_grad_(False).eval()

    def _encode_text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        states = []
        for tokenizer, encoder in (
            (self.tokenizer, self.text_encoder),
            (self.tokenizer_2, self.text_encoder_2),
        ):
            ids = token_ids(tokenizer, prompts).to(encoder.device)
            output = encoder(ids, output_hidden_states=True)
            states.append(output.hidden_states[-2])
        return {"text": torch.cat(states, dim=-1), "pooled": output.text_embeds}

    def _geometry_conditions(
        self, geometry: Sequence[Geometry], device: torch.device
    ) -> dict[str, Tensor]:
        if self._time_ids == "constant":
            geometry = [Geometry(g.height, g.width, 0, 0, g.height, g.width) for g in geometry]
        return {"time_ids": torch.tensor(geometry, device=device)}

    def _unet_arguments(self, cond: Conditioning) -> dict[str, Any]:
        added = {"text_embeds": cond["pooled"], "time_ids": cond["time_ids"]}
        return {"encoder_hidden_states": cond["text"], "added_cond_kwargs": added}

    def _text_parts(self) -> dict[str, Any]:
        names = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
        return {name: getattr(self, name) for name in names}
