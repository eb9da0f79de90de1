"""Means, proportions and tests, against numbers worked out by hand or by other formulas."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats

from sdpo_exp.evaluation.statistics import (
    estimate,
    holm,
    paired_change,
    rank_correlation,
    sign_test,
    wilcoxon_test,
    wilson_interval,
)

Test = Callable[[ArrayLike], float]


def test_mean_error_and_interval_of_four_values() -> None:
    # Deviations -3, -1, 1, 3: variance 20 / 3, standard error sqrt(20 / 12); t(0.975, 3) = 3.1824.
    found = estimate([1.0, 3.0, 5.0, 7.0])
    assert found.mean == 4.0
    assert found.standard_error == pytest.approx(math.sqrt(20 / 12))
    assert found.low == pytest.approx(4 - 3.18245 * math.sqrt(20 / 12), abs=1e-4)
    assert found.high == pytest.approx(4 + 3.18245 * math.sqrt(20 / 12), abs=1e-4)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(2.0, 1.0, size=(2000, 8))
    inside = [found.low <= 2.0 <= found.high for found in map(estimate, draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_pairing_removes_what_the_rows_share() -> None:
    shared = np.array([0.0, 10.0, 20.0, 30.0])
    found = paired_change(shared, shared + np.array([0.9, 1.1, 0.9, 1.1]))
    assert found.mean == pytest.approx(1.0)
    assert found.standard_error < 0.1
    assert estimate(shared).standard_error > 5


def test_one_value_has_no_spread() -> None:
    found = estimate([3.0])
    assert found.mean == 3.0
    assert all(map(math.isnan, found[1:]))


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_values_must_be_a_column(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values must be"):
        estimate(values)


def test_before_and_after_must_be_the_same_rows() -> None:
    with pytest.raises(ValueError, match="one shape"):
        paired_change([1.0, 2.0], [1.0])


def test_wilson_of_five_in_ten() -> None:
    # (0.5 - t)**2 = 1.96**2 t (1 - t) / 10 at t = 0.5 -+ 0.5 / sqrt(1 + 10 / 1.96**2).
    found = wilson_interval(0.5, 10)
    assert found == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)


@pytest.mark.parametrize(("wins", "trials"), [(0, 1), (1, 1), (0, 7), (3, 7), (50, 60), (400, 400)])
def test_wilson_is_scipys_where_nothing_is_halved(wins: int, trials: int) -> None:
    theirs = stats.binomtest(wins, trials).proportion_ci(method="wilson")
    found = wilson_interval(wins / trials, trials)
    assert found[1:] == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.integers(0, 40), st.integers(0, 40))
def test_wilson_solves_its_equation_and_mirrors(halves: int, more: int) -> None:
    trials = (halves + more) / 2 + 1
    rate = halves / (2 * trials)
    found, mirrored = wilson_interval(rate, trials), wilson_interval(1 - rate, trials)
    for end in found[1:]:
        expected = 1.959964**2 * end * (1 - end) / trials
        assert (rate - end) ** 2 == pytest.approx(expected, abs=1e-6)
    assert 0 <= found.low <= rate <= found.high <= 1
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx(found[1:])


def test_wilson_covers_a_proportion_about_as_often_as_it_says() -> None:
    wins = np.random.default_rng(0).binomial(60, 0.7, size=3000)
    found = [wilson_interval(count / 60, 60) for count in wins]
    assert np.mean([i.low <= 0.7 <= i.high for i in found]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("rate", "trials"), [(-0.1, 5), (1.1, 5), (math.nan, 5), (0.5, 0)])
def test_wilson_refuses_what_is_no_proportion(rate: float, trials: float) -> None:
    with pytest.raises(ValueError, match="rate in"):
        wilson_interval(rate, trials)


def test_sign_test_of_eight_wins_and_two_losses_drops_ties() -> None:
    # 2 * (1 + 10 + 45) / 1024.
    differences = [1.0] * 8 + [-5.0] * 2
    assert sign_test(differences) == pytest.approx(112 / 1024)
    assert sign_test([*differences, 0.0, 0.0, 0.0]) == sign_test(differences)


@pytest.mark.parametrize("test", [sign_test, wilcoxon_test])
def test_one_difference_or_none_proves_nothing(test: Test) -> None:
    assert test([0.3]) == 1.0
    assert test([0.0, 0.0, 0.0]) == 1.0


@pytest.mark.parametrize("test", [sign_test, wilcoxon_test])
def test_all_wins_are_as_unlikely_as_tossing_heads_only(test: Test) -> None:
    assert test([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 64)


def test_wilcoxon_of_four_by_counting() -> None:
    # Negative ranks sum to 2; of 16 sign patterns 3 reach so little: {}, {1}, {2}.
    assert wilcoxon_test([1.0, -2.0, 3.0, 4.0]) == pytest.approx(2 * 3 / 16)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_wilcoxon_is_the_enumeration_of_all_signs_also_with_equal_sizes(rows: list[int]) -> None:
    decided = np.array([row for row in rows if row], dtype=float)
    ranks = stats.rankdata(np.abs(decided))
    sums = [
        sum(rank for rank, up in zip(ranks, ups, strict=True) if up)
        for ups in itertools.product((False, True), repeat=len(decided))
    ]
    seen = ranks[decided > 0].sum()
    low, high = (np.mean(np.array(sums) <= seen), np.mean(np.array(sums) >= seen))
    assert wilcoxon_test(rows) == pytest.approx(min(1.0, 2 * min(low, high)))


@pytest.mark.parametrize("size", [5, 50])
def test_wilcoxon_is_scipys_exact_one_where_all_sizes_differ(size: int) -> None:
    rows = np.random.default_rng(size).normal(0.3, 1.0, size)
    theirs = stats.wilcoxon(rows, method="exact").pvalue
    assert wilcoxon_test([*rows, 0.0]) == pytest.approx(theirs, rel=1e-9)


def test_wilcoxon_of_many_is_the_normal_approximation_corrected_for_ties() -> None:
    rows = np.random.default_rng(0).integers(-3, 5, 200).astype(float)
    decided = rows[rows != 0]
    ranks = stats.rankdata(np.abs(decided))
    z = (ranks[decided > 0].sum() - ranks.sum() / 2) / math.sqrt((ranks**2).sum() / 4)
    assert wilcoxon_test(rows) == pytest.approx(math.erfc(abs(z) / math.sqrt(2)))
    assert len(decided) > 50


def test_exact_and_approximate_wilcoxon_meet() -> None:
    rows = np.random.default_rng(1).normal(0.3, 1.0, 51)
    assert wilcoxon_test(rows[:50]) == pytest.approx(
        float(stats.wilcoxon(rows[:50], method="approx").pvalue), rel=0.05
    )


@pytest.mark.parametrize("test", [sign_test, wilcoxon_test])
@given(rows=st.lists(st.integers(-9, 9), min_size=1, max_size=70))
def test_tests_know_neither_direction_nor_order_nor_unit(test: Test, rows: list[int]) -> None:
    values = np.array(rows, dtype=float)
    p = test(values)
    assert 0 < p <= 1
    assert test(-values) == pytest.approx(p)
    assert test(values[::-1]) == pytest.approx(p)
    assert test(4 * values) == pytest.approx(p)


@pytest.mark.parametrize("test", [sign_test, wilcoxon_test])
def test_chance_alone_is_rarely_called_significant(test: Test) -> None:
    rows = np.random.default_rng(2).normal(size=(1500, 30))
    assert 0.01 < np.mean([test(row) < 0.05 for row in rows]) < 0.065


def test_holm_by_hand() -> None:
    # 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which must not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert len(holm([])) == 0


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_and_bonferroni(thousandths: list[int]) -> None:
    raw = np.array(thousandths) / 1000
    found = holm(raw)
    assert (found >= raw).all()
    assert (found <= np.minimum(1, raw * len(raw))).all()
    assert holm(raw[::-1]) == pytest.approx(found[::-1])
    assert (np.diff(found[np.argsort(raw, kind="stable")]) >= 0).all()


def test_holm_keeps_the_chance_of_any_false_claim() -> None:
    p_values = np.random.default_rng(3).uniform(size=(4000, 6))
    false_claims = np.mean([holm(row).min() < 0.05 for row in p_values])
    assert false_claims == pytest.approx(0.05, abs=0.015)
    assert np.mean(p_values.min(1) < 0.05) > 0.2


@pytest.mark.parametrize("p_values", [[0.5, math.nan], [1.1], [-0.1], [[0.5]]])
def test_holm_refuses_what_is_no_p_value(p_values: list[float]) -> None:
    with pytest.raises(ValueError, match="p values must be"):
        holm(p_values)


@pytest.mark.parametrize("test", [sign_test, wilcoxon_test])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_refused_with_its_row(test: Test, broken: float) -> None:
    with pytest.raises(ValueError, match="row 1 is"):
        test([1.0, broken])


def test_rank_correlation_by_hand() -> None:
    # Ranks 1, 2, 3, 4 and 2, 1, 4, 3: squared differences sum to 4; 1 - 6 * 4 / (4 * 15).
    assert rank_correlation([1.0, 2.0, 3.0, 9.0], [5.0, 4.0, 80.0, 7.0]) == pytest.approx(0.6)
    assert rank_correlation([1.0, 2.0, 3.0], [-1.0, -8.0, -9.0]) == pytest.approx(-1.0)


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=20))
def test_rank_correlation_is_scipys(rows: list[tuple[int, int]]) -> None:
    first, second = zip(*rows, strict=True)
    found = rank_correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float(stats.spearmanr(first, second).statistic))


def test_rank_correlation_needs_rows_that_belong_together() -> None:
    assert math.isnan(rank_correlation([1.0], [2.0]))
    with pytest.raises(ValueError, match="one shape"):
        rank_correlation([1.0, 2.0], [1.0])
