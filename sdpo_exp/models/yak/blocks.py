"""Yak's blocks: two streams with three attentions, one stream with a fused layer, the end.

The double block follows Stable Diffusion 3.5's (joint attention and a second one of the image
alone, MM-DiT-X), in the form that FLUX gives to blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdpo_exp.models.yak.config import YakConfig
from sdpo_exp.models.yak.layers import (
    EPS,
    Modulation,
    Projections,
    QueryKeyNorm,
    attend,
    gates,
    mlp,
    modulated,
    split_heads,
)
from sdpo_exp.models.yak.rope import Rotation


def plain_norm(width: int) -> nn.LayerNorm:
    """Layer normalisation without weights."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=EPS)


class DoubleBlock(nn.Module):
    """Text and image streams with their own weights that meet in one joint attention.

    The image stream has a second attention, among image rows only.
    """

    def __init__(self, config: YakConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.mlp_size
        attention = (width, config.num_heads, config.qkv_bias)
        self.img_mod = Modulation(width, 9)
        self.img_attn = Projections(*attention)
        self.img_self_attn = Projections(*attention)
        self.img_mlp = mlp(width, inner)
        self.txt_mod = Modulation(width, 6)
        self.txt_attn = Projections(*attention)
        self.txt_mlp = mlp(width, inner)
        self.norm = plain_norm(width)

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, turn: Rotation, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both streams, one block further.

        Args:
            img: (B, n, D) image rows, condition images among them.
            txt: (B, L, D) text rows.
            vec: (B, D) global vector.
            turn: of the L + n rows, text first.
            keys: bool (B, 1, 1, L + n), true where a key is seen; None: all are.
        """
        length = txt.shape[1]
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = self.img_mod(vec)
        txt_shift1, txt_scale1, txt_gate1, txt_shift2, txt_scale2, txt_gate2 = self.txt_mod(vec)

        flat = self.norm(img)
        of_text = self.txt_attn(modulated(self.norm(txt), txt_shift1, txt_scale1))
        of_image = self.img_attn(modulated(flat, shift1, scale1))
        q, k, v = (torch.cat(parts, dim=2) for parts in zip(of_text, of_image, strict=True))
        joint = attend(q, k, v, turn, keys)
        q, k, v = self.img_self_attn(modulated(flat, shift3, scale3))
        alone = attend(q, k, v, turn.rows(length))

        img = img + gate1 * self.img_attn.proj(joint[:, length:])
        img = img + gate3 * self.img_self_attn.proj(alone)
        img = img + gate2 * self.img_mlp(modulated(self.norm(img), shift2, scale2))
        txt = txt + txt_gate1 * self.txt_attn.proj(joint[:, :length])
        txt = txt + txt_gate2 * self.txt_mlp(modulated(self.norm(txt), txt_shift2, txt_scale2))
        return img, txt


class SingleBlock(nn.Module):
    """Attention and MLP side by side on text and image rows alike."""

    def __init__(self, config: YakConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.mlp_size
        self.heads, self.sizes = config.num_heads, (3 * width, inner)
        self.linear1 = nn.Linear(width, 3 * width + inner)
        self.linear2 = nn.Linear(width + inner, width)
        self.norm = QueryKeyNorm(config.head_dim)
        self.pre_norm = plain_norm(width)
        self.modulation = Modulation(width, 3)

    def forward(self, x: Tensor, vec: Tensor, turn: Rotation, keys: Tensor | None = None) -> Tensor:
        """x (B, L + n, D), one block further; the other arguments are the double block's."""
        shift, scale, gate = self.modulation(vec)
        both = self.linear1(modulated(self.pre_norm(x), shift, scale))
        qkv, inner = both.split(self.sizes, dim=-1)
        q, k, v = self.norm(*split_heads(qkv, self.heads))
        found = attend(q, k, v, turn, keys)
        inner = F.gelu(inner, approximate="tanh")
        return x + gate * self.linear2(torch.cat((found, inner), dim=-1))


class FinalLayer(nn.Module):
    """From the last hidden rows to the channels of tokens."""

    def __init__(self, config: YakConfig) -> None:
        super().__init__()
        self.norm_final = plain_norm(config.hidden_size)
        self.linear = nn.Linear(config.hidden_size, config.out_channels)
        self.adaLN_modulation = gates(config.hidden_size, 2)

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        """(B, n, D) and (B, D) -> (B, n, out_channels)."""
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(modulated(self.norm_final(x), shift, scale))
