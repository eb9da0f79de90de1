"""The head that the aesthetic score and ImageReward share: five layers, no non-linearity."""

from __future__ import annotations

from torch import nn


def affine_head(width: int) -> nn.Sequential:
    """Linear `width`-1024-128-64-16-1; the dropouts do nothing in eval mode but hold the numbers.

    The layers' numbers 0, 2, 4, 6, 7 are those of the released state dicts.
    """
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
