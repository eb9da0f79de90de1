"""Small parts of Yak: embedders, modulation, normalisation, attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdpo_exp.models.yak.rope import Rotation, rotate

EPS = 1e-6
TIME_CHANNELS = 256
_TIME_FACTOR = 1000.0
_LONGEST_PERIOD = 10_000.0


def sinusoid(t: Tensor) -> Tensor:
    """float32 (B, 256) of times t (B,) in 0..1: cosines, then sines, of 1000 t at 128 frequencies.

    1000 t is computed in the dtype of t, so a bfloat16 t is rounded once more, as in the
    official sampler; everything after that is float32.
    """
    half = TIME_CHANNELS // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(-math.log(_LONGEST_PERIOD) * steps / half)
    angles = (_TIME_FACTOR * t).float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class Embedder(nn.Module):
    """Two linear layers with a SiLU between: (..., inputs) -> (..., width)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(inputs, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., width)."""
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """The global vector (B, D) as `parts` chunks, each (B, 1, D)."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.lin = nn.Linear(width, parts * width)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale, gate, shift, ... in the order of the weights."""
        return self.lin(F.silu(vec))[:, None].chunk(self.parts, dim=-1)


def gates(width: int, parts: int) -> nn.Sequential:
    """SiLU and one linear layer: what the refiner and the last layer modulate with."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def mlp(width: int, inner: int) -> nn.Sequential:
    """The blocks' MLP, with GELU in its tanh form."""
    return nn.Sequential(nn.Linear(width, inner), nn.GELU("tanh"), nn.Linear(inner, width))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(1 + scale) x + shift."""
    return (1 + scale) * x + shift


class ScaledRms(nn.Module):
    """x / rms(x) over the last axis, in float32, cast back, then times a learned scale."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Shape as given."""
        wide = x.float()
        inverse = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + EPS)
        return (wide * inverse).to(x.dtype) * self.scale


class QueryKeyNorm(nn.Module):
    """Normalisation of queries and keys, per head."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query_norm = ScaledRms(size)
        self.key_norm = ScaledRms(size)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q and k normalised, in v's dtype; v as it is."""
        return self.query_norm(q).to(v.dtype), self.key_norm(k).to(v.dtype), v


class Projections(nn.Module):
    """An attention's weights, without the attention: what goes in and how it comes out."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.norm = QueryKeyNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> normalised q, k and plain v, each (B, heads, N, h)."""
        return self.norm(*split_heads(self.qkv(x), self.heads))


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3 D), rows in the order q/k/v, head, channel -> q, k, v, each (B, heads, N, h)."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def attend(
    q: Tensor, k: Tensor, v: Tensor, turn: Rotation | None = None, keys: Tensor | None = None
) -> Tensor:
    """Softmax attention (B, N, D) of q, k, v (B, heads, N, h) with scale 1 / sqrt(h).

    Args:
        turn: rotation of queries and keys.
        keys: bool (B, 1, 1, N), true where a key is seen; None hands no mask to the kernel.
    """
    if turn is not None:
        q, k = rotate(q, turn), rotate(k, turn)
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
    return found.transpose(1, 2).flatten(2)
