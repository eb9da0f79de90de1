"""What a comparison is made from and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sdpo_exp.evaluation.clustered import MacroAverage
from sdpo_exp.evaluation.pairing import PromptKey, Score
from sdpo_exp.evaluation.statistics import Interval

Test = Literal["sign", "wilcoxon"]


@dataclass(frozen=True)
class Category:
    """The part of a comparison that one category is; the attributes are those of `Comparison`."""

    prompts: int
    images: int
    difference: Interval
    wins: int
    ties: int
    losses: int
    win_rate: Interval


@dataclass(frozen=True)
class Comparison:
    """Scores b against scores a of the same images; differences are b - a.

    Attributes:
        prompts: number of clusters, the independent units: prompts, or different texts of them.
        images: number of pairs.
        mean_a, mean_b: over the images.
        difference: mean over the images, interval from resampled clusters.
        wins, ties, losses: images where b is above, equal to and below a, compared exactly.
        win_rate: `(wins + ties / 2) / images`, with Wilson's interval.
        p_sign: sign test of the clusters; one is won if more of its images are won than lost, and
            dropped if as many.
        p_wilcoxon: signed-rank test of the clusters' mean differences; zeros are dropped.
        macro: difference by category and the mean of these; None without categories.
        macro_win_rate: the categories' win rates, averaged alike, with resampled prompts.
        categories: each with its numbers; None without categories.
    """

    prompts: int
    images: int
    mean_a: float
    mean_b: float
    difference: Interval
    wins: int
    ties: int
    losses: int
    win_rate: Interval
    p_sign: float
    p_wilcoxon: float
    macro: MacroAverage | None = None
    macro_win_rate: Interval | None = None
    categories: Mapping[str, Category] | None = None

    def p_value(self, test: Test) -> float:
        """That of the named test."""
        return {"sign": self.p_sign, "wilcoxon": self.p_wilcoxon}[test]


@dataclass(frozen=True)
class ModelComparison:
    """A model against the base by one metric.

    Attributes:
        model, metric: their names.
        comparison: with the base as a and the model as b.
        test: whose p values were adjusted.
        p_holm: Holm's adjusted p, over all models and metrics compared together.
    """

    model: str
    metric: str
    comparison: Comparison
    test: Test
    p_holm: float


@dataclass(frozen=True)
class Match:
    """A model's scores and the base's, by metric, of the same images.

    Attributes:
        model: its name.
        base, scores: by the same metrics.
        clusters, categories: as in `compare_pairs`.
    """

    model: str
    base: Mapping[str, Sequence[Score]]
    scores: Mapping[str, Sequence[Score]]
    clusters: Mapping[PromptKey, str] | None = None
    categories: Mapping[PromptKey, str] | None = None


@dataclass(frozen=True)
class MetricAverage:
    """A model against the base over all metrics, which share the images.

    Attributes:
        model: its name.
        metrics: their names.
        prompts, images: as in `Comparison`.
        win_rate: unweighted mean of the metrics' win rates. Its interval is the mean's over images
            of what an image wins on average (1, 1/2 or 0 per metric), from resampled clusters, so
            it knows that the metrics agree with each other.
        correlations: Spearman's, of the clusters' mean differences, for every two metrics; nan
            where all differences of one are equal.
    """

    model: str
    metrics: tuple[str, ...]
    prompts: int
    images: int
    win_rate: Interval
    correlations: Mapping[tuple[str, str], float]
