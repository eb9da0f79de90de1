"""Captions parse back to their scene, and nothing else parses."""

import pytest

from sdpo_exp.errors import UserError
from sdpo_exp.testbed.attributes import Scene, all_scenes
from sdpo_exp.testbed.captions import VOCABULARY, caption, parse_caption

EXAMPLE = "a large red circle on a blue background at the top left"


def test_caption_reads_as_documented():
    assert caption(Scene("circle", "large", "red", "blue", "top left")) == EXAMPLE


def test_every_caption_parses_back_to_its_scene():
    assert [parse_caption(caption(scene)) for scene in all_scenes()] == list(all_scenes())


def test_the_vocabulary_is_exactly_the_words_that_occur():
    words = {word for scene in all_scenes() for word in caption(scene).split()}
    assert words == set(VOCABULARY)
    assert len(VOCABULARY) == len(words) == 25


def test_captions_fit_the_text_encoder():
    assert max(len(caption(scene).split()) for scene in all_scenes()) + 2 <= 16


@pytest.mark.parametrize("text", [f"  {EXAMPLE} ", EXAMPLE.upper(), EXAMPLE.replace(" ", "  ")])
def test_case_and_blanks_do_not_matter(text):
    assert caption(parse_caption(text)) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a photo of a cat",
        EXAMPLE + " corner",
        EXAMPLE.replace("red", "pink"),
        EXAMPLE.replace("top left", "left"),
    ],
)
def test_other_text_is_a_readable_mistake(text):
    with pytest.raises(UserError, match=r"not a caption of the testbed.*'a large red circle"):
        parse_caption(text)


def test_equal_colours_are_a_readable_mistake():
    with pytest.raises(UserError, match="both 'red'"):
        parse_caption(EXAMPLE.replace("blue", "red"))
