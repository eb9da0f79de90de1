"""Pictures of a few prompts at the end of a run: from held-out captions or a set, scored or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sdpo_exp.errors import UserError
from sdpo_exp.generation.prompt_images import PromptImages
from sdpo_exp.randomness import sampling_noise
from tests.painting import Paints, Red, Two


class Picky(Red):
    name = "picky"

    @classmethod
    def refuses(cls, prompts: Sequence[str]) -> str | None:
        return "no foxes" if any("fox" in prompt for prompt in prompts) else None


def painted(seed: int, bias: float, count: int) -> np.ndarray:
    noise = sampling_noise(seed, count, (3, 8, 8)).permute(0, 2, 3, 1).numpy()
    return np.round(np.clip(0.5 + 0.1 * noise + 10 * bias, 0, 1) * 255).astype(np.uint8)


def model(bias: float = 0.0) -> Paints:
    found = Paints()
    found.denoiser.last.bias.data.fill_(bias)
    found.denoiser.eval()
    return found


def test_two_models_draw_the_same_captions_from_the_same_noises() -> None:
    images = PromptImages(n=3, seed=5, steps=4, guidance=3.0, batch=2)
    assert images.captions_wanted == 3
    images.take_captions(["a fox", "a hen", "an owl"])
    base, tuned = images(model()), images(model(0.01))
    assert base.prompts == tuned.prompts == ["a fox", "a hen", "an owl"]
    assert base.scores == tuned.scores == {}
    np.testing.assert_array_equal(base.images, painted(5, 0.0, 3))
    np.testing.assert_array_equal(tuned.images, painted(5, 0.01, 3))
    told = "3 held-out captions of the data, 4 steps, guidance 3, noise seed 5"
    assert images.description == told


def test_a_set_is_drawn_as_far_as_it_goes_and_scored() -> None:
    images = PromptImages(prompts=Two(3), scorers={"a": Red()}, n=2, batch=1)
    assert images.captions_wanted == 0
    found = images(model())
    assert found.prompts == ["picture 0", "picture 1"]
    assert list(found.scores["red"]) == pytest.approx(painted(0, 0.0, 2)[..., 0].mean((1, 2)))
    assert len(PromptImages(prompts=Two(3), n=9)(model()).prompts) == 3


def test_what_cannot_be_drawn_or_judged_is_told_before_a_training() -> None:
    with pytest.raises(UserError, match=r"no caption to draw; give a prompt set, such as prompts@"):
        PromptImages().take_captions([])
    with pytest.raises(UserError, match=r"evaluation.scorers: no foxes"):
        PromptImages(scorers={"p": Picky()}).take_captions(["a fox"])
    twice: dict[str, Any] = {"a": Red(), "b": Red()}
    with pytest.raises(UserError, match=r"two are named alike \(red, red\)"):
        PromptImages(scorers=twice)
