"""Ovis-U1's class around a generator and a VAE of full size that were never trained.

The text side is left out: states of the released width and a usual length are drawn in its place,
so a step's cost is the generator's and the VAE's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdpo_exp.models.flow_process import FlowProcess
from sdpo_exp.models.ovis_u1 import OvisU1
from sdpo_exp.models.yak import YakConfig, YakTransformer

LENGTH = 291  # rows of "a cute cat" beside a square blank
PARAMETERS = 1_127_227_408
_SMALL = {"hidden_size": 32, "vec_in_dim": 32, "context_in_dim": 64, "num_heads": 2, "depth": 1,
          "depth_single_blocks": 2, "axes_dim": (4, 6, 6), "mlp_ratio": 2}  # fmt: skip


class RandomStates:
    """A text encoder's place: states (LENGTH, width) per prompt, the same at every call."""

    def __init__(self, width: int, device: str) -> None:
        self._rows = torch.randn(LENGTH, width, device=device)

    def encode(self, prompts: Sequence[str], size: tuple[int, int], kind: str) -> list[Tensor]:
        """As `OvisTextEncoder.encode`."""
        del size, kind
        return [self._rows for _ in prompts]

    def to(self, device: torch.device) -> None:
        """Move them."""
        self._rows = self._rows.to(device)


def random_ovis_u1(small: bool, device: str, vae: AutoencoderKL) -> Any:
    """The backbone; its VAE is the caller's."""
    backbone: Any = OvisU1.__new__(OvisU1)
    config = YakConfig(**_SMALL) if small else YakConfig()
    with torch.device(device):
        backbone.denoiser = YakTransformer(config)
    backbone.vae, backbone.text_encoder = vae, RandomStates(config.context_in_dim, device)
    backbone._latents, backbone._encode_batch, backbone._vae_dtype = "sample", 8, "auto"
    backbone.process = FlowProcess("logit_normal", shift="resolution")
    return backbone
