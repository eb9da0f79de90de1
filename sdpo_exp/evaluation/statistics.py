"""Means, proportions and tests of independent values. numpy and scipy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

_Z = float(stats.norm.ppf(0.975))
_EXACT_UP_TO = 50  # differences; the largest n for which scipy, too, prefers the exact test


class Estimate(NamedTuple):
    """A mean, its standard error, and the ends of its 95 % confidence interval."""

    mean: float
    standard_error: float
    low: float
    high: float


def estimate(values: ArrayLike) -> Estimate:
    """Mean of independent values (n,), with Student's t interval.

    With n = 1 error and interval are nan: one value says nothing about its spread.

    Raises:
        ValueError: no values, or not one-dimensional.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"values must be (n,) with n >= 1, got shape {array.shape}")
    mean = float(array.mean())
    if len(array) == 1:
        return Estimate(mean, float("nan"), float("nan"), float("nan"))
    error = float(array.std(ddof=1) / np.sqrt(len(array)))
    half = float(stats.t.ppf(0.975, len(array) - 1)) * error
    return Estimate(mean, error, mean - half, mean + half)


def paired_change(before: ArrayLike, after: ArrayLike) -> Estimate:
    """Mean of `after - before` (n,) each, row by row; pairing removes what the rows share.

    Raises:
        ValueError: the shapes differ, or as in `estimate`.
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"before and after must have one shape, got {first.shape}, {second.shape}")
    return estimate(second - first)


class Interval(NamedTuple):
    """A value and the ends of its 95 % confidence interval; nan where there is no interval."""

    value: float
    low: float
    high: float


def t_interval(mean: float, standard_error: float, n: float) -> Interval:
    """Student's t interval of a mean of n independent values; `inf`: the normal one.

    Its ends are nan where there is no standard error above 0 or n < 2: few values that agree say
    nothing about their spread.
    """
    if not (standard_error > 0 and n >= 2):
        return Interval(mean, float("nan"), float("nan"))
    half = (_Z if np.isinf(n) else float(stats.t.ppf(0.975, n - 1))) * standard_error
    return Interval(mean, mean - half, mean + half)


def wilson_interval(rate: float, trials: float) -> Interval:
    """Wilson's score interval for a mean of values in [0, 1] (Wilson 1927, JASA 22:209).

    For zeros and ones this is the interval of a binomial proportion. For values in between, such
    as ties counted half, it is a little too wide: their variance is below the `rate * (1 - rate)`
    that the formula assumes.

    Args:
        rate: mean, in [0, 1].
        trials: number of independent values, > 0; need not be whole.

    Raises:
        ValueError: either is out of range.
    """
    if not (0 <= rate <= 1 and 0 < trials < np.inf):
        raise ValueError(f"need a rate in [0, 1] and trials > 0, got {rate} and {trials}")
    shrink = 1 + _Z**2 / trials
    centre = (rate + _Z**2 / (2 * trials)) / shrink
    half = _Z / shrink * np.sqrt(rate * (1 - rate) / trials + _Z**2 / (4 * trials**2))
    # Rounding would otherwise leave the ends of 0 and 1 a last bit inside.
    low, high = min(centre - half, rate), max(centre + half, rate)
    return Interval(rate, max(0.0, float(low)), min(1.0, float(high)))


def sign_test(differences: ArrayLike) -> float:
    """Exact two-sided p value of "positive and negative are equally likely".

    Zeros (ties) are dropped, and the rest is held against a fair coin. With nothing left p is 1.

    Args:
        differences: (n,) independent and finite.

    Raises:
        ValueError: wrong shape, no values, or a value that is not finite.
    """
    values = finite_values(differences)
    wins, losses = int((values > 0).sum()), int((values < 0).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def wilcoxon_test(differences: ArrayLike) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test of "symmetric about zero".

    Zeros are dropped before ranking (Wilcoxon's own rule, scipy's `zero_method="wilcox"`); equal
    sizes share their mean rank. Up to 50 remaining differences p is exact, also with equal sizes,
    for which scipy goes over to the normal approximation from a number on that depends on its
    version; of five equal differences that one says 0.025, and the truth is 1/16. Beyond 50 it is
    scipy's normal approximation, corrected for ties. With nothing left p is 1.

    Args:
        differences: (n,) independent and finite.

    Raises:
        ValueError: as in `sign_test`.
    """
    values = finite_values(differences)
    values = values[values != 0]
    if len(values) > _EXACT_UP_TO:
        return float(stats.wilcoxon(values, zero_method="wilcox", method="approx").pvalue)
    # Mean ranks are multiples of one half, so twice their sum can be counted through.
    ranks = np.rint(2 * stats.rankdata(np.abs(values))).astype(int)
    chances = np.ones(1)
    for rank in ranks:
        nothing = np.zeros(rank)
        chances = (np.append(chances, nothing) + np.append(nothing, chances)) / 2
    found = int(ranks[values > 0].sum())
    return min(1.0, 2 * float(min(chances[: found + 1].sum(), chances[found:].sum())))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down adjusted p values (n,), in the order given.

    The i-th smallest of n is multiplied by n - i + 1, capped at 1 and kept from falling below the
    ones before it. All that stay below 0.05 may be called significant with a chance of at most
    0.05 that any of them is wrong, however they depend on each other (Holm 1979, Scand. J.
    Statist. 6:65).

    Raises:
        ValueError: not one-dimensional, or a value outside [0, 1].
    """
    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p values must be (n,) in [0, 1], got {p_values}")
    order = np.argsort(values, kind="stable")
    raised = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return adjusted


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing their mean rank.

    nan where there is nothing to rank: one row, or equal values only.

    Args:
        a, b: (n,) each, finite; rows belong together.

    Raises:
        ValueError: the shapes differ, or as in `sign_test`.
    """
    first, second = (stats.rankdata(finite_values(column)) for column in (a, b))
    if first.shape != second.shape:
        raise ValueError(f"a and b must have one shape, got {first.shape} and {second.shape}")
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / size) if size else float("nan")


def finite_values(values: ArrayLike) -> np.ndarray:
    """The values as float64 (n,).

    Raises:
        ValueError: not one-dimensional, empty, or a value that is not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"values must be (n,) with n >= 1, got shape {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"values must be finite, row {row} is {array[row]}")
    return array
