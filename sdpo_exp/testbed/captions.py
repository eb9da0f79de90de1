"""Captions of scenes, both ways: "a large red circle on a blue background at the top left"."""

from __future__ import annotations

import re

from sdpo_exp.errors import UserError
from sdpo_exp.testbed.attributes import COLOURS, POSITIONS, SHAPES, SIZES, Scene


def caption(scene: Scene) -> str:
    """The one caption of a scene: 11 or 12 lower-case words."""
    return (
        f"a {scene.size} {scene.foreground} {scene.shape} "
        f"on a {scene.background} background at the {scene.position}"
    )


def parse_caption(text: str) -> Scene:
    """The scene that a caption describes; case and surrounding or repeated blanks are ignored.

    Raises:
        UserError: the text is not a caption of this world.
    """
    found = _PATTERN.fullmatch(" ".join(text.lower().split()))
    if found is None:
        raise UserError(
            f"not a caption of the testbed: {text!r}. Captions read like "
            f"'a large red circle on a blue background at the top left', with sizes {SIZES}, "
            f"colours {COLOURS}, shapes {SHAPES} and positions {POSITIONS}"
        )
    try:
        return Scene(**found.groupdict())
    except ValueError as error:
        raise UserError(f"not a caption of the testbed: {text!r}: {error}") from error


def _one_of(name: str, values: tuple[str, ...]) -> str:
    return f"(?P<{name}>{'|'.join(values)})"


_PATTERN = re.compile(
    f"a {_one_of('size', SIZES)} {_one_of('foreground', COLOURS)} {_one_of('shape', SHAPES)} "
    f"on a {_one_of('background', COLOURS)} background at the {_one_of('position', POSITIONS)}"
)

# 25 words: every word that can occur in a caption, and nothing else.
VOCABULARY: tuple[str, ...] = (
    *("a", "on", "background", "at", "the"),
    *SIZES,
    *COLOURS,
    *SHAPES,
    *dict.fromkeys(" ".join(POSITIONS).split()),
)
