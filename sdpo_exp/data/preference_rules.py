"""From scores to preferences: which of two images wins, by how much, and when nobody does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sdpo_exp.bounds import NonNegativeFloat

RuleKind = Literal["scorer", "vote", "weighted_sum"]
Values: TypeAlias = NDArray[np.float64]
# By metric, (N, 2): scores of the first and the second image of N pairs.
PairScores: TypeAlias = Mapping[str, NDArray[np.floating]]


class Verdicts(NamedTuple):
    """What a rule says of N pairs: `lead` (N,), above 0 where the first image wins.

    `ties` (N,) are pairs with a lead of 0, `narrow` (N,) those of a smaller one than asked for.
    """

    lead: Values
    ties: NDArray[np.bool_]
    narrow: NDArray[np.bool_]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(N,) pairs with a winner."""
        return ~(self.ties | self.narrow)


@dataclass(frozen=True)
class PreferenceRule:
    """How scores become a winner. d is a metric's score of the first image minus the second's.

    Attributes:
        kind: `scorer`: the lead is d of one metric, on its own scale. `vote`: the lead is the mean
            over all metrics of the sign of d, so equal scores abstain. `weighted_sum`: the lead is
            the sum over metrics of weight times d / scale.
        by: the metric that decides under `scorer`; None: the only one.
        weights: of the metrics under `weighted_sum`; one without weight does not count. None: 1 for
            every metric.
        standardise: under `weighted_sum`, scale is `scale_of(d)`; otherwise it is 1.
        min_margin: pairs with a smaller lead either way have no winner.
    """

    kind: RuleKind = "scorer"
    by: str | None = None
    weights: Mapping[str, float] | None = None
    standardise: bool = True
    min_margin: NonNegativeFloat = 0.0

    def problems(self, metrics: Sequence[str]) -> list[str]:
        """What does not fit, in words, given the names of the metrics."""
        known = f"there are: {', '.join(metrics)}"
        found = []
        if self.by is not None and self.kind != "scorer":
            found.append(f"by={self.by}: belongs to rule=scorer; leave it out")
        elif self.by is not None and self.by not in metrics:
            found.append(f"by={self.by}: not among the chosen metrics; {known}")
        elif self.kind == "scorer" and self.by is None and len(metrics) > 1:
            found.append(f"by: which metric decides? give by=<metric>, or rule=vote; {known}")
        if self.kind == "vote" and len(metrics) < 2:
            found.append("rule=vote: takes two metrics or more; with one, rule=scorer says it all")
        if self.weights is not None and self.kind != "weighted_sum":
            found.append("weights: belong to rule=weighted_sum; leave them out")
        elif self.weights is not None:
            unknown = [name for name in self.weights if name not in metrics]
            found += [f"weights.{name}: not among the chosen metrics; {known}" for name in unknown]
            if not self.weights:
                found.append("weights: empty; give one per metric, or null for 1 each")
        return found

    def voices(self, metrics: Sequence[str]) -> list[str]:
        """The metrics that the rule listens to."""
        if self.kind == "scorer":
            return [self.by] if self.by is not None else list(metrics[:1])
        weights = self.weights
        return [name for name in metrics if weights is None or name in weights]

    def judge(self, scores: PairScores) -> Verdicts:
        """Verdicts on N pairs; the arithmetic is float64.

        Exchanging the two images of some of the pairs exchanges their verdicts and nothing else.

        Raises:
            ValueError: rule and metrics do not fit, or a score is not finite.
        """
        if problems := self.problems(list(scores)):
            raise ValueError("; ".join(problems))
        lead = self._lead(differences(scores))
        return Verdicts(lead, lead == 0, (lead != 0) & (np.abs(lead) < self.min_margin))

    def _lead(self, apart: Mapping[str, Values]) -> Values:
        heard = [apart[name] for name in self.voices(list(apart))]
        if self.kind == "scorer":
            return heard[0]
        if self.kind == "vote":
            return np.asarray(np.mean([np.sign(d) for d in heard], axis=0), np.float64)
        weights = [self._weight(name) for name in self.voices(list(apart))]
        scales = [scale_of(d) if self.standardise else 1.0 for d in heard]
        terms = [w * d / scale for w, d, scale in zip(weights, heard, scales, strict=True)]
        return np.asarray(np.sum(terms, axis=0), np.float64)

    def _weight(self, name: str) -> float:
        return 1.0 if self.weights is None else float(self.weights[name])


def differences(scores: PairScores) -> dict[str, Values]:
    """By metric, (N,) score of the first image minus that of the second, in float64.

    Raises:
        ValueError: a score is not finite.
    """
    for name, values in scores.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: scores must be finite")
    wide = {name: np.asarray(values, np.float64) for name, values in scores.items()}
    return {name: values[:, 0] - values[:, 1] for name, values in wide.items()}


def scale_of(difference: Values) -> float:
    """Standard deviation of a metric's difference d (N,), in whatever order the images stand.

    Which image is called the first is arbitrary. With either order equally likely d has mean 0 and
    variance mean(d**2), so the scale is the root of that. 1 where all differences are 0.
    """
    scale = math.sqrt(float(np.mean(np.square(difference)))) if len(difference) else 0.0
    return scale or 1.0
