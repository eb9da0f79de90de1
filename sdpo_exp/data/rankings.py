"""Which two of the images of one prompt make a pair, by their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

PairingKind = Literal["all", "adjacent", "best_worst", "smallest_gap"]
# 0.3 - 0.2 is a hair below 0.1, which nobody means by min_gap=0.1.
_ROUNDING = 1e-9


class RankedPair(NamedTuple):
    """Places of two images in their ranking, and by how much the first is better."""

    better: int
    worse: int
    gap: float


@dataclass(frozen=True)
class PairingRule:
    """Which pairs of a ranking to take.

    Images of equal value are a tie and make no pair.

    Attributes:
        kind: `all`: every two images. `adjacent`: those with no value between theirs. `best_worst`
            and `smallest_gap`: the one pair, or the `most` pairs, of largest or smallest gap.
        min_gap: pairs whose values differ by less are left out beforehand.
        most: pairs of a ranking; None: all, or one of `best_worst` and `smallest_gap`. Which ones
            of `all` and `adjacent`, and which one of several equal gaps, is drawn.
    """

    kind: PairingKind
    min_gap: float = 0.0
    most: int | None = None


class PairedRanking(NamedTuple):
    """Pairs of one ranking, the best image's first, and what became of the others.

    Attributes:
        pairs: the chosen ones.
        ties: pairs of images of equal value.
        narrow: pairs that `min_gap` left out.
        beyond: pairs of `all` or `adjacent` that `most` left out.
    """

    pairs: list[RankedPair]
    ties: int
    narrow: int
    beyond: int


def pair_up(values: Sequence[float], rule: PairingRule, draw: np.random.Generator) -> PairedRanking:
    """Pairs of a ranking.

    Args:
        values: of its K images; higher is better.
        rule: which pairs.
        draw: of what the rule leaves to chance.
    """
    value = np.asarray(values, np.float64)
    order = np.argsort(-value, kind="stable")
    first, second = np.triu_indices(len(value), 1)
    better, worse = order[first], order[second]
    gap = value[better] - value[worse]
    eligible = gap > 0
    if rule.kind == "adjacent":
        level = np.unique(value, return_inverse=True)[1]
        eligible &= level[better] - level[worse] == 1
    wide = eligible & (gap >= rule.min_gap * (1 - _ROUNDING))
    found = np.flatnonzero(wide)
    chosen = _chosen(found, gap, rule, draw)
    pairs = [RankedPair(int(better[i]), int(worse[i]), float(gap[i])) for i in chosen]
    beyond = len(found) - len(pairs) if rule.kind in ("all", "adjacent") else 0
    return PairedRanking(pairs, int((gap == 0).sum()), int((eligible & ~wide).sum()), beyond)


def ranking_draw(seed: int, ranking: object) -> np.random.Generator:
    """The generator of one ranking, whatever other rankings there are.

    Args:
        seed: of the command.
        ranking: what identifies it; equal ones have equal `repr`.
    """
    digest = hashlib.blake2b(repr(ranking).encode(), digest_size=16).digest()
    return np.random.default_rng(np.random.SeedSequence([seed, int.from_bytes(digest, "big")]))


def _chosen(
    found: NDArray[np.int64],
    gap: NDArray[np.float64],
    rule: PairingRule,
    draw: np.random.Generator,
) -> NDArray[np.int64]:
    """Those of `found` that the rule takes, in their order."""
    shuffled = draw.permutation(found)
    if rule.kind in ("all", "adjacent"):
        return np.sort(shuffled[: rule.most])
    sign = 1 if rule.kind == "smallest_gap" else -1
    nearest = shuffled[np.argsort(sign * gap[shuffled], kind="stable")]
    return np.sort(nearest[: rule.most or 1])
