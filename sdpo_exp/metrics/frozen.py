"""What scores by a frozen model share: how images get to it, and how prompts are cut for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor

from sdpo_exp.metrics import files
from sdpo_exp.metrics.device import pick_device
from sdpo_exp.metrics.full_precision import full_precision
from sdpo_exp.metrics.preprocessing import pixels
from sdpo_exp.metrics.text_length import count_longer


class FrozenScorer:
    """A score by a model that takes square images; a subclass implements `_measure`.

    Args:
        image_size: side of the square that the model takes, in pixels.
        device: where to compute; the subclass moves its model to `_device`.

    Raises:
        UserError: there is no such device.
    """

    name: str
    display_scale: float

    def __init__(self, image_size: int, device: torch.device | str) -> None:
        self._device, self._size = pick_device(device), image_size
        self.image_size: int | None = image_size
        self.origin: Mapping[str, Any] = {}

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """See `Scorer.score`."""
        batch = pixels(images, prompts, self._size)
        if not len(batch):
            return torch.empty(0)
        with full_precision(self._device):
            return self._measure(batch.to(self._device), prompts).cpu()

    def _measure(self, batch: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) of B >= 1 normalised images (B, 3, S, S), on the scorer's device."""
        raise NotImplementedError


class TokenizedScorer(FrozenScorer):
    """A score whose prompts go through a tokenizer of transformers, at its own place.

    A subclass names the places of the released files, which `from_pretrained` takes by default,
    and how many tokens its text encoder reads.

    Args:
        tokenizer: of the text encoder.
        image_size, device: `FrozenScorer`'s.
    """

    SOURCE: ClassVar[str]
    FILES: ClassVar[Sequence[Sequence[str]]]
    TOKENIZER: ClassVar[str]
    CONTEXT: ClassVar[int]

    def __init__(self, tokenizer: Any, image_size: int, device: torch.device | str) -> None:
        super().__init__(image_size, device)
        self._tokenizer = tokenizer

    @classmethod
    def absent(
        cls,
        source: str | None = None,
        revision: str | None = None,
        tokenizer: str | None = None,
        **_: Any,
    ) -> str | None:
        """Why `from_pretrained` would fail, a line per thing that is absent, or None.

        None stands for the released files.
        """
        key = f"metric.{cls.name}"
        weights = cls.SOURCE if source is None else source
        words = cls.TOKENIZER if tokenizer is None else tokenizer
        return files.together(
            files.absent(f"{key}.source", weights, revision, cls.FILES),
            files.absent_tokenizer(f"{key}.tokenizer", words),
        )

    def cut_prompts(self, prompts: Sequence[str]) -> int:
        """How many of the prompts have more than `CONTEXT` tokens, ends included, and are cut."""
        return count_longer(self._tokenizer, prompts, self.CONTEXT)

    def _tokens(self, prompts: Sequence[str]) -> Any:
        """`input_ids` and `attention_mask` (N, CONTEXT), cut and padded, on the device."""
        return self._tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.CONTEXT,
            return_tensors="pt",
        ).to(self._device)
