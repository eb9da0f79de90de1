"""Two models on the same prompts and noises, or several against one base."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from sdpo_exp.clustered import (
    RESAMPLES,
    MacroAverage,
    bootstrap_mean,
    cluster_means,
    macro_average,
    win_rate,
)
from sdpo_exp.errors import UserError
from sdpo_exp.statistics import Interval, holm, sign_test, wilcoxon_test

Test = Literal["sign", "wilcoxon"]
_NAMED = 5  # keys in a message


class PromptKey(NamedTuple):
    """A prompt: the name of its set and its position there."""

    set: str
    prompt: int


class ImageKey(NamedTuple):
    """An image: the prompt that it shows and the seed of the noise that it began with."""

    set: str
    prompt: int
    seed: int

    def __str__(self) -> str:
        return f"(set {self.set}, prompt {self.prompt}, seed {self.seed})"


class Score(NamedTuple):
    """What a metric says of an image; higher is better."""

    image: ImageKey
    value: float


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


def compare_pairs(
    a: Sequence[Score],
    b: Sequence[Score],
    clusters: Mapping[PromptKey, str] | None = None,
    categories: Mapping[PromptKey, str] | None = None,
    *,
    names: tuple[str, str] = ("a", "b"),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two models' scores, image by image; the order of the scores is of no matter.

    Args:
        a, b: scores of the same images, each once.
        clusters: what prompts have in common, such as their text where a set repeats some; without
            it every prompt stands for itself. All seeds of a prompt are one cluster in any case.
        categories: of the prompts.
        names: of a and b in messages.
        seed: of the resamples.
        resamples: of the bootstrap.

    Raises:
        UserError: no scores; an image twice, or in one of a and b only; a score that is no number;
            a prompt without cluster or category.
    """
    first, second = (_by_image(scores, name) for scores, name in zip((a, b), names, strict=True))
    _require_same(first, second, names)
    images = sorted(first)
    prompts = [PromptKey(image.set, image.prompt) for image in images]
    groups = _codes(prompts if clusters is None else _labels(clusters, prompts, "cluster"))
    values_a, values_b = (np.array([s[image] for image in images]) for s in (first, second))
    # The order is compared and not the difference, which rounds to zero between tiny numbers.
    signs = (values_b > values_a).astype(float) - (values_b < values_a)
    change = values_b - values_a
    macro = None
    if categories is not None:
        kinds = _labels(categories, prompts, "category")
        macro = macro_average(change, groups, kinds, seed=seed, resamples=resamples)
    return Comparison(
        prompts=len(np.unique(groups)),
        images=len(images),
        mean_a=float(values_a.mean()),
        mean_b=float(values_b.mean()),
        difference=bootstrap_mean(change, groups, seed=seed, resamples=resamples),
        wins=int((signs > 0).sum()),
        ties=int((signs == 0).sum()),
        losses=int((signs < 0).sum()),
        win_rate=win_rate(signs, groups),
        p_sign=sign_test(np.bincount(groups, signs)),
        p_wilcoxon=wilcoxon_test(cluster_means(change, groups)),
        macro=macro,
    )


def compare_models(
    base: Mapping[str, Sequence[Score]],
    models: Mapping[str, Mapping[str, Sequence[Score]]],
    clusters: Mapping[PromptKey, str] | None = None,
    categories: Mapping[PromptKey, str] | None = None,
    *,
    test: Test = "sign",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[ModelComparison, ...]:
    """Every model against the base by every metric, p values adjusted over all of them.

    Args:
        base: scores by metric.
        models: the same of each model, by its name.
        clusters, categories, seed, resamples: as in `compare_pairs`.
        test: whose p values to adjust. One of them, named beforehand: the smaller of the two is
            no p value.

    Returns:
        Model by model in the order given, and in each the metrics in the base's order.

    Raises:
        UserError: a model's metrics are not the base's, or as in `compare_pairs`.
    """
    found = []
    for model, scores in models.items():
        if odd := sorted(base.keys() ^ scores.keys()):
            raise UserError(
                f"{model} and the base must have the same metrics; only one of them has "
                f"{', '.join(odd)}. Score both with the same metrics."
            )
        for metric, reference in base.items():
            names = (f"base, {metric}", f"{model}, {metric}")
            compared = compare_pairs(
                reference,
                scores[metric],
                clusters,
                categories,
                names=names,
                seed=seed,
                resamples=resamples,
            )
            found.append((model, metric, compared))
    adjusted = holm([compared.p_value(test) for *_, compared in found])
    return tuple(
        ModelComparison(*row, test, float(p)) for row, p in zip(found, adjusted, strict=True)
    )


def _by_image(scores: Sequence[Score], name: str) -> dict[ImageKey, float]:
    if not scores:
        raise UserError(f"{name}: no scores to compare.")
    found: dict[ImageKey, float] = {}
    twice = []
    for image, value in scores:
        if image in found:
            twice.append(image)
        found[image] = float(value)
    if twice:
        raise UserError(f"{name}: scored more than once: {_some(twice)}. Leave one score of each.")
    if broken := [image for image, value in found.items() if not np.isfinite(value)]:
        raise UserError(
            f"{name}: the score is not a finite number: {_some(broken)}. Score these images again, "
            "or leave them out of both models."
        )
    return found


def _require_same(
    first: Mapping[ImageKey, float], second: Mapping[ImageKey, float], names: tuple[str, str]
) -> None:
    lone = [
        f"only in {name}: {_some(keys)}"
        for name, keys in zip(
            names, (first.keys() - second.keys(), second.keys() - first.keys()), strict=True
        )
        if keys
    ]
    if lone:
        raise UserError(
            f"scores cannot be paired; {'; '.join(lone)}. Generate and score the same sets, "
            "prompts and seeds for both."
        )


def _some(keys: Sequence[ImageKey] | set[ImageKey]) -> str:
    ordered = sorted(keys)
    rest = len(ordered) - _NAMED
    shown = ", ".join(map(str, ordered[:_NAMED]))
    return f"{shown} and {rest} more" if rest > 0 else shown


def _labels(table: Mapping[PromptKey, str], prompts: Sequence[PromptKey], what: str) -> list[str]:
    for prompt in prompts:
        if prompt not in table:
            raise UserError(f"no {what} for prompt {prompt.prompt} of set {prompt.set}.")
    return [table[prompt] for prompt in prompts]


def _codes(labels: Sequence[Hashable]) -> np.ndarray:
    position = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    return np.array([position[label] for label in labels])
