"""A column that says which of two images is preferred, by whatever words it uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote
from typing import Any, Literal, TypeAlias

from sdpo_exp.data.numbers import shortened
from sdpo_exp.errors import UserError

Choice: TypeAlias = Literal["image_0", "image_1", "tie"]
CHOICES: tuple[Choice, ...] = ("image_0", "image_1", "tie")
_TIES = frozenset(
    (
        *("", "tie", "tied", "ties", "both", "either", "equal", "same", "draw", "neither", "none"),
        *("nan", "null", "na", "n/a", "both_good", "both_bad", "no_preference", "undecided"),
    )
)
# Columns whose numbers count the images. Of others nobody knows what their 1 is said of.
_COUNTS = ("preferred", "preference", "choice", "chosen", "better", "best", "winner")
# Words for the first and for the second image, also behind or before what images are called.
_PAIRS = (("a", "b"), ("left", "right"), ("l", "r"), ("first", "second"), ("0", "1"), ("1", "2"))
_CALLED = ("image", "img", "jpg", "picture", "photo", "option", "model", "side")
_SHOWN = 6  # values in a message
_NUMBER = re.compile(r"-?[0-9.]+")
# What may be a key in Hydra's grammar.
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+( [A-Za-z0-9_./-]+)*")


def word(value: Any) -> str:
    """A cell as it is compared: text without case; `1.0`, as pandas makes of 1, is `1`."""
    text = "" if value is None else str(value).strip().lower()
    return text.removesuffix(".0")


def vocabulary(
    values: Sequence[Any], column: str, images: tuple[str, str], told: Mapping[Any, Any] | None
) -> dict[str, Choice]:
    """What words mean, those of the column and others of their kind; all else is a tie.

    What was told comes first. Then an image's own name means it, and what sets it apart from the
    other's. Only if these explain no value, the usual words for a first and a second image do: one
    pair of them, if that is the only one in which all values are.

    Args:
        values: those that there are; null is a tie.
        column: its name.
        images: names of the columns of image 0 and image 1.
        told: by value, what it means, or by `image_0`, `image_1` and `tie`, which words mean it;
            None: nothing.

    Raises:
        UserError: a value that nobody explains.
    """
    known = _told(told or {})
    there = dict.fromkeys(word(value) for value in values)
    asked = [value for value in there if value not in known and value not in _TIES]
    named = _by_names(column, images)
    known = (named if any(v in named for v in asked) else _usual(asked)) | known
    unknown = [value for value in asked if value not in known]
    if unknown:
        # Which numbers the other ones are depends on what these are.
        whole = unknown == asked or any(_NUMBER.fullmatch(value) for value in unknown)
        raise UserError(_question(asked if whole else unknown, column, images, all_of_them=whole))
    return dict.fromkeys(_TIES, CHOICES[2]) | known


def meanings(
    values: Sequence[Any], column: str, images: tuple[str, str], told: Mapping[Any, Any] | None
) -> dict[str, Choice]:
    """What each value of the column means, by its `word`; see `vocabulary`."""
    known = vocabulary(values, column, images, told)
    return {one: known[one] for one in dict.fromkeys(word(value) for value in values)}


def explained(found: Mapping[str, Choice], column: str, images: tuple[str, str]) -> str:
    """What was read, in words: `choice: a prefers img_a, b prefers img_b, tie is a tie`."""
    names = dict(zip(CHOICES, images, strict=False))
    parts = [
        f"{shortened(value) or 'nothing'} "
        f"{f'prefers {names[choice]}' if choice in names else 'is a tie'}"
        for value, choice in found.items()
    ]
    return f"{column}: {', '.join(parts)}"


def _told(told: Mapping[Any, Any]) -> dict[str, Choice]:
    """By word, what it means; a truth value means its words, too."""
    if (
        told
        and all(key in CHOICES for key in told)
        and any(v not in CHOICES for v in told.values())
    ):
        lists = {key: v if isinstance(v, list | tuple) else [v] for key, v in told.items()}
        told = {value: choice for choice, several in lists.items() for value in several}
    found: dict[str, Choice] = {}
    for value, choice in told.items():
        if choice not in CHOICES:
            means = f"{shortened(value)} means '{shortened(choice)}'"
            raise UserError(f"columns.values: {means}; it should mean one of {', '.join(CHOICES)}")
        words = (("false", "no"), ("true", "yes"))[value] if isinstance(value, bool) else (value,)
        found |= dict.fromkeys(map(word, words), choice)
    return found


def _by_names(column: str, images: tuple[str, str]) -> dict[str, Choice]:
    """An image's own name, and what sets it apart from the other's: `a` of `img_a` and `img_b`."""
    first, second = (name.lower() for name in images)
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    found: dict[str, Choice] = {first: "image_0", second: "image_1"}
    for name, choice in ((first, CHOICES[0]), (second, CHOICES[1])):
        short = name[shared:].strip("_- ")
        if short and (not short.isdigit() or column.lower() in _COUNTS):
            found[short] = choice
    return found


def _usual(asked: Sequence[str]) -> dict[str, Choice]:
    """The one pair of usual words that all these are of; nothing where several could be meant."""
    fitting = []
    for first, second in _PAIRS:
        known: dict[str, Choice] = dict.fromkeys(_calls(first), "image_0")
        known |= dict.fromkeys(_calls(second), "image_1")
        if asked and all(value in known for value in asked):
            fitting.append(known)
    # 0 and 1 are truth values as well as numbers of images.
    either = {"0", "1"} & {*asked} and any("0" in known for known in fitting)
    return fitting[0] if len(fitting) == 1 and not either else {}


def _calls(name: str) -> Iterator[str]:
    yield name
    for called, between in ((c, b) for c in _CALLED for b in ("", "_", " ", "-")):
        yield f"{called}{between}{name}"
        yield f"{name}{between}{called}"


def _question(
    unknown: Sequence[str], column: str, images: tuple[str, str], *, all_of_them: bool
) -> str:
    shown = ", ".join(shortened(value) for value in unknown[:_SHOWN])
    more = ", ..." if len(unknown) > _SHOWN else ""
    pairs = list(
        zip(map(shortened, unknown[:3]), CHOICES if all_of_them else CHOICES[2:], strict=False)
    )
    if all(_PLAIN.fullmatch(value) for value, _ in pairs):
        example = ", ".join(f"{value}: {choice}" for value, choice in pairs)
    else:  # Hydra has quotes for values alone
        escaped = ((value.replace("'", "\\'"), choice) for value, choice in pairs)
        example = ", ".join(f"{choice}: '{value}'" for value, choice in escaped)
    return (
        f"column '{column}': what do its values {shown}{more} mean? Give, with what is true of "
        f"{images[0]} (image_0) and {images[1]} (image_1): "
        + quote(f"data.train.columns.values={{{example}}}")
    )
