"""Pairs of a ranking: what each rule takes, ties, gaps, and draws that depend on nothing else."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.data.rankings import (
    PairedRanking,
    PairingKind,
    PairingRule,
    pair_up,
    ranking_draw,
)

KINDS: tuple[PairingKind, ...] = ("all", "adjacent", "best_worst", "smallest_gap")


def paired(
    values: list[float], kind: PairingKind, min_gap: float = 0.0, most: int | None = None
) -> PairedRanking:
    return pair_up(values, PairingRule(kind, min_gap, most), ranking_draw(0, "a prompt"))


def by_value(values: list[float], found: PairedRanking) -> list[tuple[float, float]]:
    return [(values[p.better], values[p.worse]) for p in found.pairs]


def test_every_rule_on_a_ranking_known_by_hand() -> None:
    values = [1.0, 4.0, 2.0, 7.0]
    assert by_value(values, paired(values, "all")) == [
        (7, 4),
        (7, 2),
        (7, 1),
        (4, 2),
        (4, 1),
        (2, 1),
    ]
    assert by_value(values, paired(values, "adjacent")) == [(7, 4), (4, 2), (2, 1)]
    assert by_value(values, paired(values, "best_worst")) == [(7, 1)]
    assert by_value(values, paired(values, "smallest_gap")) == [(2, 1)]
    assert by_value(values, paired(values, "smallest_gap", min_gap=3.5)) == [(7, 2)]
    assert by_value(values, paired(values, "best_worst", most=2)) == [(7, 2), (7, 1)]
    assert by_value(values, paired(values, "smallest_gap", most=2)) == [(4, 2), (2, 1)]


def test_images_of_equal_value_meet_the_same_others() -> None:
    found = paired([3, 2, 2, 1], "adjacent")
    assert [pair[:2] for pair in found.pairs] == [(0, 1), (0, 2), (1, 3), (2, 3)]
    assert (found.ties, found.narrow, found.beyond) == (1, 0, 0)
    nothing = paired([5, 5, 5], "best_worst")
    assert (nothing.pairs, nothing.ties) == ([], 3)
    assert paired([5], "all") == PairedRanking([], 0, 0, 0)


def test_a_gap_of_decimals_is_what_it_looks_like() -> None:
    assert 0.3 - 0.2 < 0.1
    assert len(paired([0.3, 0.2], "all", min_gap=0.1).pairs) == 1
    assert paired([0.3, 0.21], "all", min_gap=0.1).narrow == 1


@given(
    values=st.lists(st.integers(-4, 4).map(float), max_size=9),
    kind=st.sampled_from(KINDS),
    min_gap=st.sampled_from([0.0, 1.0, 2.0]),
    most=st.sampled_from([None, 1, 2, 5]),
)
def test_what_is_taken_and_counted_agrees_with_a_plain_count(
    values: list[float], kind: PairingKind, min_gap: float, most: int | None
) -> None:
    found = paired(values, kind, min_gap, most)
    gaps = [abs(a - b) for a, b in combinations(values, 2)]
    assert found.ties == gaps.count(0)
    for pair in found.pairs:
        assert pair.gap == values[pair.better] - values[pair.worse]
        assert pair.gap >= max(min_gap, 1)
        if kind == "adjacent":
            assert not any(values[pair.worse] < v < values[pair.better] for v in values)
    wide = sorted(gap for gap in gaps if gap > 0 and gap >= min_gap)
    assert len({pair[:2] for pair in found.pairs}) == len(found.pairs)
    if kind == "all":
        assert len(found.pairs) == min(len(wide), most or len(wide))
        assert found.narrow == len(gaps) - found.ties - len(wide)
        assert found.beyond == len(wide) - len(found.pairs)
    if kind in ("best_worst", "smallest_gap"):
        taken = wide[-(most or 1) :] if kind == "best_worst" else wide[: most or 1]
        assert sorted(pair.gap for pair in found.pairs) == taken


def test_a_draw_is_of_the_seed_and_the_ranking_alone() -> None:
    values, rule = list(map(float, range(9))), PairingRule("all", most=3)
    pairs = [pair_up(values, rule, ranking_draw(s, r)).pairs for s, r in [(0, "a"), (0, "a")]]
    assert pairs[0] == pairs[1]
    others = [pair_up(values, rule, ranking_draw(s, r)).pairs for s, r in [(1, "a"), (0, "b")]]
    assert pairs[0] not in others


@pytest.mark.parametrize("kind", ["all", "smallest_gap"])
def test_every_pair_is_drawn_equally_often(kind: PairingKind) -> None:
    rule, counts = PairingRule(kind, most=1), np.zeros((4, 4))
    values = [4.0, 3.0, 2.0, 1.0]
    for seed in range(600):
        (pair,) = pair_up(values, rule, ranking_draw(seed, "x")).pairs
        counts[pair.better, pair.worse] += 1
    drawn = counts[counts > 0]
    assert len(drawn) == (6 if kind == "all" else 3)
    assert drawn.min() > 0.7 * 600 / len(drawn)
