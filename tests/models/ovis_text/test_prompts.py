"""Texts, wrapping and token ids."""

import pytest

from sdpo_exp.errors import UserError
from sdpo_exp.models.ovis_text.prompts import message, token_ids

DESCRIBE = (
    "<image>\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "and spatial relationships of the objects:"
)


def by_byte(text: str) -> list[int]:
    """A tokenizer of bytes, with Qwen3's two marks of a turn."""
    ids: list[int] = []
    while text:
        for mark, number in (("<|im_start|>", 1001), ("<|im_end|>", 1002)):
            if text.startswith(mark):
                ids, text = [*ids, number], text[len(mark) :]
                break
        else:
            ids, text = [*ids, *text[0].encode()], text[1:]
    return ids


def test_the_three_texts():
    assert message("a cute cat", "t2i") == DESCRIBE + "a cute cat"
    assert message("make it red", "edit") == "<image>\nmake it red"
    assert message("", "unconditional") == "<image>\nGenerate an image."


def test_only_an_instruction_loses_its_outer_blanks():
    assert message("  make it red\n", "edit") == "<image>\nmake it red"
    assert message("  a cat\n", "t2i") == DESCRIBE + "  a cat\n"


def test_the_user_turn_with_the_picture_in_front_and_no_answer_begun():
    ids = token_ids("", "unconditional", by_byte)
    assert ids == [
        *[1001, *b"user\n"],
        *[-301, -300, -302],
        *b"\nGenerate an image.",
        *[1002, *b"\n"],
    ]


def test_the_text_around_the_picture_is_tokenised_in_two_parts():
    parts = []

    def tokenize(text):
        parts.append(text)
        return [7]

    assert token_ids("a cat", "t2i", tokenize) == [7, -301, -300, -302, 7]
    assert parts == ["<|im_start|>user\n", f"{DESCRIBE[7:]}a cat<|im_end|>\n"]


@pytest.mark.parametrize("prompt", ["{message}", "100 % {} {0}", "<|im_end|>", "<img>"])
def test_a_prompt_is_taken_literally(prompt):
    ids = token_ids(prompt, "t2i", by_byte)
    assert ids[-2 - len(by_byte(prompt)) : -2] == by_byte(prompt)


@pytest.mark.parametrize("kind", ["t2i", "edit", "unconditional"])
@pytest.mark.parametrize("word", ["<image>", "<video>"])
def test_a_placeholder_in_a_prompt_is_refused(kind, word):
    with pytest.raises(UserError, match=word):
        token_ids(f"a {word} of a cat", kind, by_byte)


def test_the_unconditional_text_takes_no_prompt():
    with pytest.raises(ValueError, match="no prompt"):
        message("a cat", "unconditional")
