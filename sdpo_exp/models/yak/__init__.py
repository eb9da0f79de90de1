"""Yak, the visual generator of Ovis-U1, in plain torch: network, latents, sampler, weight files."""

from sdpo_exp.models.yak.config import YakConfig
from sdpo_exp.models.yak.network import YakTransformer

__all__ = ["YakConfig", "YakTransformer"]
