"""Latents as tokens, tokens' positions, and the times of a sampler: pure functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdpo_exp.models.flow_process import resolution_mu
from sdpo_exp.models.yak.config import YakConfig

PATCH = 2


def pack(latents: Tensor) -> Tensor:
    """Latents (B, c, h, w) -> tokens (B, h/2 * w/2, 4 c), row by row.

    Channel 4 c + 2 p + q of a token is channel c of the cell's row p and column q.

    Raises:
        ValueError: height or width is odd.
    """
    height, width = latents.shape[-2:]
    _check_even(height, width)
    cells = latents.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`: tokens (B, n, 4 c) -> latents (B, c, height, width).

    Args:
        tokens: as packed.
        height, width: of the latents, not of the image's pixels.

    Raises:
        ValueError: a size is odd, or does not fit the number of tokens.
    """
    _check_even(height, width)
    rows, columns = height // PATCH, width // PATCH
    if tokens.shape[1] != rows * columns:
        raise ValueError(
            f"latents of {height}x{width} are {rows * columns} tokens, not {tokens.shape[1]}"
        )
    cells = tokens.unflatten(1, (rows, columns)).unflatten(-1, (-1, PATCH, PATCH))
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def _check_even(height: int, width: int) -> None:
    if height % PATCH or width % PATCH:
        raise ValueError(f"latents must have even sides, got {height}x{width}")


def grid_ids(
    rows: int,
    columns: int,
    batch: int,
    axis0: float = 0.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Positions float32 (batch, rows * columns, 3) of an image's tokens: (axis0, row, column).

    Args:
        rows, columns: of tokens, half of the latents' height and width.
        batch: equal rows of the result.
        axis0: 0 for the target, 1 for a condition image.
        device: of the result.
    """
    ids = torch.zeros(rows, columns, 3, dtype=torch.float32, device=device)
    ids[..., 0] = axis0
    ids[..., 1] = torch.arange(rows, dtype=torch.float32, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, dtype=torch.float32, device=device)
    return ids.flatten(0, 1).expand(batch, -1, -1)


def text_ids(length: int, batch: int, device: torch.device | str | None = None) -> Tensor:
    """Positions float32 (batch, length, 3) of text rows: zeros."""
    return torch.zeros(batch, length, 3, dtype=torch.float32, device=device)


def shift(s: Tensor, mu: float) -> Tensor:
    """Times t = A s / (1 + (A - 1) s) with A = e^mu, float32: 0 and 1 stay, the rest moves to 1.

    On the logit scale it adds mu.
    """
    # In the form of the released sampler, so that the roundings are its own; 1 / 0 is infinite
    # and ends as 0.
    large = math.exp(mu)
    return large / (large + (1 / s.float() - 1))


def schedule(steps: int, tokens: int, config: YakConfig) -> Tensor:
    """The sampler's times float32 (steps + 1,) from 1 down to 0.

    Args:
        steps: Euler steps.
        tokens: of the target; a condition image's do not count.
        config: for `timestep_shift` and the two ends of mu.

    Raises:
        ValueError: no step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float32)
    if not config.timestep_shift:
        return times
    return shift(times, resolution_mu(tokens, config.base_shift, config.max_shift))
