"""Scenes and splits: how many, disjoint, balanced, the same in every run."""

import hashlib
import itertools
from collections import Counter

import pytest

from sdpo_exp.testbed.attributes import (
    ATTRIBUTES,
    SPLITS,
    VALUES,
    Scene,
    all_scenes,
    alternatives,
    differing,
    split_scenes,
)

RED_CIRCLE = Scene("circle", "large", "red", "blue", "top left")


def test_there_are_2800_distinct_scenes():
    assert len(all_scenes()) == len(set(all_scenes())) == 5 * 2 * 8 * 7 * 5


def test_splits_are_disjoint_and_cover_the_world():
    parts = [set(split_scenes(split)) for split in SPLITS]
    assert [len(part) for part in parts] == [2150, 250, 400]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(parts, 2))
    assert set().union(*parts) == set(all_scenes())


def test_splits_are_pinned():
    # A change here moves every published number of the testbed: CHANGELOG "changes numbers".
    digest = hashlib.sha256(repr([split_scenes(split) for split in SPLITS]).encode()).hexdigest()
    assert digest[:16] == "9a32c46c549d3ee5"


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_value_occurs_in_every_split_in_proportion(split, attribute):
    scenes = split_scenes(split)
    counts = Counter(getattr(scene, attribute) for scene in scenes)
    even = len(scenes) / len(VALUES[attribute])
    assert set(counts) == set(VALUES[attribute])
    assert all(0.6 * even <= count <= 1.4 * even for count in counts.values())
    if attribute in ("shape", "size", "position"):
        assert set(counts.values()) == {even}


@pytest.mark.parametrize("field", ATTRIBUTES)
def test_unknown_values_are_refused(field):
    values = dict(zip(ATTRIBUTES, ("circle", "large", "red", "blue", "centre"), strict=True))
    with pytest.raises(ValueError, match=f"{field} must be one of"):
        Scene(**{**values, field: "plaid"})


def test_equal_colours_are_refused():
    with pytest.raises(ValueError, match="both 'red'"):
        Scene("circle", "large", "red", "red", "centre")


def test_alternatives_never_repeat_a_colour_of_the_scene():
    assert "red" not in alternatives(RED_CIRCLE, "background")
    assert "blue" not in alternatives(RED_CIRCLE, "background")
    assert alternatives(RED_CIRCLE, "size") == ("small",)
    assert [len(alternatives(RED_CIRCLE, name)) for name in ATTRIBUTES] == [4, 1, 6, 6, 4]


def test_differing_names_the_changed_attributes():
    other = Scene("circle", "small", "red", "blue", "centre")
    assert differing(RED_CIRCLE, other) == ("size", "position")
    assert differing(RED_CIRCLE, RED_CIRCLE) == ()
