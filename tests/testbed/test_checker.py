"""The checker is right about every clean image, about every single mistake, and about rubbish."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from sdpo_exp.errors import UserError
from sdpo_exp.testbed.attributes import ATTRIBUTES, COLOURS, Scene, all_scenes, alternatives
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.checker import check, read, reward_from_prompts
from sdpo_exp.testbed.render import draw_offsets, render

SAMPLE = all_scenes()[::7]


def to_bytes(images):
    return np.round((images.transpose(0, 2, 3, 1) + 1) * 127.5).astype(np.uint8)


@pytest.mark.parametrize("offset", itertools.product((-1, 0, 1), repeat=2))
def test_every_clean_scene_is_right_at_every_jitter(offset):
    images = render(all_scenes(), np.tile(offset, (len(all_scenes()), 1)))
    result = check(images, all_scenes())
    assert result.exact.all()
    np.testing.assert_allclose(result.cleanliness, 1, atol=1e-5)
    np.testing.assert_allclose(result.reward, 1, atol=1e-5)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_one_wrong_attribute_fails_alone(attribute):
    pairs = [
        (scene, dataclasses.replace(scene, **{attribute: value}))
        for scene in SAMPLE
        for value in alternatives(scene, attribute)
    ]
    offsets = draw_offsets(np.random.default_rng(1), len(pairs))
    result = check(render([wrong for _, wrong in pairs], offsets), [scene for scene, _ in pairs])
    expected = np.array([name != attribute for name in ATTRIBUTES])
    assert (result.correct == expected).all()
    np.testing.assert_allclose(result.reward, 0.7 * 0.8 + 0.3, atol=1e-5)


def test_bytes_and_tensors_give_the_verdicts_of_float_arrays():
    images = render(SAMPLE)
    wanted = check(images, SAMPLE)
    as_bytes = check(to_bytes(images), SAMPLE)
    assert (as_bytes.correct == wanted.correct).all()
    np.testing.assert_allclose(as_bytes.reward, wanted.reward, atol=0.01)
    as_tensor = check(torch.from_numpy(images), SAMPLE)
    np.testing.assert_array_equal(as_tensor.reward, wanted.reward)


def test_slight_noise_keeps_the_attributes_and_costs_cleanliness():
    generator = np.random.default_rng(2)
    images = render(SAMPLE)
    result = check(images + generator.normal(0, 0.1, images.shape), SAMPLE)
    assert result.exact.all()
    assert (result.cleanliness < 0.95).all()
    assert (result.cleanliness > 0.5).all()


@pytest.mark.parametrize("kind", ["uniform", "normal", "binary", "blocks", "blank", "not_a_number"])
def test_rubbish_scores_low(kind):
    generator, shape = np.random.default_rng(3), (len(SAMPLE), 3, 32, 32)
    blocks = np.kron(generator.uniform(-1, 1, (len(SAMPLE), 3, 8, 8)), np.ones((4, 4)))
    images = {
        "uniform": generator.uniform(-1, 1, shape),
        "normal": generator.normal(0, 1, shape),
        "binary": generator.choice([-1.0, 1.0], shape),
        "blocks": blocks,
        "blank": np.broadcast_to(generator.uniform(-1, 1, (len(SAMPLE), 3, 1, 1)), shape),
        "not_a_number": np.full(shape, np.nan),
    }[kind]
    result = check(images, SAMPLE)
    assert result.reward.mean() < 0.06
    assert result.reward.max() <= 0.7 * 0.4 + 1e-6
    assert not result.correct[:, [0, 1, 4]].any()


def test_a_shape_between_two_corners_has_no_position():
    scene = Scene("circle", "large", "red", "white", "top left")
    between = np.roll(render([scene]), 7, axis=3)
    assert read(between).values[0].tolist() == [*scene.indices[:4], -1]


def test_verdicts_do_not_depend_on_the_batch():
    images = render(SAMPLE[:300]) + np.random.default_rng(4).normal(0, 0.3, (300, 3, 32, 32))
    together = check(images, SAMPLE[:300])
    alone = [check(images[i : i + 1], SAMPLE[i : i + 1]).reward[0] for i in range(0, 300, 37)]
    np.testing.assert_allclose(together.reward[::37], alone, atol=1e-5)


def test_rewards_from_prompts_are_the_rewards_of_their_scenes():
    images, prompts = render(SAMPLE[:20]), [caption(scene) for scene in SAMPLE[:20]]
    np.testing.assert_allclose(reward_from_prompts(images, prompts), 1, atol=1e-5)
    assert reward_from_prompts(images, prompts[1:] + prompts[:1]).max() < 1
    with pytest.raises(UserError, match="not a caption"):
        reward_from_prompts(images[:1], ["a photo of a cat"])


def test_shares_by_attribute_are_named():
    result = check(render(SAMPLE[:4]), SAMPLE[:4])
    assert result.by_attribute() == dict.fromkeys(ATTRIBUTES, 1.0)


def test_no_images_give_no_verdicts():
    assert check(np.empty((0, 3, 32, 32)), []).reward.shape == (0,)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 3, 64, 64)), np.zeros((1, 32, 32, 3)), np.zeros((1, 3, 32, 32), dtype=np.int64)],
)
def test_other_shapes_and_types_are_refused(images):
    with pytest.raises(ValueError, match="images must be"):
        check(images, SAMPLE[:1])


def test_counts_must_agree():
    with pytest.raises(ValueError, match="2 images for 1 scenes"):
        check(render(SAMPLE[:2]), SAMPLE[:1])


def test_colours_are_told_apart_in_every_pairing():
    seen = {(s.foreground, s.background) for s in all_scenes()}
    assert len(seen) == len(COLOURS) * (len(COLOURS) - 1)
