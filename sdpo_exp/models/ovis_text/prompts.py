"""What Ovis-U1's language model reads: the three texts, their wrapping, their token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from sdpo_exp.errors import UserError

Kind = Literal["t2i", "edit", "unconditional"]
TokenIds = Callable[[str], Sequence[int]]

IMAGE_START, IMAGE_ATOM, IMAGE_END = -301, -300, -302

_IMAGE = "<image>"
_PLACEHOLDERS = (_IMAGE, "<video>")
_DESCRIBE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, and spatial "
    "relationships of the objects:"
)
_UNCONDITIONAL = "Generate an image."
# The user's turn alone: the model conditions on what is asked, no answer is begun.
_TURN = "<|im_start|>user\n{message}<|im_end|>\n"


def message(prompt: str, kind: Kind) -> str:
    """The text for `prompt`, which names one picture in front.

    Args:
        prompt: of `t2i` as it is, of `edit` without outer blanks; empty for `unconditional`.
        kind: `t2i`: describe what the prompt asks for, over a blank picture; `edit`: the
            instruction, over its source; `unconditional`: no wish, over either.

    Raises:
        UserError: the prompt has a placeholder of its own.
        ValueError: `unconditional` with a prompt.
    """
    refuse_placeholders(prompt)
    if kind == "t2i":
        return f"{_IMAGE}\n{_DESCRIBE}{prompt}"
    if kind == "edit":
        return f"{_IMAGE}\n{prompt.strip()}"
    if prompt:
        raise ValueError("the unconditional text takes no prompt")
    return f"{_IMAGE}\n{_UNCONDITIONAL}"


def refuse_placeholders(prompt: str) -> None:
    """A prompt with the model's own words for a picture would move the picture's place.

    Raises:
        UserError: it has one.
    """
    for word in _PLACEHOLDERS:
        if word in prompt:
            raise UserError(
                f"prompt {prompt[:60]!r}: Ovis-U1 reads {word} as the place of a picture; "
                "write the prompt without it"
            )


def token_ids(prompt: str, kind: Kind, tokenize: TokenIds) -> list[int]:
    """Ids of one user's turn; the picture's three ids are negative.

    Text before and after the picture is tokenised by itself, so no token spans the gap.

    Args:
        prompt, kind: as for `message`.
        tokenize: ids of a text, special tokens recognised and none added.

    Raises:
        UserError, ValueError: as `message`.
    """
    before, after = _TURN.format(message=message(prompt, kind)).split(_IMAGE)
    return [*tokenize(before), IMAGE_START, IMAGE_ATOM, IMAGE_END, *tokenize(after)]
