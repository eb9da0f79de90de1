"""Means and win rates of values that come in clusters, such as the seeds of one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sdpo_exp.evaluation.statistics import Estimate, Interval, finite_values, wilson_interval

RESAMPLES = 10_000
_ENDS = (0.025, 0.975)
_DRAWS_AT_ONCE = 2**20  # bounds the memory of a bootstrap to some 30 MB


@dataclass(frozen=True)
class MacroAverage:
    """The unweighted mean of the categories' means, and these means by category."""

    average: Interval
    categories: Mapping[str, Interval]


def clustered_estimate(values: ArrayLike, clusters: ArrayLike) -> Estimate:
    """Mean over all values, with the error and the t interval that independent clusters give.

    The mean is the ratio of the clusters' sums to their sizes, and its error the linearised one of
    a ratio: `sqrt(C / (C - 1) * sum(e**2)) / n`, where e is the sum over a cluster of its values'
    deviations from the mean (Cochran 1977, Sampling Techniques, section 6.3). The interval is
    Student's with C - 1 degrees of freedom. With one value in every cluster all of it is
    `statistics.estimate`; with one cluster error and interval are nan.

    Args:
        values: (n,), finite.
        clusters: (n,) labels; values of one cluster may depend on each other.

    Raises:
        ValueError: as in `win_rate`.
    """
    array, codes = _clustered(values, clusters)
    mean = float(array.mean())
    sums = np.bincount(codes, array - mean)
    count = len(sums)
    if count == 1:
        return Estimate(mean, float("nan"), float("nan"), float("nan"))
    error = float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(array))
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return Estimate(mean, error, mean - half, mean + half)


def win_rate(differences: ArrayLike, clusters: ArrayLike) -> Interval:
    """Share of positive differences, a zero (tie) counted as half a win, with Wilson's interval.

    The rate is `(wins + ties / 2) / n` over all n differences; ties stay in n. The interval takes
    for its number of trials Kish's effective one, `n**2 / sum(size**2)` over the clusters: the
    number of clusters where all have one size, as if a cluster's differences told the same thing
    (Kish 1965, Survey Sampling). It is therefore too wide, never too narrow, for what ties and
    clusters do.

    Args:
        differences: (n,), finite.
        clusters: (n,) labels; differences of one cluster may depend on each other.

    Raises:
        ValueError: wrong shapes, no values, or a value that is not finite.
    """
    values, codes = _clustered(differences, clusters)
    sizes = np.bincount(codes)
    return wilson_interval(
        float((np.sign(values).mean() + 1) / 2), float(sizes.sum() ** 2 / (sizes**2).sum())
    )


def cluster_means(differences: ArrayLike, clusters: ArrayLike) -> np.ndarray:
    """Mean of every cluster (c,), in the sorted order of the labels.

    Args:
        differences: (n,), finite.
        clusters: (n,) labels.

    Raises:
        ValueError: as in `win_rate`.
    """
    values, codes = _clustered(differences, clusters)
    return np.bincount(codes, values) / np.bincount(codes)


def bootstrap_mean(
    differences: ArrayLike, clusters: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Mean of the differences with a percentile interval from resampled clusters.

    A resample draws as many clusters as there are, with replacement and each with all its
    differences, and takes the mean of what it drew (Davison and Hinkley 1997, Bootstrap Methods,
    section 3.8). With few clusters the interval is somewhat too narrow: about 0.9 instead of 0.95
    of them hold the truth with ten clusters. With one cluster its ends are nan.

    Args:
        differences: (n,), finite.
        clusters: (n,) labels; differences of one cluster may depend on each other.
        seed: of the resamples; the same seed gives the same interval, in whatever order of rows.
        resamples: how many, >= 1.

    Raises:
        ValueError: as in `win_rate`.
    """
    values, codes = _clustered(differences, clusters)
    means = _resampled_means(values, codes, np.random.default_rng(seed), resamples)
    return _percentiles(values.mean(), means)


def macro_average(
    differences: ArrayLike,
    clusters: ArrayLike,
    categories: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> MacroAverage:
    """The mean of the categories' means, each category of equal weight, with bootstrap intervals.

    Clusters are resampled within their category, so the categories keep their sizes; a cluster
    that reaches into two categories counts as one in each. A category of one cluster says nothing
    about its spread, so its interval and that of the average are nan.

    Args:
        differences: (n,), finite.
        clusters: (n,) labels.
        categories: (n,) labels.
        seed: of the resamples.
        resamples: how many, >= 1.

    Raises:
        ValueError: as in `win_rate`.
    """
    values, codes = _clustered(differences, clusters)
    _, kinds = _clustered(differences, categories)
    names = np.unique(np.asarray(categories))
    found, draws = {}, []
    for kind, name in enumerate(names):
        inside = kinds == kind
        _, local = np.unique(codes[inside], return_inverse=True)
        # A generator each: categories of one size would otherwise rise and fall together.
        generator = np.random.default_rng([seed, kind])
        draws.append(_resampled_means(values[inside], local, generator, resamples))
        found[str(name)] = _percentiles(values[inside].mean(), draws[-1])
    average = float(np.mean([interval.value for interval in found.values()]))
    return MacroAverage(_percentiles(average, np.mean(draws, axis=0)), found)


def _clustered(values: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The values, and for each the position of its label among the sorted labels."""
    array, names = finite_values(values), np.asarray(labels)
    if names.shape != array.shape:
        raise ValueError(f"{len(array)} values need as many labels, got shape {names.shape}")
    return array, np.unique(names, return_inverse=True)[1]


def _resampled_means(
    values: np.ndarray, codes: np.ndarray, generator: np.random.Generator, resamples: int
) -> np.ndarray:
    sums, sizes = np.bincount(codes, values), np.bincount(codes).astype(float)
    if len(sums) == 1:
        return np.full(resamples, np.nan)
    means, even = np.empty(resamples), bool((sizes == sizes[0]).all())
    rows = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        drawn = generator.integers(len(sums), size=(len(part), len(sums)))
        drawn_size = sizes[0] * len(sums) if even else sizes[drawn].sum(1)
        part[:] = sums[drawn].sum(1) / drawn_size
    return means


def _percentiles(value: float, resampled: np.ndarray) -> Interval:
    low, high = np.quantile(resampled, _ENDS)
    return Interval(float(value), float(low), float(high))
