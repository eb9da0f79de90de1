"""The parts of AIMv2, Ovis-U1's vision transformer, under the released parameter names."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROPE_BASE = 10000.0


class ViTConfig(NamedTuple):
    """Shape of the network; defaults are Ovis-U1's AIMv2-large."""

    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 24
    num_attention_heads: int = 8
    num_channels: int = 3
    image_size: int = 448
    patch_size: int = 14
    rms_norm_eps: float = 1e-5
    qkv_bias: bool = False
    use_bias: bool = False
    hidden_stride: int = 2


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) in float32, cast back, times `weight`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape and dtype."""
        exact = x.float()
        scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.eps)
        return (exact * scale).to(x.dtype) * self.weight


class Rotation(NamedTuple):
    """Cosine and sine (N, 1, head/2) of each row's angles, float32."""

    cos: Tensor
    sin: Tensor


def rotation(y: Tensor, x: Tensor, head: int, dtype: torch.dtype = torch.float32) -> Rotation:
    """Angles of patches at grid lines `y` (N,) and columns `x` (N,).

    The first half of a head's head/2 angles belongs to the line, the second to the column; each
    has the frequencies 10000^(-2j / (head/2)), j = 0..head/4 - 1.

    Args:
        y, x: integers from 0.
        head: width of a head, a multiple of 4.
        dtype: of frequencies, angles and their cosines; a half one rounds all of them.
    """
    half = head // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device=y.device) / half
    frequencies = (1.0 / _ROPE_BASE**exponents).to(dtype)
    angles = torch.cat([place.to(dtype)[:, None] * frequencies for place in (y, x)], dim=-1)
    return Rotation(angles.cos().float()[:, None], angles.sin().float()[:, None])


def rotated(x: Tensor, by: Rotation) -> Tensor:
    """Heads (N, heads, head) with channel i and i + head/2 turned as a pair, in float32."""
    first, second = x.float().chunk(2, dim=-1)
    turned = [first * by.cos - second * by.sin, first * by.sin + second * by.cos]
    return torch.cat(turned, dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Every patch of one picture attends to every other."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width, bias=config.use_bias)

    def forward(self, x: Tensor, turn: Rotation) -> Tensor:
        """(N, width) -> (N, width)."""
        q, k, v = self.qkv(x).reshape(len(x), 3, self.heads, -1).unbind(1)
        q, k = rotated(q, turn), rotated(k, turn)
        # A batch of one: without it the fused kernels are passed over.
        q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)[0]
        return self.proj(mixed.transpose(0, 1).reshape(len(x), -1))


class SwiGLU(nn.Module):
    """fc2(SiLU(fc1 x) * fc3 x)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.use_bias
        self.fc1 = nn.Linear(width, inner, bias=bias)
        self.fc2 = nn.Linear(inner, width, bias=bias)
        self.fc3 = nn.Linear(width, inner, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width) -> (N, width)."""
        return self.fc2(F.silu(self.fc1(x)) * self.fc3(x))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and around a residual."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.norm_1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config)
        self.norm_2 = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, turn: Rotation) -> Tensor:
        """(N, width) -> (N, width)."""
        x = x + self.attn(self.norm_1(x), turn)
        return x + self.mlp(self.norm_2(x))
