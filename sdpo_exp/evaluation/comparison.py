"""Two models on the same prompts and noises, or several against one base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from sdpo_exp.errors import UserError
from sdpo_exp.evaluation.clustered import (
    RESAMPLES,
    MacroAverage,
    bootstrap_mean,
    cluster_means,
    macro_average,
    win_rate,
)
from sdpo_exp.evaluation.outcomes import Category as Category
from sdpo_exp.evaluation.outcomes import Comparison as Comparison
from sdpo_exp.evaluation.outcomes import Match as Match
from sdpo_exp.evaluation.outcomes import MetricAverage as MetricAverage
from sdpo_exp.evaluation.outcomes import ModelComparison as ModelComparison
from sdpo_exp.evaluation.outcomes import Test as Test
from sdpo_exp.evaluation.pairing import ImageKey as ImageKey
from sdpo_exp.evaluation.pairing import PromptKey as PromptKey
from sdpo_exp.evaluation.pairing import Score as Score
from sdpo_exp.evaluation.pairing import pair_by_key
from sdpo_exp.evaluation.statistics import (
    holm,
    rank_correlation,
    sign_test,
    wilcoxon_test,
)


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
    paired = pair_by_key(a, b, names)
    groups, signs, change = paired.groups(clusters), paired.signs, paired.b - paired.a
    wins, ties, losses = _tally(signs)
    found = Comparison(
        prompts=len(np.unique(groups)),
        images=len(paired.images),
        mean_a=float(paired.a.mean()),
        mean_b=float(paired.b.mean()),
        difference=bootstrap_mean(change, groups, seed=seed, resamples=resamples),
        wins=wins,
        ties=ties,
        losses=losses,
        win_rate=win_rate(signs, groups),
        p_sign=sign_test(np.bincount(groups, signs)),
        p_wilcoxon=wilcoxon_test(cluster_means(change, groups)),
    )
    if categories is None:
        return found
    kinds = np.array(paired.labels(categories, "category"))
    macro = macro_average(change, groups, kinds, seed=seed, resamples=resamples)
    rates = macro_average((signs + 1) / 2, groups, kinds, seed=seed, resamples=resamples)
    parts = _by_category(macro, signs, groups, kinds)
    return replace(found, macro=macro, macro_win_rate=rates.average, categories=parts)


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
    """Every model against the same scores of the base; see `compare_matches`.

    Args:
        base: scores by metric.
        models: the same of each model, by its name.
        clusters, categories, seed, resamples: as in `compare_pairs`.
        test: as in `compare_matches`.
    """
    matches = [Match(model, base, scores, clusters, categories) for model, scores in models.items()]
    return compare_matches(matches, test=test, seed=seed, resamples=resamples)


def compare_matches(
    matches: Sequence[Match], *, test: Test = "sign", seed: int = 0, resamples: int = RESAMPLES
) -> tuple[ModelComparison, ...]:
    """Every model against the base by every metric, p values adjusted over all of them.

    Args:
        matches: one for each model.
        test: whose p values to adjust. One of them, named beforehand: the smaller of the two is
            no p value.
        seed, resamples: as in `compare_pairs`.

    Returns:
        Model by model in the order given, and in each the metrics in the base's order.

    Raises:
        UserError: a model's metrics are not the base's, or as in `compare_pairs`.
    """
    found = []
    for match in matches:
        if odd := sorted(match.base.keys() ^ match.scores.keys()):
            raise UserError(
                f"{match.model} and the base must have the same metrics; only one of them has "
                f"{', '.join(odd)}. Score both with the same metrics."
            )
        for metric, reference in match.base.items():
            compared = compare_pairs(
                reference,
                match.scores[metric],
                match.clusters,
                match.categories,
                names=(f"base, {metric}", f"{match.model}, {metric}"),
                seed=seed,
                resamples=resamples,
            )
            found.append((match.model, metric, compared))
    adjusted = holm([compared.p_value(test) for *_, compared in found])
    return tuple(
        ModelComparison(*row, test, float(p)) for row, p in zip(found, adjusted, strict=True)
    )


def average_metrics(
    match: Match, *, seed: int = 0, resamples: int = RESAMPLES
) -> MetricAverage | None:
    """The mean of the metrics' win rates; None for one metric, or if they scored other images.

    Args:
        match: whose metrics all count alike.
        seed, resamples: as in `compare_pairs`.

    Raises:
        UserError: as in `compare_pairs`.
    """
    paired = {name: pair_by_key(match.base[name], match.scores[name]) for name in match.base}
    first, *others = paired.values()
    if not others or any(other.images != first.images for other in others):
        return None
    groups = first.groups(match.clusters)
    outcomes = np.mean([(of.signs + 1) / 2 for of in paired.values()], axis=0)
    changes = {name: cluster_means(of.b - of.a, groups) for name, of in paired.items()}
    return MetricAverage(
        match.model,
        tuple(paired),
        prompts=len(np.unique(groups)),
        images=len(first.images),
        win_rate=bootstrap_mean(outcomes, groups, seed=seed, resamples=resamples),
        correlations={
            (one, other): rank_correlation(changes[one], changes[other])
            for one, other in combinations(changes, 2)
        },
    )


def _by_category(
    macro: MacroAverage, signs: np.ndarray, groups: np.ndarray, kinds: np.ndarray
) -> dict[str, Category]:
    found = {}
    for name, difference in macro.categories.items():
        inside = kinds == name
        own, clusters = signs[inside], groups[inside]
        found[name] = Category(
            len(np.unique(clusters)), len(own), difference, *_tally(own), win_rate(own, clusters)
        )
    return found


def _tally(signs: np.ndarray) -> tuple[int, int, int]:
    return int((signs > 0).sum()), int((signs == 0).sum()), int((signs < 0).sum())
