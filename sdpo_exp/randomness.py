"""Random numbers of a pair, from (seed, epoch, position) and nothing else.

Not from rank, worker, micro-batch or device: any batch layout then trains on the same numbers,
and a resumed run continues with the ones it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from sdpo_exp.types import PairKey


class Stream(IntEnum):
    """Independent streams of one pair, so that a new use never shifts an old one."""

    NOISE = 0
    TIMESTEP = 1
    PROMPT_DROPOUT = 2


def pair_seed(seed: int, epoch: int, position: int, stream: Stream) -> int:
    """63-bit seed of one stream of the pair at `position` of `epoch`."""
    state = np.random.SeedSequence([seed, epoch, position, stream]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def pair_generator(seed: int, epoch: int, position: int, stream: Stream) -> torch.Generator:
    """CPU generator of one stream; CPU, so that a GPU run draws the same numbers."""
    return torch.Generator().manual_seed(pair_seed(seed, epoch, position, stream))


def draw_noise(seed: int, keys: Sequence[PairKey], shape: Sequence[int]) -> Tensor:
    """Standard normal (B, *shape), one draw per pair."""
    rows = [pair_generator(seed, key.epoch, key.position, Stream.NOISE) for key in keys]
    return torch.stack([torch.randn(shape, generator=generator) for generator in rows])


def draw_uniform(seed: int, keys: Sequence[PairKey], stream: Stream) -> Tensor:
    """Uniform (B,) in [0, 1), one draw per pair."""
    rows = [pair_generator(seed, key.epoch, key.position, stream) for key in keys]
    return torch.stack([torch.rand((), generator=generator) for generator in rows])


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of `size` pairs in `epoch`, (size,) int64."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(size)
