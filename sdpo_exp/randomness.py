"""Random numbers of a pair, from (seed, epoch, position) and nothing else.

Not from rank, worker, micro-batch or device: any batch layout then trains on the same numbers,
and a resumed run continues with the ones it would have had. Drawn on the CPU by a counter-based
generator with a 128-bit key; torch's own CPU generator keeps only 32 bits of a seed, so among
70,000 pairs two would be likely to share their noise.
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
    SAMPLE = 3
    POSTERIOR = 4
    CROP = 5
    FLIP = 6


def pair_generator(seed: int, key: PairKey, stream: Stream) -> np.random.Generator:
    """Generator of one stream of the pair at `key.position` of `key.epoch`."""
    entropy = np.random.SeedSequence([seed, key.epoch, key.position, stream])
    return np.random.Generator(np.random.Philox(entropy))


def draw_noise(
    seed: int, keys: Sequence[PairKey], shape: Sequence[int], stream: Stream = Stream.NOISE
) -> Tensor:
    """Standard normal float32 (B, *shape), one draw per pair."""
    generators = (pair_generator(seed, key, stream) for key in keys)
    rows = [g.standard_normal(tuple(shape), dtype=np.float32) for g in generators]
    return torch.from_numpy(np.stack(rows))


def sampling_noise(seed: int, count: int, shape: Sequence[int]) -> Tensor:
    """Initial noise (count, *shape) of images to generate; row i depends on (seed, i) alone."""
    return draw_noise(seed, [PairKey(0, i, i) for i in range(count)], shape, Stream.SAMPLE)


def draw_uniform(seed: int, keys: Sequence[PairKey], stream: Stream) -> Tensor:
    """Uniform float32 (B,) in [0, 1), one draw per pair."""
    generators = (pair_generator(seed, key, stream) for key in keys)
    draws = [g.random(dtype=np.float32) for g in generators]
    return torch.from_numpy(np.array(draws, dtype=np.float32))


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of `size` pairs in `epoch`, (size,) int64."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(size)
