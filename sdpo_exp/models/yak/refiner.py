"""The text refiner: two blocks over text states and a learned [CLS] row, without time.

The row is the pooled text vector. The blocks are gated by the text's own mean, as in
HunyuanVideo's token refiner; their gates start at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdpo_exp.models.yak.config import YakConfig
from sdpo_exp.models.yak.layers import EPS, attend, gates, split_heads

_BLOCKS = 2
# Both are the refiner's own whatever the configuration says of the blocks.
_MLP_RATIO = 4
_HEADS_FACTOR = 2
_CLS_STD = 1e-6


class _MeanEmbedder(nn.Module):
    """Text states' mean (B, C) -> (B, D)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, mean: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(mean)))


class _RefinerMlp(nn.Module):
    """(..., D) -> (..., D) with SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.silu(self.fc1(x)))


class RefinerBlock(nn.Module):
    """Attention without positions, then an MLP, each behind a gate."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.self_attn_qkv = nn.Linear(width, 3 * width)
        self.self_attn_proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = _RefinerMlp(width)
        self.adaLN_modulation = gates(width, 2)
        # Closed gates: a new refiner passes its input through.
        for parameter in self.adaLN_modulation.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, condition: Tensor, keys: Tensor | None = None) -> Tensor:
        """x (B, L + 1, D) and condition (B, D) -> (B, L + 1, D); keys bool (B, 1, 1, L + 1)."""
        gate_attention, gate_mlp = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        q, k, v = split_heads(self.self_attn_qkv(self.norm1(x)), self.heads)
        x = x + gate_attention * self.self_attn_proj(attend(q, k, v, keys=keys))
        return x + gate_mlp * self.mlp(self.norm2(x))


class _Blocks(nn.Module):
    """A level of the released parameter names; the refiner runs the blocks."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefinerBlock(width, heads) for _ in range(_BLOCKS))


class TextRefiner(nn.Module):
    """Text states (B, L, C) -> the text stream's first rows, and the pooled vector."""

    def __init__(self, config: YakConfig) -> None:
        super().__init__()
        width, inputs = config.hidden_size, config.context_in_dim
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        nn.init.normal_(self.cls_token, std=_CLS_STD)
        self.input_embedder = nn.Linear(inputs, width)
        self.c_embedder = _MeanEmbedder(inputs, width)
        self.individual_token_refiner = _Blocks(width, _HEADS_FACTOR * config.num_heads)

    @property
    def blocks(self) -> nn.ModuleList:
        """The two `RefinerBlock`s."""
        return self.individual_token_refiner.blocks

    def start(self, txt: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the blocks take: rows (B, L + 1, D) with [CLS] first, condition (B, D), keys.

        Args:
            txt: (B, L, C), zero in rows that are no text.
            mask: bool (B, L), true where a row is text; None: everywhere.
        """
        condition = self.c_embedder(_mean(txt, mask))
        rows = self.input_embedder(txt)
        cls = self.cls_token.to(rows.dtype).expand(len(rows), -1, -1)
        x = torch.cat((cls, rows), dim=1)
        keys = None if mask is None else F.pad(mask, (1, 0), value=True)[:, None, None]
        return x, condition, keys


def _mean(txt: Tensor, mask: Tensor | None) -> Tensor:
    """The mean (B, C) over the rows that are text; the others are zero."""
    if mask is None:
        return txt.mean(dim=1)
    total = txt.sum(dim=1, dtype=torch.float32)
    return (total / mask.sum(dim=1, keepdim=True)).to(txt.dtype)
