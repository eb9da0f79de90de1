"""Rules by hand: who wins, by how much, and when nobody does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.data.preference_rules import PreferenceRule, Verdicts, differences, scale_of


def scores(**metrics: list[tuple[float, float]]) -> dict[str, Any]:
    return {name: np.array(pairs, np.float32).reshape(-1, 2) for name, pairs in metrics.items()}


def leads(rule: PreferenceRule, **metrics: list[tuple[float, float]]) -> list[float]:
    found: list[float] = rule.judge(scores(**metrics)).lead.tolist()
    return found


def test_one_scorer_decides_on_its_own_scale() -> None:
    pairs = [(3.0, 1.0), (1.0, 1.5), (2.0, 2.0)]
    other = [(0.0, 9.0)] * 3
    assert leads(PreferenceRule(), a=pairs) == [2.0, -0.5, 0.0]
    assert leads(PreferenceRule(by="a"), b=other, a=pairs) == [2.0, -0.5, 0.0]
    assert leads(PreferenceRule(by="b"), b=other, a=pairs) == [-9.0] * 3


def test_only_equal_scores_are_a_tie_of_one_scorer() -> None:
    nearly = float(np.nextafter(np.float32(0.2), np.float32(1)))
    verdicts = PreferenceRule().judge(scores(a=[(0.2, 0.2), (nearly, 0.2)]))
    assert verdicts.ties.tolist() == [True, False]
    assert 0 < verdicts.lead[1] < 1e-7


def test_two_votes_agree_or_cancel_and_an_abstention_leaves_half() -> None:
    rule = PreferenceRule("vote")
    found = leads(
        rule,
        a=[(2, 1), (2, 1), (1, 2), (1, 1), (5, 5)],
        b=[(9, 8), (8, 9), (0, 0), (0, 1), (3, 3)],
    )
    assert found == [1.0, 0.0, -0.5, -0.5, 0.0]


def test_three_votes_make_a_majority_unless_one_abstains() -> None:
    verdicts = PreferenceRule("vote").judge(
        scores(
            a=[(1, 0), (1, 0), (1, 0), (0, 1)],
            b=[(1, 0), (1, 0), (0, 1), (0, 1)],
            c=[(1, 0), (0, 1), (4, 4), (0, 1)],
        )
    )
    assert verdicts.lead.tolist() == pytest.approx([1.0, 1 / 3, 0.0, -1.0])
    assert verdicts.ties.tolist() == [False, False, True, False]


A = [(2.0, 0.0), (0.0, 2.0), (2.0, 0.0)]  # differences 2, -2, 2: scale 2
B = [(0.0, 0.5), (0.5, 0.0), (0.5, 0.0)]  # -0.5, 0.5, 0.5: scale 0.5


@pytest.mark.parametrize(
    ("standardise", "weights", "expected"),
    [
        (False, None, [1.5, -1.5, 2.5]),
        (False, {"a": 1.0, "b": 8.0}, [-2.0, 2.0, 6.0]),
        (True, None, [0.0, 0.0, 2.0]),
        (True, {"a": 1.0, "b": 3.0}, [-2.0, 2.0, 4.0]),
        (True, {"b": 3.0}, [-3.0, 3.0, 3.0]),
    ],
)
def test_a_weighted_sum(
    standardise: bool, weights: dict[str, float] | None, expected: list[float]
) -> None:
    rule = PreferenceRule("weighted_sum", weights=weights, standardise=standardise)
    assert leads(rule, a=A, b=B) == expected


def test_the_scale_is_the_deviation_in_either_order_and_1_where_nothing_differs() -> None:
    # With both orders of every pair the mean is 0 and the deviation sqrt((9 + 16) / 2).
    assert scale_of(np.array([3.0, 4.0])) == math.sqrt(12.5)
    both_orders = np.array([3.0, 4.0, -3.0, -4.0])
    assert scale_of(np.array([3.0, 4.0])) == float(both_orders.std())
    assert scale_of(np.zeros(3)) == 1.0
    assert scale_of(np.zeros(0)) == 1.0
    same = [(1.0, 1.0)] * 3
    assert leads(PreferenceRule("weighted_sum"), a=A, b=same) == [1.0, -1.0, 1.0]


def test_a_lead_below_min_margin_is_no_winner_and_no_tie() -> None:
    rule = PreferenceRule(min_margin=0.5)
    verdicts = rule.judge(scores(a=[(1, 0), (0, 0.5), (0.25, 0), (0, 0.25), (1, 1)]))
    assert verdicts.narrow.tolist() == [False, False, True, True, False]
    assert verdicts.ties.tolist() == [False, False, False, False, True]
    assert verdicts.kept.tolist() == [True, True, False, False, False]


def test_a_margin_of_votes_asks_for_a_larger_majority() -> None:
    two_to_one = scores(a=[(1, 0)], b=[(1, 0)], c=[(0, 1)])
    assert PreferenceRule("vote", min_margin=0.3).judge(two_to_one).kept.all()
    assert not PreferenceRule("vote", min_margin=0.5).judge(two_to_one).kept.any()


finite = st.floats(-100, 100, width=32, allow_subnormal=False)
RULES = (
    PreferenceRule(by="b", min_margin=0.1),
    PreferenceRule("vote"),
    PreferenceRule("weighted_sum", weights={"a": 0.5, "b": 2.0}),
    PreferenceRule("weighted_sum", standardise=False, min_margin=1.0),
)


@given(
    st.sampled_from(RULES),
    st.lists(st.tuples(finite, finite, finite, finite, st.booleans()), min_size=1, max_size=8),
)
def test_exchanging_images_exchanges_verdicts_and_nothing_else(
    rule: PreferenceRule, rows: list[tuple[float, float, float, float, bool]]
) -> None:
    def judged(*, exchanged: bool) -> Verdicts:
        flip = [exchanged and row[4] for row in rows]
        sides = {
            name: [
                (r[i + 1], r[i]) if f else (r[i], r[i + 1]) for r, f in zip(rows, flip, strict=True)
            ]
            for name, i in (("a", 0), ("b", 2))
        }
        return rule.judge(scores(**sides))

    before, after = judged(exchanged=False), judged(exchanged=True)
    signs = np.array([-1.0 if row[4] else 1.0 for row in rows])
    assert np.array_equal(after.lead, before.lead * signs)
    assert np.array_equal(after.kept, before.kept)


def test_no_pairs_have_no_verdicts() -> None:
    for rule in RULES:
        assert rule.judge(scores(a=[], b=[])).kept.tolist() == []


@pytest.mark.parametrize(
    ("rule", "metrics", "words"),
    [
        (
            PreferenceRule(by="c"),
            ["a", "b"],
            ["by=c: not among the chosen metrics; there are: a, b"],
        ),
        (PreferenceRule(), ["a", "b"], ["by: which metric decides?"]),
        (PreferenceRule("vote"), ["a"], ["rule=vote: takes two metrics or more"]),
        (PreferenceRule("vote", by="a"), ["a", "b"], ["by=a: belongs to rule=scorer"]),
        (PreferenceRule(weights={"a": 1}), ["a"], ["weights: belong to rule=weighted_sum"]),
        (
            PreferenceRule("weighted_sum", by="a", weights={"c": 1, "d": 1}),
            ["a", "b"],
            ["by=a: belongs", "weights.c: not among", "weights.d: not among"],
        ),
        (PreferenceRule("weighted_sum", weights={}), ["a"], ["weights: empty"]),
    ],
)
def test_what_does_not_fit_is_told(
    rule: PreferenceRule, metrics: list[str], words: list[str]
) -> None:
    found = rule.problems(metrics)
    assert len(found) == len(words)
    assert all(line.startswith(word) for line, word in zip(found, words, strict=True))
    with pytest.raises(ValueError, match=r"."):
        rule.judge(scores(**{name: [(1, 0)] for name in metrics}))


def test_a_score_that_is_no_number_is_refused() -> None:
    for broken in (math.nan, math.inf):
        with pytest.raises(ValueError, match="b: scores must be finite"):
            differences(scores(a=[(1, 0)], b=[(broken, 0)]))
