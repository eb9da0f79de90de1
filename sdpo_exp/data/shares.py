"""Several sources in one stream: which of them a position belongs to, by whole numbers alone.

`split` divides n draws among sources by their weights. One draw more goes to one source more and
takes nothing from another, so the divisions of 0, 1, 2, ... draws are a stream in which every
source has its share from the first draws on, within a draw or two, and any position is found
without those before it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sdpo_exp.randomness import permutation
from sdpo_exp.types import PairKey

# Draws of neighbouring positions are shuffled, lest sources come in a pattern that a rank or a
# micro-batch of two would see one half of.
BLOCK = 64
_LARGEST_SUM = 10**9


def whole_weights(weights: Sequence[float]) -> list[int]:
    """Whole numbers in the same proportions: exactly, or else to nine digits.

    Args:
        weights: above 0, taken as they are written: 0.1 is a tenth.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    unit = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * unit) for weight in exact]
    common = math.gcd(*whole)
    whole = [weight // common for weight in whole]
    total = sum(whole)
    if total <= _LARGEST_SUM:
        return whole
    return [max(1, round(Fraction(weight * _LARGEST_SUM, total))) for weight in whole]


def split(draws: int, weights: Sequence[int]) -> list[int]:
    """How many of the first `draws` draws each source has; they sum to `draws`."""
    left, rest, taken = draws, sum(weights), []
    for weight in weights:
        taken.append((2 * left * weight + rest) // (2 * rest))
        left -= taken[-1]
        rest -= weight
    return taken


def interleave(sizes: Sequence[int], weights: Sequence[int]) -> NDArray[np.int64]:
    """(sum of sizes,) the source of every place of a list that has each source's rows once.

    Shares are the weights' from the list's beginning to where a source's rows end; from there they
    are those of the weights of the others.
    """
    left, parts = list(sizes), []
    while sources := [i for i, size in enumerate(left) if size]:
        among = [weights[i] for i in sources]
        counts = _splits(sum(left), among)
        fits = np.all(counts <= np.array([[left[i]] for i in sources]), axis=0)
        draws = len(fits) if fits.all() else int(fits.argmin())
        parts.append(np.array(sources)[np.diff(counts[:, :draws]).argmax(0)])
        for source, count in zip(sources, counts[:, draws - 1], strict=True):
            left[source] -= int(count)
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _splits(draws: int, weights: Sequence[int]) -> NDArray[np.int64]:
    """(K, draws + 1): `split` of 0, 1, ..., `draws`."""
    left, rest, taken = np.arange(draws + 1, dtype=np.int64), sum(weights), []
    for weight in weights:
        taken.append((2 * left * weight + rest) // (2 * rest))
        left = left - taken[-1]
        rest -= weight
    return np.stack(taken)


class MixedOrder:
    """The training stream over several sources, each in shuffled epochs of its own.

    What stands at a position depends on seed, names, sizes and weights alone.

    Args:
        seed: of the shuffles.
        rows: by source its rows' numbers in the mixture; names sorted.
        weights: whole numbers, one per source.
    """

    def __init__(
        self, seed: int, rows: dict[str, NDArray[np.int64]], weights: Sequence[int]
    ) -> None:
        self.rows, self.weights = list(rows.values()), list(weights)
        self._seeds = [_seed_of(seed, f"source {name}") for name in rows]
        self._block_seed = _seed_of(seed, "block")
        self._epoch = lru_cache(maxsize=2 * len(rows))(self._shuffled)
        self._block = lru_cache(maxsize=2)(self._shuffled_block)

    def key(self, stream_position: int) -> PairKey:
        """The pair at a position of the endless stream."""
        block, place = divmod(stream_position, BLOCK)
        draw = block * BLOCK + int(self._block(block)[place])
        before, after = split(draw, self.weights), split(draw + 1, self.weights)
        source = next(i for i, count in enumerate(before) if after[i] > count)
        epoch, row = divmod(before[source], len(self.rows[source]))
        row = int(self._epoch(source, epoch)[row])
        return PairKey(0, stream_position, int(self.rows[source][row]))

    def _shuffled(self, source: int, epoch: int) -> NDArray[np.int64]:
        return permutation(self._seeds[source], epoch, len(self.rows[source]))

    def _shuffled_block(self, block: int) -> NDArray[np.int64]:
        return permutation(self._block_seed, block, BLOCK)


def _seed_of(seed: int, label: str) -> int:
    digest = hashlib.blake2b(f"{seed} {label}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
