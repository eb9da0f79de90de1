"""Shares are exact at every length, and a position of the mixed stream is found by itself."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.data.sampler import BatchLayout, StepSampler
from sdpo_exp.data.shares import BLOCK, MixedOrder, interleave, split, whole_weights
from sdpo_exp.types import PairKey

WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("given_weights", "expected"),
    [
        ([3, 1], [3, 1]),
        ([0.3, 0.1], [3, 1]),
        ([1.5, 2, 0.25], [6, 8, 1]),
        ([100, 300], [1, 3]),
        ([1e-12, 1], [1, 10**9]),
    ],
)
def test_weights_are_taken_as_written(given_weights: list[float], expected: list[int]) -> None:
    assert whole_weights(given_weights) == expected


def test_weights_of_many_digits_keep_nine_of_them() -> None:
    weights = [1 / 3, 0.123456789012345, 2 / 3]
    whole = whole_weights(weights)
    for weight, number in zip(weights, whole, strict=True):
        assert number / sum(whole) == pytest.approx(weight / sum(weights), abs=2e-9)


@given(WEIGHTS, st.integers(0, 400))
def test_one_draw_more_is_one_source_more_and_shares_hold(weights: list[int], draws: int) -> None:
    before, after = split(draws, weights), split(draws + 1, weights)
    assert sum(before) == draws
    assert sorted(b - a for a, b in zip(before, after, strict=True)) == [0] * (len(weights) - 1) + [
        1
    ]
    for count, weight in zip(before, weights, strict=True):
        assert abs(count - Fraction(draws * weight, sum(weights))) <= (len(weights) + 1) / 2


@given(WEIGHTS)
def test_whole_rounds_are_exact(weights: list[int]) -> None:
    assert split(7 * sum(weights), weights) == [7 * weight for weight in weights]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=4))
def test_a_list_has_every_row_once_and_begins_in_shares(
    sources: list[tuple[int, int]],
) -> None:
    sizes, weights = map(list, zip(*sources, strict=True))
    order = interleave(sizes, weights)
    assert np.bincount(order, minlength=len(sizes)).tolist() == sizes
    if all(sizes):
        for n in range(len(order) + 1):
            counts = split(n, weights)
            if any(count > size for count, size in zip(counts, sizes, strict=True)):
                break
            assert np.bincount(order[:n], minlength=len(sizes)).tolist() == counts


def mixed(seed: int = 0, weights: tuple[int, ...] = (3, 1), b: int = 7) -> MixedOrder:
    """Rows 0.. are of `a`, 1000.. of `b`."""
    rows = {"a": np.arange(10), "b": 1000 + np.arange(b)}
    return MixedOrder(seed, rows, weights)


def test_shares_are_exact_and_every_source_has_epochs_of_its_own() -> None:
    keys = [mixed().key(i) for i in range(64 * BLOCK)]
    sides = {False: [], True: []}  # type: dict[bool, list[int]]
    # Inside a block positions are shuffled: in the order of their draws epochs are whole.
    order = mixed()
    for key in keys:
        sides[key.row >= 1000].append(key.row)
    assert len(sides[False]) == 3 * len(sides[True]) == 48 * BLOCK
    assert [key.position for key in keys] == list(range(64 * BLOCK))
    for rows, size in ((sides[False], 10), (sides[True], 7)):
        counts = Counter(rows)
        assert len(counts) == size
        assert max(counts.values()) - min(counts.values()) <= 1
    for block in range(0, 64 * BLOCK, BLOCK):
        of_a = sum(order.key(i).row < 1000 for i in range(block, block + BLOCK))
        assert of_a == 3 * BLOCK // 4


def test_by_size_one_epoch_of_all_is_one_of_each() -> None:
    order = mixed(weights=(10, 54), b=54)
    rows = [order.key(i).row for i in range(BLOCK)]
    assert sorted(rows) == [*range(10), *range(1000, 1054)]


def test_a_position_is_found_by_itself() -> None:
    keys = [mixed().key(i) for i in range(200)]
    for i in (199, 3, 64, 63, 100):
        assert mixed().key(i) == keys[i] == PairKey(0, i, keys[i].row)
    assert [mixed(seed=1).key(i) for i in range(200)] != keys


def test_neighbours_do_not_come_in_a_pattern() -> None:
    sides = [mixed(weights=(1, 1)).key(i).row >= 1000 for i in range(10 * BLOCK)]
    even = sum(sides[::2])
    assert 0.35 < even / (5 * BLOCK) < 0.65


@pytest.mark.parametrize("layout", [(2, 3, 4), (1, 24, 1), (6, 1, 4), (12, 2, 1)])
def test_every_layout_trains_on_the_same_pairs_and_resumes_among_them(
    layout: tuple[int, int, int],
) -> None:
    micro, accumulation, world = layout

    def steps(start: int) -> list[set[PairKey]]:
        ranks = [
            list(
                StepSampler(17, 0, BatchLayout(micro, accumulation, rank, world), 6, start, mixed())
            )
            for rank in range(world)
        ]
        at = range(0, len(ranks[0]), accumulation)
        return [{k for rank in ranks for b in rank[i : i + accumulation] for k in b} for i in at]

    expected = [{mixed().key(i) for i in range(24 * k, 24 * k + 24)} for k in range(6)]
    assert steps(0) == expected
    assert steps(4) == expected[4:]
