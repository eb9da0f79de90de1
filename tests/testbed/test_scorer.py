"""The exact checker behind the scorers' protocol: the same verdicts, from PIL images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdpo_exp.errors import UserError
from sdpo_exp.protocols import Scorer
from sdpo_exp.testbed.attributes import Scene
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.checker import check
from sdpo_exp.testbed.render import render
from sdpo_exp.testbed.scorer import ExactScorer

DRAWN = Scene("circle", "large", "red", "blue", "top left")
PART_OFF = Scene("circle", "small", "red", "green", "top left")
WRONG = Scene("square", "small", "green", "white", "bottom right")


def image(scene: Scene = DRAWN) -> Image.Image:
    """A clean drawing, as 8-bit pixels."""
    pixels = np.round((render([scene])[0] * 0.5 + 0.5) * 255).astype(np.uint8)
    return Image.fromarray(pixels.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("part", "asked", "expected"),
    [
        ("accuracy", DRAWN, 1.0),
        ("accuracy", PART_OFF, 0.6),  # shape, colour and position of five
        ("accuracy", WRONG, 0.0),
        ("exact", DRAWN, 1.0),
        ("exact", PART_OFF, 0.0),
        ("cleanliness", DRAWN, 1.0),
        ("cleanliness", WRONG, 1.0),
        ("reward", DRAWN, 1.0),
        ("reward", PART_OFF, 0.7 * 0.6 + 0.3),
        ("reward", WRONG, 0.3),
    ],
)
def test_a_clean_drawing_by_hand(part: Any, asked: Scene, expected: float) -> None:
    scorer = ExactScorer(part)
    found = scorer.score([image()], [caption(asked)])
    assert found.item() == pytest.approx(expected, abs=0.01)
    assert (found.shape, found.dtype) == ((1,), torch.float32)
    assert scorer.name == f"tiny_{part}"


def test_it_is_a_scorer_shown_as_it_is() -> None:
    scorer: Scorer = ExactScorer()
    assert (scorer.name, scorer.display_scale, scorer.image_size) == ("tiny_reward", 1.0, None)
    assert ExactScorer().cut_prompts([caption(DRAWN)]) == 0


@pytest.mark.parametrize("part", ["reward", "accuracy", "exact", "cleanliness"])
def test_verdicts_are_the_checkers_own(part: Any) -> None:
    noise = np.random.default_rng(0).normal(0, 12, (3, 32, 32, 3))
    scenes = [DRAWN, PART_OFF, WRONG]
    clean = np.stack([np.asarray(image(scene)) for scene in scenes])
    pixels = np.clip(clean + noise, 0, 255).astype(np.uint8)
    found = ExactScorer(part).score([Image.fromarray(p) for p in pixels], [*map(caption, scenes)])
    assert np.array_equal(found.numpy(), getattr(check(pixels, scenes), part).astype(np.float32))


def test_modes_of_images_do_not_matter() -> None:
    others = [image().convert("RGBA"), image().quantize(8)]
    found = ExactScorer().score([image(), *others], [caption(DRAWN)] * 3)
    assert found.min() > 0.99


def test_no_images_give_no_scores() -> None:
    assert (ExactScorer().score([], []).shape, ExactScorer().score([], []).dtype) == (
        (0,),
        torch.float32,
    )


def test_what_is_not_of_this_world_is_named(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    image().resize((64, 48)).save(path)
    text = caption(DRAWN)
    with pytest.raises(UserError, match=r"tiny_reward: image 1 is 64 x 48; .* are 32 x 32"):
        ExactScorer().score([image(), image().resize((64, 48))], [text, text])
    with pytest.raises(UserError, match=r"image 0 \(.*large\.png\) is 64 x 48"):
        ExactScorer().score([Image.open(path)], [text])
    with pytest.raises(UserError, match="prompt 1 is not a caption of the testbed: 'a red cat'"):
        ExactScorer().score([image(), image()], [text, "a red cat"])


def test_one_prompt_per_image_is_asked_for() -> None:
    with pytest.raises(ValueError, match="2 images and 1 prompts"):
        ExactScorer().score([image(), image()], [caption(DRAWN)])


def test_another_part_is_refused() -> None:
    with pytest.raises(UserError, match="part must be one of reward, accuracy"):
        ExactScorer("beauty")  # type: ignore[arg-type]
