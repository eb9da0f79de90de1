"""The stream of pairs: exactly `effective_batch` of them for every optimiser step.

Pairs are numbered along an endless stream of shuffled epochs. Optimiser step k takes the stream
positions k E .. (k+1) E - 1, split over micro-batches and ranks; a window may cross an epoch's
end, so none is ever short. Step k's pairs depend on k alone, which makes resuming exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from torch.utils.data import Sampler

from sdpo_exp.randomness import permutation
from sdpo_exp.types import PairKey


@dataclass(frozen=True)
class BatchLayout:
    """How one optimiser step is split: micro_batch pairs, on `world` ranks, `accumulation` times.

    The layout moves pairs between micro-batches and ranks; it never changes which pairs, noises
    and timesteps a step trains on.
    """

    micro_batch: int
    accumulation: int
    rank: int = 0
    world: int = 1

    @property
    def effective_batch(self) -> int:
        """Pairs of one optimiser step over all ranks."""
        return self.micro_batch * self.accumulation * self.world


class PairOrder(Protocol):
    """An endless stream of pairs in which every position can be looked up by itself."""

    def key(self, stream_position: int) -> PairKey:
        """The pair at a position."""


@runtime_checkable
class OrdersPairs(Protocol):
    """A source with an order of its own, such as a mixture."""

    def order(self, seed: int) -> PairOrder:
        """The training stream under a seed."""

    def told_with(self, draws: int) -> str:
        """What a run of so many draws makes of the source, in a line."""


class StepSampler(Sampler[list[PairKey]]):
    """Batch sampler over `size` pairs for the steps `start_step`..`max_steps` - 1.

    `size` None: the source is an endless stream that shuffles itself, so a pair's row is its
    position in the stream. A source that has an order of its own gives it.
    """

    def __init__(
        self,
        size: int | None,
        seed: int,
        layout: BatchLayout,
        max_steps: int,
        start_step: int = 0,
        order: PairOrder | None = None,
    ) -> None:
        self.size, self.seed, self.layout = size, seed, layout
        self.max_steps, self.start_step, self.order = max_steps, start_step, order
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def __len__(self) -> int:
        """Micro-batches of the whole run; a resumed trainer counts the finished ones itself."""
        return self.max_steps * self.layout.accumulation

    def __iter__(self) -> Iterator[list[PairKey]]:
        layout = self.layout
        for step in range(self.start_step, self.max_steps):
            for micro in range(layout.accumulation):
                block = micro * layout.world + layout.rank
                first = step * layout.effective_batch + block * layout.micro_batch
                yield [self.key(first + i) for i in range(layout.micro_batch)]

    def key(self, stream_position: int) -> PairKey:
        """The pair at a position of the endless stream."""
        if self.order is not None:
            return self.order.key(stream_position)
        if self.size is None:
            return PairKey(0, stream_position, stream_position)
        epoch, position = divmod(stream_position, self.size)
        return PairKey(epoch, position, int(self._order(epoch)[position]))

    def _shuffle(self, epoch: int) -> np.ndarray:
        assert self.size is not None, "an endless stream has no order to draw"
        return permutation(self.seed, epoch, self.size)


def fixed_batches(count: int, micro_batch: int, rank: int, world: int) -> list[list[PairKey]]:
    """One rank's share of the rows 0..count - 1 under fixed keys, in micro-batches.

    Every row is on one rank only. Ranks have equally many micro-batches, unless some have fewer
    rows than others have micro-batches.
    """
    own = [PairKey(0, i, i) for i in range(rank, count, world)]
    largest_share = math.ceil(count / world)
    batches = min(math.ceil(largest_share / micro_batch), len(own))
    cuts = [len(own) * i // batches for i in range(batches + 1)] if own else []
    return [own[start:end] for start, end in pairwise(cuts)]
