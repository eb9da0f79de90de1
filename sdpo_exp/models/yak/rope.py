"""Rotary position embedding over three axes, on interleaved pairs of channels.

Angles are float64 and rotations float32 whatever the network's dtype. Su et al., arXiv 2104.09864.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines, float32 (B, 1, N, h / 2): one pair of channels each, all heads alike."""

    cos: Tensor
    sin: Tensor

    def rows(self, start: int) -> Rotation:
        """The rotation of the rows from `start` on."""
        return Rotation(self.cos[:, :, start:], self.sin[:, :, start:])


def rotation(ids: Tensor, axes_dim: Sequence[int], theta: float) -> Rotation:
    """The rotation of N tokens by their positions.

    Args:
        ids: (B, N, axes) positions; keep them in float32, half precision rounds them.
        axes_dim: channels of each axis, even. Pair j of an axis with d channels turns by
            position * theta^(-2j / d).
        theta: base of the frequencies.
    """
    angles = [
        ids[..., axis, None].double() * _frequencies(size, theta, ids.device)
        for axis, size in enumerate(axes_dim)
    ]
    together = torch.cat(angles, dim=-1)[:, None]
    return Rotation(together.cos().float(), together.sin().float())


def _frequencies(size: int, theta: float, device: torch.device) -> Tensor:
    exponents = torch.arange(0, size, 2, dtype=torch.float64, device=device) / size
    return 1.0 / theta**exponents


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """x (B, heads, N, h) with its pairs (2j, 2j + 1) turned; shape and dtype as given."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    first = even * turn.cos - odd * turn.sin
    second = even * turn.sin + odd * turn.cos
    return torch.stack((first, second), dim=-1).flatten(-2).to(x.dtype)
