"""What the recipes of the world's base models fix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from sdpo_exp.models.pixel_backbone import Base, PixelBackbone
from sdpo_exp.models.tiny import TinyBackbone, build_tiny
from sdpo_exp.models.tiny_flow import TinyFlowBackbone, build_tiny_flow

Model = Literal["tiny", "tiny_flow"]


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
        swapped: share of images that show their caption's two colours the wrong way round.
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
    swapped: float = 0.0


class Recipe(NamedTuple):
    """Hyperparameters, and for how many steps."""

    steps: int
    hyper: Hyperparameters


FAMILIES: Mapping[Model, type[PixelBackbone]] = {
    "tiny": TinyBackbone,
    "tiny_flow": TinyFlowBackbone,
}
BUILDERS: Mapping[Model, Callable[[Sequence[str]], PixelBackbone]] = {
    "tiny": build_tiny,
    "tiny_flow": build_tiny_flow,
}

_FLOW_TEXT = ("text.", "network.time_text_embed.text_embedder.")
_SWAPPED = 0.45  # below one half, so that which colour goes where can be learnt from the captions

# `unfinished` stopped after minutes: speckled images, shapes at chance. `misbound` draws clean
# images and knows both colours of a caption, but not which is the shape's and which the ground's.
RECIPES: Mapping[Base, Mapping[Model, Recipe]] = {
    "misbound": {
        "tiny": Recipe(
            12_000,
            Hyperparameters(batch=32, lr=2e-3, warmup=200, ema_decay=0.999, swapped=_SWAPPED),
        ),
        "tiny_flow": Recipe(
            18_000,
            Hyperparameters(
                batch=32,
                lr=1.5e-3,
                warmup=200,
                ema_decay=0.999,
                text_lr_factor=0.25,
                text_path=_FLOW_TEXT,
                swapped=_SWAPPED,
            ),
        ),
    },
    "unfinished": {
        "tiny": Recipe(1_500, Hyperparameters()),
        "tiny_flow": Recipe(
            2_800, Hyperparameters(lr=2e-3, text_lr_factor=0.25, text_path=_FLOW_TEXT)
        ),
    },
}
