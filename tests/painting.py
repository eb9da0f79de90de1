"""A model, prompts and a score whose pictures one can work out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdpo_exp.types import Prompt
from tests.harness import SmallBackbone


class Painter:
    """A pipeline in three lines: grey plus noise plus the denoiser's last bias."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.unet, self.components = denoiser, {"unet": denoiser}
        self.device = torch.device("cpu")
        denoiser.config = SimpleNamespace(in_channels=3, sample_size=8)  # type: ignore[assignment]
        denoiser.dtype = torch.float32  # type: ignore[assignment]

    def __call__(
        self,
        prompt: Sequence[str],
        guidance_scale: float,
        num_inference_steps: int,
        generator: Any,
        latents: Tensor,
        output_type: str,
        return_dict: bool,
    ) -> tuple[Any]:
        assert not self.unet.training
        bias = self.unet.last.bias.view(1, 3, 1, 1)
        return ((0.5 + 0.1 * latents + 10 * bias).permute(0, 2, 3, 1).numpy(),)


class Paints(SmallBackbone):
    def pipeline(self) -> Painter:
        return Painter(self.denoiser)


class Two:
    name = "two"

    def __init__(self, count: int = 3) -> None:
        self.count = count

    def prompts(self) -> list[Prompt]:
        return [Prompt(i, f"picture {i}") for i in range(self.count)]

    def fingerprint(self) -> str:
        return f"{self.count} pictures"


class Red:
    """Mean of the red channel, in levels."""

    name, display_scale, image_size = "red", 1.0, None

    def score(self, images: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        assert len(images) == len(prompts)
        return torch.tensor([float(np.asarray(image)[..., 0].mean()) for image in images])
