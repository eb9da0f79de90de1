"""What the recipes of the world's base models fix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from sdpo_exp.models.pixel_backbone import PixelBackbone
from sdpo_exp.models.tiny import TinyBackbone, build_tiny, build_tiny_wide_attention
from sdpo_exp.models.tiny_flow import TinyFlowBackbone, build_tiny_flow

Model = Literal["tiny", "tiny_flow"]
BaseName = Literal["lazy", "unfinished"]


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What the recipe fixes.

    Attributes:
        caption_dropout: share of captions that are replaced by the empty one.
        token_std: standard deviation of fresh word embeddings.
        text_lr_factor: learning rate of the text path (encoder and pooled embedding) over `lr`.
            At 1, the background colour, which moves every pixel, takes over the normalised text
            features: after 1,500 steps another position moved the pooled embedding by 0.8 % of
            its norm, and 8 % of the positions were right.
        text_path: beginnings of the names of what is trained at that rate.
        lazy: share of captioned images that show a small circle at the centre whatever else is
            asked for, in the right colours. Images without a caption are never drawn so; they
            would make such images what guidance leads away from.
        lazy_after: share of the steps after which there are such images.
    """

    batch: int = 16
    lr: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 50
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.99
    caption_dropout: float = 0.1
    token_std: float = 0.3
    text_lr_factor: float = 0.05
    text_path: tuple[str, ...] = ("text.", "network.add_embedding.")
    lazy: float = 0.0
    lazy_after: float = 0.0


class Recipe(NamedTuple):
    """Hyperparameters, for how many steps, and the architecture with random weights."""

    steps: int
    hyper: Hyperparameters
    build: Callable[[Sequence[str]], PixelBackbone] = build_tiny


FAMILIES: Mapping[Model, type[PixelBackbone]] = {
    "tiny": TinyBackbone,
    "tiny_flow": TinyFlowBackbone,
}

_FLOW_TEXT = ("text.", "network.time_text_embed.text_embedder.")
_LAZY = Hyperparameters(
    batch=32,
    lr=2e-3,
    warmup=200,
    ema_decay=0.999,
    text_lr_factor=0.1,
    lazy=0.5,
    lazy_after=0.75,
)

# `unfinished` stopped after minutes: speckled images, shapes at chance. `lazy` draws clean images
# and knows what every word means, but falls back on a small circle at the centre half of the time.
RECIPES: Mapping[BaseName, Mapping[Model, Recipe]] = {
    "lazy": {
        "tiny": Recipe(12_000, _LAZY),
        "tiny_flow": Recipe(
            18_000,
            dataclasses.replace(_LAZY, lr=1.5e-3, text_lr_factor=0.25, text_path=_FLOW_TEXT),
            build_tiny_flow,
        ),
    },
    "unfinished": {
        "tiny": Recipe(1_500, Hyperparameters(), build_tiny_wide_attention),
        "tiny_flow": Recipe(
            2_800,
            Hyperparameters(lr=2e-3, text_lr_factor=0.25, text_path=_FLOW_TEXT),
            build_tiny_flow,
        ),
    },
}
