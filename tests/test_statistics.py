"""Means with their uncertainty, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from sdpo_exp.statistics import estimate, paired_change


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
