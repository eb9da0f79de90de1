"""Human preference scores v2.0 and v2.1: the cosine under two tunings of CLIP ViT-H/14."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from PIL.Image import Image
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import weights
from sdpo_exp.metrics.open_clip_cosine import VIT_H_14, OpenClipCosine

Version = Literal["v2.0", "v2.1"]
_FILES: dict[Version, str] = {
    "v2.0": "HPS_v2_compressed.pt",
    "v2.1": "HPS_v2.1_compressed.pt",
}
_NAMES: dict[Version, str] = {"v2.0": "hpsv2", "v2.1": "hpsv2.1"}


class HumanPreferenceScore:
    """Raw cosine, about 0.25 to 0.31; shown times 100. v2.0 and v2.1 are different scales.

    Args:
        cosine: the model.
        version: which of the two it is.
    """

    def __init__(self, cosine: OpenClipCosine, version: Version) -> None:
        self._cosine, self.name = cosine, _NAMES[version]

    @classmethod
    def from_pretrained(
        cls,
        version: Version = "v2.0",
        source: str = "xswu/HPSv2",
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> HumanPreferenceScore:
        """The released model.

        Args:
            version: v2.0 is what Diffusion-SDPO's evaluation reports.
            source: hub id, folder, or weight file.
            revision: of a hub id.
            device: where to compute.

        Raises:
            UserError: it cannot be had, is named as the other version, or is another model.
        """
        wanted = _FILES[version].removesuffix(".pt")
        file = weights.locate_file(source, revision, (f"{wanted}.pt", f"{wanted}.safetensors"))
        for other, name in _FILES.items():
            if other != version and file.name.startswith(name.removesuffix(".pt")):
                raise UserError(f"{file}: by its name HPS {other}, but version={version} is asked")
        return cls.from_state_dict(weights.read(file), version, device=device)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Any],
        version: Version = "v2.0",
        config: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> HumanPreferenceScore:
        """From weights in open_clip's layout, or the released dict that has them as `state_dict`.

        `config` as in open_clip's model configurations; None: ViT-H-14.

        Raises:
            UserError: they do not fit.
        """
        inner = state.get("state_dict", state)
        return cls(OpenClipCosine(inner, config or VIT_H_14, f"HPS {version}", device), version)

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """See `Scorer.score`."""
        return self._cosine(images, prompts)
