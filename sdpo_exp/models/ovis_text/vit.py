"""Ovis-U1's visual tokenizer: AIMv2 in plain torch, and the head that names visual words.

Parameter names, and what they do, are those of the released model
(https://huggingface.co/AIDC-AI/Ovis-U1-3B), under `visual_tokenizer.`. Window attention, which the
model's class knows and its configuration does not use, is left out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdpo_exp.models.ovis_text.vit_blocks import Block, RMSNorm, ViTConfig, rotation

INDICATORS = 4  # rows of the visual vocabulary kept for the marks around a picture


def grid_places(
    height: int, width: int, stride: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Line and column (N,) of each patch of a grid, in the order of `image_rows.patch_rows`."""
    order = torch.arange(height * width, device=device)
    tiled = order.reshape(height // stride, stride, width // stride, stride).transpose(1, 2)
    order = tiled.flatten()
    return order // width, order % width


class Patchifier(nn.Module):
    """Pixels of a patch to a vector: a convolution with bias, and a norm."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.proj = nn.Conv2d(config.num_channels, config.hidden_size, patch, stride=patch)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, channels patch^2) -> (N, hidden)."""
        # Patches do not overlap, so the convolution is a linear map of each row.
        return self.norm(F.linear(rows, self.proj.weight.flatten(1), self.proj.bias))


class Preprocessor(nn.Module):
    """Patches and where they are: a table of positions, bicubically drawn to the grid at hand."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        places = (config.image_size // config.patch_size) ** 2
        self.patchifier = Patchifier(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, places, config.hidden_size))

    def forward(self, rows: Tensor, y: Tensor, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Rows (N, channels patch^2) at lines y and columns x of `grid` -> (N, hidden)."""
        return self.patchifier(rows) + self.table(grid)[y, x]

    def table(self, grid: tuple[int, int]) -> Tensor:
        """Positions (lines, columns, hidden) of a grid."""
        side = math.isqrt(self.pos_embed.shape[1])
        square = self.pos_embed.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        drawn = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
        return drawn[0].permute(1, 2, 0)


class Trunk(nn.Module):
    """The blocks. `post_trunk_norm` is part of the checkpoint; the features are taken before it."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.post_trunk_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class AIMv2(nn.Module):
    """The vision transformer.

    Args:
        config: its shape.
        angle_dtype: in which the rotations are computed; see `vit_blocks.rotation`.
    """

    def __init__(self, config: ViTConfig, angle_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.angle_dtype = config, angle_dtype
        self.preprocessor = Preprocessor(config)
        self.trunk = Trunk(config)

    def forward(self, rows: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """One picture's rows (N, channels patch^2) and its grid -> features (N, hidden).

        Features are the last block's output before `post_trunk_norm`.

        Raises:
            ValueError: the grid is not of one picture with N patches.
        """
        frames, height, width = grid
        if frames != 1 or len(rows) != height * width:
            raise ValueError(f"{len(rows)} rows are not one picture of the grid {grid}")
        y, x = grid_places(height, width, self.config.hidden_stride, rows.device)
        head = self.config.hidden_size // self.config.num_attention_heads
        turn = rotation(y, x, head, self.angle_dtype)
        states = self.preprocessor(rows, y, x, (height, width))
        for block in self.trunk.blocks:
            states = block(states, turn)
        return states


class VisualTokenizer(nn.Module):
    """Soft visual words of a picture.

    Args:
        config: of the ViT.
        vocabulary: rows of the embedding table; the head names all but the last four.
        angle_dtype: as for `AIMv2`.
    """

    def __init__(
        self, config: ViTConfig, vocabulary: int, angle_dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        width = config.hidden_size * config.hidden_stride**2
        self.backbone = AIMv2(config, angle_dtype)
        self.head = nn.Sequential(
            nn.Linear(width, vocabulary - INDICATORS, bias=False),
            nn.LayerNorm(vocabulary - INDICATORS),
        )

    def forward(self, rows: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """One picture's rows and grid -> probabilities (tokens, vocabulary), each row's sum 1.

        The softmax is taken in float32 and cast back; the last four columns are zero.
        """
        features = self.backbone(rows, grid)
        stride = self.backbone.config.hidden_stride
        logits = self.head(features.reshape(len(features) // stride**2, -1))
        words = logits.softmax(-1, dtype=torch.float32).to(logits.dtype)
        return F.pad(words, (0, INDICATORS))
