"""Synthetic pairs: a pure function of (split, seed, changed, index), ordered, never tied."""

import hashlib

import numpy as np
import pytest
import torch

from sdpo_exp.errors import UserError
from sdpo_exp.testbed.attributes import SPLITS, differing, split_scenes
from sdpo_exp.testbed.captions import parse_caption
from sdpo_exp.testbed.checker import check
from sdpo_exp.testbed.pairs import SyntheticPairs, corrupt

BASE = {"split": "train", "size": 400, "seed": 0, "changed": (1, 2)}


def same(first, second):
    return (
        first.prompt == second.prompt
        and torch.equal(first.winner, second.winner)
        and torch.equal(first.loser, second.loser)
    )


@pytest.fixture(scope="module", params=SPLITS)
def source(request):
    return SyntheticPairs(**{**BASE, "split": request.param})


@pytest.fixture(scope="module")
def rows(source):
    return [source[index] for index in range(len(source))]


def test_rows_are_float_images_in_range(rows):
    assert len(rows) == 400
    for row in rows:
        assert row.winner.shape == row.loser.shape == (3, 32, 32)
        assert row.winner.dtype == row.loser.dtype == torch.float32
        assert max(row.winner.abs().max(), row.loser.abs().max()) <= 1


def test_winner_matches_its_prompt_and_loser_breaks_one_or_two_attributes(rows):
    scenes = [parse_caption(row.prompt) for row in rows]
    assert check(np.stack([row.winner for row in rows]), scenes).exact.all()
    losers = check(np.stack([row.loser for row in rows]), scenes)
    wrong = (~losers.correct).sum(1)
    assert set(wrong.tolist()) == {1, 2}
    assert losers.correct.mean(0).max() < 1


def test_never_a_tie(rows):
    assert not any(torch.equal(row.winner, row.loser) for row in rows)


def test_prompts_stay_in_their_split(source, rows):
    assert {parse_caption(row.prompt) for row in rows} <= set(split_scenes(source.split))


def test_scenes_say_what_a_row_shows(source, rows):
    for index in range(0, 400, 50):
        winner, loser = source.scenes(index)
        assert parse_caption(rows[index].prompt) == winner
        assert check(rows[index].loser[None], [loser]).exact.all()


def test_a_row_depends_on_nothing_but_its_index():
    source = SyntheticPairs(**BASE)
    backwards = [source[index] for index in (9, 3, 3, 0)]
    fresh = SyntheticPairs(**{**BASE, "size": 10})
    forwards = [fresh[index] for index in (9, 3, 3, 0)]
    assert all(same(a, b) for a, b in zip(backwards, forwards, strict=True))


@pytest.mark.parametrize("change", [{"seed": 1}, {"split": "test"}, {"changed": (3,)}])
def test_rows_depend_on_every_other_parameter(change):
    base, other = SyntheticPairs(**BASE), SyntheticPairs(**{**BASE, **change})
    assert not any(same(base[index], other[index]) for index in range(20))


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"split": "test"}, {"split": "validation"}, {"changed": (1,)}, {"size": 401}],
)
def test_fingerprint_changes_with_each_parameter(change):
    assert SyntheticPairs(**BASE).fingerprint() == SyntheticPairs(**BASE).fingerprint()
    assert (
        SyntheticPairs(**BASE).fingerprint() != SyntheticPairs(**{**BASE, **change}).fingerprint()
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_corrupt_changes_exactly_as_many_attributes_as_asked(count):
    generator = np.random.default_rng(0)
    for scene in split_scenes("validation"):
        assert len(differing(scene, corrupt(scene, count, generator))) == count


@pytest.mark.parametrize("index", [-1, 400])
def test_indices_outside_are_refused(index):
    with pytest.raises(IndexError):
        SyntheticPairs(**BASE)[index]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, "split must be one of train, validation, test"),
        ({"size": 0}, "size must be >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"changed": ()}, "changed must hold"),
        ({"changed": (0, 1)}, "changed must hold"),
        ({"changed": (6,)}, "changed must hold"),
    ],
)
def test_mistakes_are_readable(change, message):
    with pytest.raises(UserError, match=message):
        SyntheticPairs(**{**BASE, **change})


def test_flaws_are_wrong_in_both_and_in_the_same_way():
    source = SyntheticPairs("train", 200, flaws=2, changed=[1])
    for index in range(200):
        wanted = parse_caption(source[index].prompt)
        winner, loser = source.scenes(index)
        shared = set(differing(wanted, winner))
        assert len(shared) == 2
        assert len(differing(winner, loser)) == 1
        # The loser is wrong in one more place, and never right where the winner is wrong.
        assert set(differing(wanted, loser)) == shared | set(differing(winner, loser))
        assert len(differing(wanted, loser)) == 3


def test_without_flaws_the_rows_are_those_of_the_first_version():
    digest = hashlib.sha256()
    for index in range(20):
        winner, loser = SyntheticPairs("train", 20).scenes(index)
        digest.update(f"{winner.indices}{loser.indices}".encode())
    assert digest.hexdigest()[:16] == "2994d7ef0951b625"


@pytest.mark.parametrize("settings", [{"flaws": 4}, {"flaws": -1}, {"flaws": 3, "changed": [3]}])
def test_flaws_must_leave_attributes_to_change(settings):
    with pytest.raises(UserError, match="together touch more than the 5 attributes"):
        SyntheticPairs(**settings)
