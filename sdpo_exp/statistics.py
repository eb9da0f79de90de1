"""Means with their uncertainty. numpy and scipy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


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
