"""Cosine of image and text under an open_clip model: the CLIP score, HPSv2 and HPSv2.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import weights
from sdpo_exp.metrics.frozen import FrozenScorer
from sdpo_exp.metrics.text_cache import TextCache

_CONTEXT = 77


class OpenClipCosine(FrozenScorer):
    """The two towers of one model, and open_clip's own tokenizer; a subclass names the score.

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

    display_scale = 100.0

    def __init__(
        self,
        state: Mapping[str, Any],
        config: Mapping[str, Any],
        what: str,
        device: torch.device | str,
    ) -> None:
        if config.get("quick_gelu"):
            raise UserError(f"{what}: trained with exact GELU; the configuration has quick_gelu")
        super().__init__(int(config["vision_cfg"]["image_size"]), device)
        self._model = weights.build(lambda: open_clip.CLIP(**config), state, what).to(self._device)
        self._tokenizer = open_clip.SimpleTokenizer(context_length=_CONTEXT)
        self._texts = TextCache(self._encode)

    def _encode(self, prompts: list[str]) -> Tensor:
        return self._model.encode_text(self._tokenizer(prompts).to(self._device), normalize=True)

    def cut_prompts(self, prompts: Sequence[str]) -> int:
        """How many of the prompts have more than 77 tokens, ends included, and are cut."""
        return sum(len(self._tokenizer.encode(prompt)) + 2 > _CONTEXT for prompt in prompts)

    def _measure(self, batch: Tensor, prompts: Sequence[str]) -> Tensor:
        found = self._model.encode_image(batch, normalize=True)
        return (found * self._texts(prompts)).sum(-1)
