"""Pairing by set, prompt and seed; what is compared, adjusted and refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.errors import UserError
from sdpo_exp.evaluation.comparison import (
    Comparison,
    ImageKey,
    Match,
    PromptKey,
    Score,
    average_metrics,
    compare_matches,
    compare_models,
    compare_pairs,
)
from sdpo_exp.evaluation.statistics import holm, wilson_interval


def scores(rows: Sequence[Sequence[float]], name: str = "set") -> list[Score]:
    """Of row i, column j: prompt i, seed j."""
    return [
        Score(ImageKey(name, prompt, seed), value)
        for prompt, row in enumerate(rows)
        for seed, value in enumerate(row)
    ]


def of_prompts(values: Sequence[float]) -> list[Score]:
    return scores([[value] for value in values])


def table(labels: Sequence[str], name: str = "set") -> dict[PromptKey, str]:
    return {PromptKey(name, prompt): label for prompt, label in enumerate(labels)}


# Changes of four prompts with two seeds: (+1, +3), (+2, -1), (0, 0), (-1, 0).
BASE = scores([[1.0, 1.0], [1.0, 2.0], [5.0, 5.0], [4.0, 4.0]])
TUNED = scores([[2.0, 4.0], [3.0, 1.0], [5.0, 5.0], [3.0, 4.0]])


def test_numbers_of_four_prompts_with_two_seeds() -> None:
    found = compare_pairs(BASE, TUNED)
    assert (found.prompts, found.images) == (4, 8)
    assert (found.mean_a, found.mean_b) == (23 / 8, 27 / 8)
    assert found.difference.value == 0.5
    # The worst resample is the last prompt four times, the best the first.
    assert -0.5 <= found.difference.low < 0.5 < found.difference.high <= 2.0
    assert (found.wins, found.ties, found.losses) == (3, 3, 2)
    assert found.win_rate == pytest.approx(wilson_interval(4.5 / 8, 4))
    # Prompts: one won, one even at one win and one loss, one even, one lost.
    assert found.p_sign == 1.0
    # Mean changes 2, 0.5, 0, -0.5: ranks 3, 1.5, 1.5; lost 1.5 or less in 3 of 8 patterns.
    assert found.p_wilcoxon == pytest.approx(2 * 3 / 8)
    assert found.macro is None


def test_one_seed_makes_every_image_an_observation() -> None:
    found = compare_pairs(of_prompts([0.0] * 6), of_prompts([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert found.p_sign == found.p_wilcoxon == pytest.approx(2 / 64)
    assert found.win_rate == pytest.approx(wilson_interval(1.0, 6))


def test_pairs_are_found_by_key_and_not_by_place() -> None:
    a, b = (scores(rows) for rows in np.random.default_rng(0).normal(size=(2, 12, 3)))
    found = compare_pairs(a, b)
    assert compare_pairs(a, b[::-1]) == found
    assert compare_pairs(a[::-1], b) == found


def test_the_same_prompt_number_of_two_sets_is_two_prompts() -> None:
    a = [*scores([[1.0]], "p"), *scores([[2.0]], "q")]
    assert compare_pairs(a, a).prompts == 2


def test_equal_texts_are_one_cluster() -> None:
    found = compare_pairs(BASE, TUNED, clusters=table(["cat", "dog", "cat", "owl"]))
    assert (found.prompts, found.images) == (3, 8)
    assert found.difference.value == 0.5
    # Sizes 4, 2, 2: 64 / 24 effective.
    assert found.win_rate == pytest.approx(wilson_interval(4.5 / 8, 64 / 24))


def significance(found: Comparison) -> list[float]:
    return [*found.difference, *found.win_rate, found.p_sign, found.p_wilcoxon]


def test_copied_seeds_sharpen_nothing() -> None:
    base, tuned = np.random.default_rng(0).normal([[0.0], [0.3]], size=(2, 30))
    once = compare_pairs(of_prompts(base), of_prompts(tuned))
    often = compare_pairs(*(scores(np.stack([rows] * 4, 1)) for rows in (base, tuned)))
    assert often.images == 4 * once.images
    assert significance(often) == pytest.approx(significance(once))


def test_independent_seeds_do_sharpen() -> None:
    noise = np.random.default_rng(0).normal(0.2, 1.0, (200, 8))
    one = compare_pairs(of_prompts(np.zeros(200)), of_prompts(noise[:, 0]))
    eight = compare_pairs(scores(np.zeros((200, 8))), scores(noise))
    for found, images in ((one, 200), (eight, 1600)):
        width = found.difference.high - found.difference.low
        assert width == pytest.approx(2 * 1.96 / math.sqrt(images), rel=0.15)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12))
def test_swapping_the_models_mirrors_everything(rows: list[tuple[int, int]]) -> None:
    a, b = (of_prompts(column) for column in zip(*rows, strict=True))
    there, back = (compare_pairs(*pair, resamples=200) for pair in ((a, b), (b, a)))
    assert (back.wins, back.ties, back.losses) == (there.losses, there.ties, there.wins)
    value, low, high = there.difference
    assert back.difference == pytest.approx((-value, -high, -low), nan_ok=True)
    value, low, high = there.win_rate
    assert back.win_rate == pytest.approx((1 - value, 1 - high, 1 - low))
    assert (back.p_sign, back.p_wilcoxon) == pytest.approx((there.p_sign, there.p_wilcoxon))


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12))
def test_a_metrics_scale_does_not_touch_win_rate_and_sign_test(rows: list[tuple[int, int]]) -> None:
    columns = list(zip(*rows, strict=True))
    plain = compare_pairs(*map(of_prompts, columns), resamples=10)
    bent = compare_pairs(*(of_prompts(np.exp(c)) for c in columns), resamples=10)
    assert bent.win_rate == plain.win_rate
    assert bent.p_sign == plain.p_sign


def test_one_image_claims_nothing() -> None:
    found = compare_pairs(of_prompts([1.0]), of_prompts([2.0]))
    assert found.difference.value == 1.0
    assert math.isnan(found.difference.low)
    assert (found.p_sign, found.p_wilcoxon) == (1.0, 1.0)
    assert found.win_rate.low < 0.5


def test_a_model_against_itself_ties() -> None:
    found = compare_pairs(BASE, BASE)
    assert found.difference == (0.0, 0.0, 0.0)
    assert (found.wins, found.ties, found.losses) == (0, 8, 0)
    assert found.win_rate.value == 0.5
    assert (found.p_sign, found.p_wilcoxon) == (1.0, 1.0)


def test_categories_have_their_own_means_and_one_of_equal_weight() -> None:
    found = compare_pairs(BASE, TUNED, categories=table(["photo", "anime", "anime", "anime"]))
    assert found.macro is not None
    # Photo (1 + 3) / 2; anime (2 - 1 + 0 + 0 - 1 + 0) / 6.
    assert found.macro.categories["photo"].value == 2.0
    assert found.macro.categories["anime"].value == 0.0
    assert found.macro.average.value == 1.0


def test_categories_have_their_own_win_rates_and_numbers() -> None:
    found = compare_pairs(BASE, TUNED, categories=table(["photo", "anime", "anime", "anime"]))
    assert found.categories is not None
    photo, anime = found.categories["photo"], found.categories["anime"]
    assert (photo.prompts, photo.images, photo.wins, photo.ties, photo.losses) == (1, 2, 2, 0, 0)
    assert (anime.prompts, anime.images, anime.wins, anime.ties, anime.losses) == (3, 6, 1, 3, 2)
    assert photo.win_rate == pytest.approx(wilson_interval(1.0, 1))
    assert anime.win_rate == pytest.approx(wilson_interval(2.5 / 6, 3))
    assert found.macro is not None
    assert anime.difference == found.macro.categories["anime"]
    assert found.macro_win_rate is not None
    assert found.macro_win_rate.value == pytest.approx((1.0 + 2.5 / 6) / 2)
    assert math.isnan(found.macro_win_rate.low)  # photo is one prompt


def refusal(a: Sequence[Score], b: Sequence[Score], **options: object) -> str:
    with pytest.raises(UserError) as caught:
        compare_pairs(a, b, names=("base", "tuned"), **options)
    return str(caught.value)


def test_lone_images_are_named_on_both_sides() -> None:
    said = refusal(BASE[1:], TUNED[:-1])
    assert "only in base: (set set, prompt 3, seed 1)" in said
    assert "only in tuned: (set set, prompt 0, seed 0)" in said


def test_many_lone_images_are_named_in_part() -> None:
    said = refusal(of_prompts([0.0] * 9), of_prompts([0.0]))
    assert "(set set, prompt 1, seed 0)" in said
    assert "and 3 more" in said
    assert "prompt 6" not in said


def test_an_image_scored_twice_is_named() -> None:
    said = refusal(BASE, [*TUNED, TUNED[2]])
    assert said.startswith("tuned: scored more than once: (set set, prompt 1, seed 0).")


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_named(broken: float) -> None:
    said = refusal([*BASE[:3], BASE[3]._replace(value=broken), *BASE[4:]], TUNED)
    assert said.startswith("base: the score is not a finite number: (set set, prompt 1, seed 1).")


def test_no_scores_and_missing_labels_are_told() -> None:
    assert refusal([], TUNED) == "base: no scores to compare."
    few = table(["cat"])
    assert refusal(BASE, TUNED, clusters=few) == "no cluster for prompt 1 of set set."
    assert refusal(BASE, TUNED, categories=few) == "no category for prompt 1 of set set."


def metrics(shift: float) -> dict[str, list[Score]]:
    generator = np.random.default_rng(4)
    return {
        name: of_prompts(generator.normal(shift * weight, 1.0, 25))
        for name, weight in (("reward", 1.0), ("beauty", 0.4))
    }


def shifted(base: dict[str, list[Score]], by: float) -> dict[str, list[Score]]:
    generator = np.random.default_rng(5)
    return {
        name: [row._replace(value=row.value + generator.normal(by)) for row in rows]
        for name, rows in base.items()
    }


@pytest.mark.parametrize("test", ["sign", "wilcoxon"])
def test_holm_runs_over_all_models_and_metrics(test: str) -> None:
    base = metrics(0.0)
    models = {"dpo": shifted(base, 0.4), "sdpo": shifted(base, 0.8)}
    rows = compare_models(base, models, test=test, resamples=100)
    assert [(row.model, row.metric) for row in rows] == [
        ("dpo", "reward"),
        ("dpo", "beauty"),
        ("sdpo", "reward"),
        ("sdpo", "beauty"),
    ]
    raw = [getattr(row.comparison, f"p_{test}") for row in rows]
    assert [row.p_holm for row in rows] == pytest.approx(list(holm(raw)))
    assert rows[0].comparison == compare_pairs(
        base["reward"], models["dpo"]["reward"], resamples=100
    )
    alone = compare_models(base, {"dpo": models["dpo"]}, test=test, resamples=100)
    assert alone[0].p_holm <= rows[0].p_holm


def test_models_share_the_bases_metrics() -> None:
    base = metrics(0.0)
    with pytest.raises(UserError, match=r"dpo and the base .* only one of them has beauty"):
        compare_models(base, {"dpo": {"reward": base["reward"]}})


def test_a_broken_score_is_told_with_model_and_metric() -> None:
    base = metrics(0.0)
    broken = {**base, "beauty": [*base["beauty"][:-1], base["beauty"][-1]._replace(value=math.nan)]}
    with pytest.raises(UserError, match=r"^dpo, beauty: .*prompt 24"):
        compare_models(base, {"dpo": broken}, resamples=10)


def test_models_may_meet_the_base_in_other_images() -> None:
    base = metrics(0.0)
    few = {name: rows[:10] for name, rows in base.items()}
    matches = [Match("all", base, shifted(base, 0.5)), Match("few", few, shifted(few, 0.5))]
    rows = compare_matches(matches, resamples=50)
    assert [row.comparison.images for row in rows] == [25, 25, 10, 10]
    assert [row.p_holm for row in rows] == pytest.approx(
        list(holm([row.comparison.p_sign for row in rows]))
    )


def outcomes(*rows: Sequence[float]) -> Match:
    """Metrics whose differences from a base of zeros are the rows."""
    names = [f"m{i}" for i in range(len(rows))]
    base = {name: of_prompts([0.0] * len(rows[0])) for name in names}
    return Match("sdpo", base, dict(zip(names, map(of_prompts, rows), strict=True)))


def test_the_average_of_the_metrics_is_the_unweighted_mean_of_their_win_rates() -> None:
    match = outcomes([1.0, 2.0, 0.0, -1.0], [1.0, 9.0, 3.0, 0.0], [0.0, 1.0, -2.0, -3.0])
    found = average_metrics(match)
    assert found is not None
    # 2.5 / 4, 3.5 / 4 and 1.5 / 4.
    assert found.win_rate.value == pytest.approx(2.5 / 4)
    assert (found.metrics, found.prompts, found.images) == (("m0", "m1", "m2"), 4, 4)
    rates = [row.comparison.win_rate.value for row in compare_matches([match], resamples=10)]
    assert found.win_rate.value == pytest.approx(np.mean(rates))
    # Ranks 3, 4, 2, 1 against 2, 4, 3, 1: 1 - 6 * 2 / (4 * 15).
    assert found.correlations["m0", "m1"] == pytest.approx(0.8)


def test_metrics_that_agree_do_not_narrow_the_interval_and_independent_ones_do() -> None:
    generator = np.random.default_rng(0)
    one, *others = generator.normal(size=(4, 400))
    agreeing, independent = (
        average_metrics(outcomes(one, *rows), resamples=2000) for rows in ([one] * 3, others)
    )
    assert agreeing is not None
    assert independent is not None
    half = 1.96 * 0.5 / math.sqrt(400)
    for found, width in ((agreeing, 2 * half), (independent, half)):
        assert found.win_rate.high - found.win_rate.low == pytest.approx(width, rel=0.1)


def test_the_average_of_metrics_resamples_prompts_and_not_seeds() -> None:
    rows = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=(2, 60))
    once = outcomes(*rows)
    often = {
        which: {
            name: [Score(x.image._replace(seed=seed), x.value) for x in column for seed in range(3)]
            for name, column in scores_of.items()
        }
        for which, scores_of in (("base", once.base), ("scores", once.scores))
    }
    found, repeated = average_metrics(once), average_metrics(Match("sdpo", **often))
    assert found is not None
    assert repeated is not None
    assert repeated.win_rate == pytest.approx(found.win_rate)
    assert (repeated.prompts, repeated.images) == (60, 180)


def test_one_metric_or_metrics_of_other_images_have_no_average() -> None:
    assert average_metrics(outcomes([1.0, 2.0])) is None
    mixed = outcomes([1.0, 2.0], [1.0, 2.0])
    fewer = {name: {**of, "m1": of["m1"][:1]} for name, of in
             (("base", mixed.base), ("scores", mixed.scores))}  # fmt: skip
    assert average_metrics(Match("sdpo", **fewer)) is None
