"""Pairing by prompt, as public manifests need it; by key it is tested with the comparison."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.evaluation.comparison import ImageKey, PromptKey, Score, compare_pairs
from sdpo_exp.evaluation.pairing import (
    BY_INDEX,
    BY_PROMPT,
    PromptPairing,
    pair_by_prompt,
    under_new_keys,
)
from sdpo_exp.evaluation.scores import ScoreTable, read_manifest_scores

MANIFESTS = Path(__file__).parent / "manifests"
PLUMS, DOOR, KITE, ROBOT = range(4)  # the common prompts in sorted order


def images(name: str, *prompts: str) -> dict[ImageKey, str]:
    return {ImageKey(name, index, 0): prompt for index, prompt in enumerate(prompts)}


def pairs(found: PromptPairing) -> list[tuple[int, int]]:
    """Places in a and b, in the order of the common keys."""
    back = {new: old.prompt for old, new in found.b.items()}
    return [(old.prompt, back[new]) for old, new in sorted(found.a.items(), key=lambda i: i[1])]


def recorded(name: str) -> ScoreTable:
    return read_manifest_scores(MANIFESTS / f"{name}.json").table


def recorded_pairing() -> PromptPairing:
    tables = [recorded(name) for name in ("base", "tuned")]
    prompts = [{ImageKey(*k, 0): text for k, text in table.texts.items()} for table in tables]
    return pair_by_prompt(*prompts)


def test_the_recorded_manifests_pair_by_hand() -> None:
    found = recorded_pairing()
    # Among the entries that count: plums is the base's 4th, the door its 7th, the kite its 1st and
    # 3rd, the robot its 2nd.
    assert pairs(found) == [(3, 1), (6, 0), (0, 2), (2, 4), (1, 3)]
    assert [(key.set, key.prompt, key.seed) for key in sorted(found.a.values())] == [
        (BY_PROMPT, PLUMS, 0), (BY_PROMPT, DOOR, 0), (BY_PROMPT, KITE, 0), (BY_PROMPT, KITE, 1),
        (BY_PROMPT, ROBOT, 0),
    ]  # fmt: skip
    assert found.texts[PromptKey(BY_PROMPT, KITE)] == "a red kite over a lake"
    assert found.surplus == (1, 0)  # the third kite
    assert found.unmatched == (1, 2)  # the street; the boat and the robot with a capital
    assert not found.by_index


def test_the_recorded_win_rates_by_hand() -> None:
    found, base, tuned = recorded_pairing(), recorded("base"), recorded("tuned")
    by = {
        metric: compare_pairs(
            under_new_keys(base.scores[metric], found.a),
            under_new_keys(tuned.scores[metric], found.b),
            resamples=100,
        )
        for metric in ("pickscore", "imagereward")
    }
    pick, reward = by["pickscore"], by["imagereward"]
    # Plums 0.19 -> 0.20, door 0.20 = 0.20, kites 0.20 -> 0.23 and 0.22 -> 0.21, robot 0.21 = 0.21.
    assert (pick.wins, pick.ties, pick.losses) == (2, 2, 1)
    assert pick.win_rate.value == (2 + 0.5 * 2) / 5
    assert pick.difference.value == pytest.approx((0.01 + 0 + 0.03 - 0.01 + 0) / 5)
    assert (pick.prompts, pick.images) == (4, 5)
    # 0 -> 0.5, 0.4 = 0.4, -0.5 -> 0.5, 0.3 -> 0.8, 0.1 -> 0.
    assert (reward.wins, reward.ties, reward.losses) == (3, 1, 1)
    assert reward.win_rate.value == (3 + 0.5) / 5


def test_prompts_are_compared_as_they_are_written() -> None:
    found = pair_by_prompt(images("a", "cat", "Dog ", "owl"), images("b", "owl", "Dog", "Cat"))
    assert pairs(found) == [(2, 0)]
    assert found.unmatched == (2, 2)


def test_uppercase_sorts_before_lowercase() -> None:
    found = pair_by_prompt(images("a", "ant", "Zoo"), images("b", "ant", "Zoo"))
    assert found.texts == {PromptKey(BY_PROMPT, 0): "Zoo", PromptKey(BY_PROMPT, 1): "ant"}


def test_without_a_common_prompt_the_order_of_the_files_decides() -> None:
    found = pair_by_prompt(images("a", "cat", "dog", "owl"), images("b", "CAT", "DOG"))
    assert found.by_index
    assert pairs(found) == [(0, 0), (1, 1)]
    assert found.surplus == (1, 0)
    assert found.texts == {PromptKey(BY_INDEX, 0): "cat", PromptKey(BY_INDEX, 1): "dog"}


def test_only_images_that_have_a_new_key_keep_their_scores() -> None:
    old, new = ImageKey("a", 0, 0), ImageKey(BY_PROMPT, 4, 1)
    scores = [Score(old, 0.5), Score(ImageKey("a", 1, 0), 0.6)]
    assert under_new_keys(scores, {old: new}) == [Score(new, 0.5)]


@given(*[st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)] * 2)
def test_as_many_pairs_of_a_prompt_as_both_have(a: list[str], b: list[str]) -> None:
    found = pair_by_prompt(images("a", *a), images("b", *b))
    counts = Counter(a) & Counter(b)
    assert set(found.a.values()) == set(found.b.values())
    if not counts:
        assert found.by_index
        return
    assert Counter(found.texts[PromptKey(k.set, k.prompt)] for k in found.a.values()) == counts
    assert all(a[i] == b[j] for i, j in pairs(found))
    assert len(found.a) + found.surplus[0] + found.unmatched[0] == len(a)
    assert len(found.b) + found.surplus[1] + found.unmatched[1] == len(b)
