"""Means and win rates over clusters: by hand, by simulation, and what must not change them."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.evaluation.clustered import (
    bootstrap_mean,
    cluster_means,
    clustered_estimate,
    macro_average,
    win_rate,
)
from sdpo_exp.evaluation.statistics import estimate, wilson_interval

ROWS = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 6)), min_size=1, max_size=20)


def test_the_error_of_clusters_by_hand() -> None:
    # Mean 12 / 6 = 2; sums of deviations -2, -1, 3: squares 14, times 3 / 2, root over 6.
    found = clustered_estimate([1.0, 1.0, 2.0, 1.0, 3.0, 4.0], ["a", "a", "a", "b", "c", "c"])
    error = math.sqrt(21) / 6
    assert found[:2] == pytest.approx((2.0, error))
    # t(0.975, 2) = 4.302653.
    assert found[2:] == pytest.approx((2 - 4.302653 * error, 2 + 4.302653 * error))


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=12))
def test_clusters_of_one_value_are_independent_values(values: list[int]) -> None:
    found = clustered_estimate(values, range(len(values)))
    assert found == pytest.approx(estimate(values), nan_ok=True)


def test_copies_of_seeds_leave_the_error_and_one_cluster_has_none() -> None:
    values = np.random.default_rng(0).normal(size=20)
    often = clustered_estimate(values.repeat(3), np.arange(20).repeat(3))
    assert often == pytest.approx(estimate(values))
    alone = clustered_estimate([1.0, 3.0], ["cat", "cat"])
    assert alone.mean == 2.0
    assert all(map(math.isnan, alone[1:]))


def test_the_clustered_interval_covers_the_truth_and_the_naive_one_does_not() -> None:
    rows, prompts = simulate(20, 4, 1000)
    clustered, naive = (
        np.mean([found.low <= 0 <= found.high for found in map(of, rows)])
        for of in (lambda row: clustered_estimate(row, prompts), estimate)
    )
    assert clustered == pytest.approx(0.95, abs=0.02)
    assert naive < 0.8


def test_a_tie_is_half_a_win_and_stays_in_the_number() -> None:
    # Three wins, one tie, one loss: 3.5 of 5.
    found = win_rate([0.1, 2.0, 0.3, 0.0, -9.0], range(5))
    assert found == pytest.approx(wilson_interval(0.7, 5))


@pytest.mark.parametrize(("value", "rate"), [(0.0, 0.5), (0.2, 1.0), (-0.2, 0.0)])
def test_all_ties_wins_or_losses_still_have_an_interval(value: float, rate: float) -> None:
    found = win_rate([value] * 8, range(8))
    assert found.value == rate
    assert 0 <= found.low <= rate <= found.high <= 1
    assert found.high - found.low > 0.3


def test_clusters_of_unequal_size_count_for_their_effective_number() -> None:
    # Sizes 3, 1, 1, 1: 36 / 12 = 3 of them.
    found = win_rate([1.0, 1.0, 1.0, 1.0, -1.0, -1.0], [0, 0, 0, 1, 2, 3])
    assert found == pytest.approx(wilson_interval(4 / 6, 3))


def test_means_of_clusters_in_the_order_of_their_labels() -> None:
    found = cluster_means([1.0, 10.0, 3.0], ["b", "a", "b"])
    assert found.tolist() == [10.0, 2.0]


def test_two_clusters_have_three_resampled_means() -> None:
    # 0 twice, one of each, 1 twice, with chances 1/4, 1/2, 1/4: the ends are the extremes.
    assert bootstrap_mean([0.0, 1.0], [0, 1]) == (0.5, 0.0, 1.0)


def test_a_cluster_is_drawn_with_all_its_rows() -> None:
    # One of each gives (0 + 0 + 0 + 4) / 4, both equal 0 or 4; the mean of means would be 2.
    assert bootstrap_mean([0.0, 0.0, 0.0, 4.0], [0, 0, 0, 1]) == (1.0, 0.0, 4.0)
    draws = [
        bootstrap_mean([0.0, 0.0, 0.0, 4.0], [0, 0, 0, 1], seed=s, resamples=1) for s in range(40)
    ]
    assert {found.low for found in draws} == {0.0, 1.0, 4.0}


def test_the_bootstrap_agrees_with_the_normal_interval_of_many_values() -> None:
    values = np.random.default_rng(0).normal(0.3, 2.0, 400)
    found = bootstrap_mean(values, range(400))
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found[1:] == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03 * half)


def test_more_resamples_than_fit_at_once_are_all_filled() -> None:
    values = np.random.default_rng(0).normal(size=3000)
    found = bootstrap_mean(values, range(3000), resamples=1000)
    half = 1.96 * values.std() / math.sqrt(3000)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def simulate(prompts: int, seeds: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences (count, prompts * seeds) of mean 0 that share most within a prompt."""
    generator = np.random.default_rng(prompts)
    own = generator.normal(size=(count, prompts)).repeat(seeds, axis=1)
    rows = own + 0.5 * generator.normal(size=own.shape)
    return rows, np.arange(prompts).repeat(seeds)


def test_the_clustered_bootstrap_covers_the_truth_and_the_naive_one_does_not() -> None:
    rows, prompts = simulate(40, 4, 500)
    clustered, naive = (
        np.mean(
            [
                found.low <= 0 <= found.high
                for found in (bootstrap_mean(row, labels, resamples=400) for row in rows)
            ]
        )
        for labels in (prompts, np.arange(len(prompts)))
    )
    # A percentile interval of 40 clusters falls a little short of 0.95.
    assert 0.9 < clustered < 0.97
    assert naive < 0.8


def test_the_clustered_win_rate_covers_the_truth_and_the_naive_one_does_not() -> None:
    rows, prompts = simulate(60, 4, 1000)
    clustered, naive = (
        np.mean(
            [found.low <= 0.5 <= found.high for found in (win_rate(row, labels) for row in rows)]
        )
        for labels in (prompts, np.arange(len(prompts)))
    )
    # Wider than needed, as seeds of a prompt are taken for copies of each other.
    assert clustered > 0.94
    assert naive < 0.85


def test_ties_leave_the_win_rate_interval_on_the_safe_side() -> None:
    rows = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=(2000, 80))
    found = [win_rate(row, range(80)) for row in rows]
    assert np.mean([i.low <= 0.55 <= i.high for i in found]) > 0.95


@given(ROWS, st.integers(2, 4))
def test_copies_of_every_seed_change_nothing(rows: list[tuple[int, int]], copies: int) -> None:
    values, prompts = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    more, labels = values.repeat(copies), prompts.repeat(copies)
    kinds = prompts % 2
    for once, often in (
        (win_rate(values, prompts), win_rate(more, labels)),
        (
            bootstrap_mean(values, prompts, resamples=100),
            bootstrap_mean(more, labels, resamples=100),
        ),
        (
            macro_average(values, prompts, kinds, resamples=50).average,
            macro_average(more, labels, kinds.repeat(copies), resamples=50).average,
        ),
    ):
        assert often == pytest.approx(once, nan_ok=True)


@given(ROWS, st.randoms(use_true_random=False))
def test_neither_order_nor_unit_matters(rows: list[tuple[int, int]], random: Random) -> None:
    values, prompts = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    order = list(range(len(rows)))
    random.shuffle(order)
    found = bootstrap_mean(values, prompts, resamples=100)
    assert bootstrap_mean(values[order], prompts[order], resamples=100) == pytest.approx(
        found, nan_ok=True
    )
    scaled = bootstrap_mean(3 * values + 7, prompts, resamples=100)
    assert scaled == pytest.approx([3 * end + 7 for end in found], nan_ok=True)
    rate, mirrored = win_rate(values, prompts), win_rate(-values, prompts)
    assert win_rate(100 * values, prompts) == rate
    assert mirrored == pytest.approx((1 - rate.value, 1 - rate.high, 1 - rate.low))
    assert (found.value, cluster_means(values, prompts).size) == (
        pytest.approx(values.mean()),
        len(set(prompts)),
    )


def test_the_seed_decides_the_resamples_and_nothing_else_does() -> None:
    values = np.random.default_rng(0).normal(size=30)
    first = bootstrap_mean(values, range(30), seed=5)
    np.random.default_rng(9).normal(size=100)
    assert bootstrap_mean(values, range(30), seed=5) == first
    other = bootstrap_mean(values, range(30), seed=6)
    assert other != first
    assert other == pytest.approx(first, abs=0.03)


def test_one_prompt_has_a_mean_and_no_interval() -> None:
    found = bootstrap_mean([1.0, 3.0], ["a", "a"])
    assert found.value == 2.0
    assert all(map(math.isnan, found[1:]))


def test_categories_weigh_alike_whatever_their_size() -> None:
    values = [1.0] * 6 + [3.0] * 2
    found = macro_average(values, range(8), ["many"] * 6 + ["few"] * 2)
    assert found.average == (2.0, 2.0, 2.0)
    assert found.categories == {"few": (3.0, 3.0, 3.0), "many": (1.0, 1.0, 1.0)}


def test_the_macro_interval_adds_the_categories_variances() -> None:
    generator = np.random.default_rng(0)
    parts = [generator.normal(0.0, 1.0, 300), generator.normal(1.0, 4.0, 100)]
    kinds = ["a"] * 300 + ["b"] * 100
    found = macro_average(np.concatenate(parts), range(400), kinds)
    half = 1.96 * math.sqrt(parts[0].var() / 300 + parts[1].var() / 100) / 2
    assert (found.average.high - found.average.low) / 2 == pytest.approx(half, rel=0.04)
    wide = found.categories["b"]
    expected = 1.96 * parts[1].std() / 10
    assert (wide.high - wide.low) / 2 == pytest.approx(expected, rel=0.05)


def test_categories_are_resampled_independently_of_each_other() -> None:
    values = np.random.default_rng(0).normal(size=200)
    found = macro_average([*values, *values], range(400), ["a"] * 200 + ["b"] * 200)
    half = 1.96 * values.std() / math.sqrt(400)
    assert (found.average.high - found.average.low) / 2 == pytest.approx(half, rel=0.04)


def test_a_category_of_one_prompt_leaves_the_average_without_interval() -> None:
    found = macro_average([1.0, 2.0, 9.0], range(3), ["a", "a", "b"])
    assert found.average.value == 5.25
    assert math.isnan(found.average.low)
    assert math.isnan(found.categories["b"].high)
    assert found.categories["a"] == (1.5, 1.0, 2.0)


@pytest.mark.parametrize("function", [win_rate, cluster_means, bootstrap_mean, clustered_estimate])
def test_bad_rows_are_refused(function: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="row 1 is nan"):
        function([1.0, math.nan], [0, 1])
    with pytest.raises(ValueError, match="as many labels"):
        function([1.0, 2.0], [0])
    with pytest.raises(ValueError, match="n >= 1"):
        function([], [])
