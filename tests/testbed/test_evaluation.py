"""Base and tuned are asked the same questions, and judged on the images that one can look at."""

import numpy as np
import pytest

from sdpo_exp.errors import UserError
from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.testbed.attributes import split_scenes
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.checker import check
from sdpo_exp.testbed.evaluation import ExactReward


@pytest.fixture(scope="module")
def backbone():
    return TinyBackbone()


@pytest.fixture(scope="module")
def result(backbone):
    return ExactReward("test", n=3, steps=2)(backbone)


def test_prompts_are_the_first_captions_of_the_split(result):
    assert result.prompts == [caption(scene) for scene in split_scenes("test")[:3]]


def test_scores_are_the_checker_s_of_the_returned_images(result):
    assert result.images.shape == (3, 32, 32, 3)
    assert result.images.dtype == np.uint8
    verdict = check(result.images, split_scenes("test")[:3])
    np.testing.assert_array_equal(result.scores["reward"], verdict.reward.astype(float))
    np.testing.assert_array_equal(result.scores["shape"], verdict.correct[:, 0])
    assert list(result.scores)[:2] == ["reward", "accuracy"]
    assert set(result.scores) >= {"size", "position", "exact", "cleanliness"}


def test_an_image_depends_on_its_row_and_the_seed_only(backbone, result):
    fewer = ExactReward("test", n=2, steps=2)(backbone)
    apart = np.abs(fewer.images.astype(int) - result.images[:2])
    assert apart.max() <= 1
    other = ExactReward("test", n=2, steps=2, seed=1)(backbone)
    assert np.abs(other.images.astype(int) - result.images[:2]).max() > 20


def test_another_model_gets_other_scores_on_the_same_prompts(result):
    broken = TinyBackbone()
    for parameter in broken.denoiser.parameters():
        parameter.data.zero_()
    worse = ExactReward("test", n=3, steps=2)(broken)
    assert worse.prompts == result.prompts
    assert worse.scores["cleanliness"].mean() < result.scores["cleanliness"].mean()


def test_a_model_that_diverged_is_judged_and_not_a_crash():
    broken = TinyBackbone()
    for parameter in broken.denoiser.parameters():
        parameter.data.fill_(float("nan"))
    scores = ExactReward("test", n=2, steps=2)(broken).scores
    assert np.isfinite(scores["reward"]).all()
    assert scores["accuracy"].max() < 1


def test_splits_are_disjoint():
    first, second = (set(split_scenes(split)) for split in ("validation", "test"))
    assert not first & second
    assert not (first | second) & set(split_scenes("train"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "tset"}, "split must be one of train, validation, test, got 'tset'"),
        (
            {"split": "validation", "n": 251},
            "evaluation.n=251: the validation split has 250 captions",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        ExactReward(**settings)
