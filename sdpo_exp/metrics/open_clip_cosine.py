"""Cosine of image and text under an open_clip model: the CLIP score, HPSv2 and HPSv2.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
import torch
from PIL.Image import Image
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import weights
from sdpo_exp.metrics.device import pick_device
from sdpo_exp.metrics.full_precision import full_precision
from sdpo_exp.metrics.preprocessing import pixels
from sdpo_exp.metrics.text_cache import TextCache

_CONTEXT = 77


class OpenClipCosine:
    """The two towers of one model, and open_clip's own tokenizer.

    That tokenizer mends text first (quotes, entities, full-width letters), which transformers'
    does not: its ids are not PickScore's.

    Args:
        state: in open_clip's layout.
        config: `embed_dim`, `vision_cfg`, `text_cfg` as in open_clip's model configurations.
        what: the model's name, for messages.
        device: where to compute.

    Raises:
        UserError: the weights do not fit, the configuration has quick GELU, or there is no such
            device.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        config: Mapping[str, Any],
        what: str,
        device: torch.device | str,
    ) -> None:
        if config.get("quick_gelu"):
            raise UserError(f"{what}: trained with exact GELU; the configuration has quick_gelu")
        self._device = pick_device(device)
        self._model = weights.build(lambda: open_clip.CLIP(**config), state, what).to(self._device)
        self.image_size = int(config["vision_cfg"]["image_size"])
        self._tokenizer = open_clip.SimpleTokenizer(context_length=_CONTEXT)
        self._texts = TextCache(self._encode)

    def _encode(self, prompts: list[str]) -> Tensor:
        return self._model.encode_text(self._tokenizer(prompts).to(self._device), normalize=True)

    def cut_prompts(self, prompts: Sequence[str]) -> int:
        """How many of the prompts have more than 77 tokens, ends included, and are cut."""
        return sum(len(self._tokenizer.encode(prompt)) + 2 > _CONTEXT for prompt in prompts)

    def __call__(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """Cosines float32 (B,) on the CPU; see `Scorer.score`."""
        batch = pixels(images, prompts, self.image_size)
        if not len(batch):
            return torch.empty(0)
        with full_precision(self._device):
            found = self._model.encode_image(batch.to(self._device), normalize=True)
            return (found * self._texts(prompts)).sum(-1).cpu()
