"""The network of ImageReward: BLIP's image and text encoders and a head, in transformers' parts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig, BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from sdpo_exp.metrics.affine_head import affine_head

_HEAD_WIDTH = 64
_BLOCK, _LAYER = r"blip\.visual_encoder\.blocks\.(\d+)\.", r"vision.encoder.layers.\1."
# Original name -> ours, tried in this order; a name that none fits stays as it is.
_RENAMES = (
    (r"blip\.visual_encoder\.cls_token", "vision.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed", "vision.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (rf"{_BLOCK}norm(\d)\.", rf"{_LAYER}layer_norm\2."),
    (rf"{_BLOCK}attn\.qkv\.", rf"{_LAYER}self_attn.qkv."),
    (rf"{_BLOCK}attn\.proj\.", rf"{_LAYER}self_attn.projection."),
    (rf"{_BLOCK}mlp\.", rf"{_LAYER}mlp."),
    (r"blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"blip\.text_encoder\.", "text."),
    (r"mlp\.layers\.", "head."),
)


@dataclass(frozen=True)
class BlipSizes:
    """Sizes of the network; the defaults are the released one's.

    Heads are 64 wide in both encoders: the weights do not show it, and transformers' own default
    for the text is another. Cross-attention takes the image encoder's width.
    """

    vision_width: int = 1024
    vision_inner: int = 4096
    vision_layers: int = 24
    image_size: int = 224
    patch_size: int = 16
    text_width: int = 768
    text_inner: int = 3072
    text_layers: int = 12
    vocabulary: int = 30524
    positions: int = 512

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> BlipSizes:
        """The sizes of weights under the names of `BlipReward`; the released where they do not say.

        Then, and where they contradict themselves, loading them tells what is wrong.
        """
        try:
            patch = state["vision.embeddings.patch_embedding.weight"].shape
            words = state["text.embeddings.word_embeddings.weight"].shape
            places = state["vision.embeddings.position_embedding"].shape[1]
            sizes = cls(
                vision_width=patch[0],
                vision_inner=state["vision.encoder.layers.0.mlp.fc1.weight"].shape[0],
                vision_layers=_layers(state, r"vision\.encoder\.layers"),
                image_size=patch[-1] * math.isqrt(places - 1),
                patch_size=patch[-1],
                text_width=words[1],
                text_inner=state["text.encoder.layer.0.intermediate.dense.weight"].shape[0],
                text_layers=_layers(state, r"text\.encoder\.layer"),
                vocabulary=words[0],
                positions=state["text.embeddings.position_embeddings.weight"].shape[0],
            )
        except (KeyError, AttributeError, IndexError, ValueError):
            return cls()
        return (
            cls() if sizes.vision_width % _HEAD_WIDTH or sizes.text_width % _HEAD_WIDTH else sizes
        )

    def vision(self) -> BlipVisionConfig:
        """ViT-L/16, pre-norm with eps 1e-6."""
        return BlipVisionConfig(
            hidden_size=self.vision_width,
            intermediate_size=self.vision_inner,
            num_hidden_layers=self.vision_layers,
            num_attention_heads=self.vision_width // _HEAD_WIDTH,
            image_size=self.image_size,
            patch_size=self.patch_size,
            hidden_act="gelu",
            layer_norm_eps=1e-6,
            attention_dropout=0.0,
        )

    def text(self) -> BlipTextConfig:
        """BERT-base with cross-attention, which `is_decoder` builds; it is run as an encoder."""
        return BlipTextConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.text_width,
            encoder_hidden_size=self.vision_width,
            intermediate_size=self.text_inner,
            num_hidden_layers=self.text_layers,
            num_attention_heads=self.text_width // _HEAD_WIDTH,
            max_position_embeddings=self.positions,
            hidden_act="gelu",
            layer_norm_eps=1e-12,
            is_decoder=True,
            # Only for generating text, and outside a small vocabulary.
            bos_token_id=None,
            sep_token_id=None,
        )


class BlipReward(nn.Module):
    """Images and token ids to one number each, before it is standardised."""

    def __init__(self, sizes: BlipSizes) -> None:
        super().__init__()
        self.vision = BlipVisionModel(sizes.vision())
        self.text = BlipTextModel(sizes.text(), add_pooling_layer=False)
        self.head = affine_head(sizes.text_width)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Rewards (B,) of pixels (B, 3, s, s) under ids (B, L) with mask (B, L), 1 where text."""
        image = self.vision(pixel_values=pixels).last_hidden_state
        text = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=image,
            use_cache=False,
            # As a decoder it would not let [CLS] see any word.
            is_decoder=False,
        )
        return self.head(text.last_hidden_state[:, 0]).squeeze(-1)


def renamed(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state` in the original layout under the names of `BlipReward`."""
    return {_rename(name): value for name, value in state.items()}


def _layers(state: Mapping[str, Any], stem: str) -> int:
    return len({found[1] for name in state if (found := re.match(rf"{stem}\.(\d+)\.", name))})


def _rename(name: str) -> str:
    for pattern, ours in _RENAMES:
        found, count = re.subn(f"^{pattern}", ours, name)
        if count:
            return found
    return name
