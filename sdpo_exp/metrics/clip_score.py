"""CLIP score: the cosine under LAION's CLIP ViT-H/14."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sdpo_exp.metrics import weights
from sdpo_exp.metrics.open_clip_cosine import VIT_H_14, OpenClipCosine

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class ClipScore:
    """Raw cosine, about 0.30 to 0.38; shown times 100. Neither ViT-L/14's, nor clamped at 0.

    Args:
        cosine: the model.
    """

    name = "clip"

    def __init__(self, cosine: OpenClipCosine) -> None:
        self._cosine = cosine

    @classmethod
    def from_pretrained(
        cls,
        source: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> ClipScore:
        """The released model.

        Args:
            source: hub id, folder, or weight file in open_clip's layout.
            revision: of a hub id.
            device: where to compute.

        Raises:
            UserError: it cannot be had, or is another model.
        """
        file = weights.locate_file(source, revision, _FILES)
        return cls.from_state_dict(weights.read(file), device=device)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> ClipScore:
        """From weights in open_clip's layout.

        `config` as in open_clip's model configurations; None: ViT-H-14.

        Raises:
            UserError: they do not fit.
        """
        return cls(OpenClipCosine(state, config or VIT_H_14, "CLIP score", device))

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """See `Scorer.score`."""
        return self._cosine(images, prompts)
