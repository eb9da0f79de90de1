"""CLIP score: the cosine under LAION's CLIP ViT-H/14."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sdpo_exp.metrics import files, weights
from sdpo_exp.metrics.open_clip_config import CONFIG_FILE, VIT_H_14, config_of
from sdpo_exp.metrics.open_clip_cosine import OpenClipCosine

_SOURCE = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class ClipScore(OpenClipCosine):
    """Raw cosine, about 0.30 to 0.38; shown times 100. Neither ViT-L/14's, nor clamped at 0."""

    name = "clip"

    @classmethod
    def from_pretrained(
        cls,
        source: str = _SOURCE,
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> ClipScore:
        """The released model.

        Args:
            source: hub id, folder, or weight file in open_clip's layout; a file
                `open_clip_config.json` beside the weights says of which network.
            revision: of a hub id.
            device: where to compute.

        Raises:
            UserError: it cannot be had, or is another model.
        """
        file = files.locate_file(source, revision, _FILES, optional=[CONFIG_FILE])
        scorer = cls.from_state_dict(weights.read(file), config_of(file), device)
        scorer.origin = files.origin(source, file)
        return scorer

    @classmethod
    def absent(cls, source: str = _SOURCE, revision: str | None = None, **_: Any) -> str | None:
        """Why `from_pretrained` would fail, a line per thing that is absent, or None."""
        return files.absent("metric.clip.source", source, revision, [_FILES])

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
        return cls(state, config or VIT_H_14, "CLIP score", device)
