"""Columns of a table of pairs by their usual names, where nobody said which are what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from sdpo_exp.data.default_columns import IN_ORDER, LABEL, PICKAPIC
from sdpo_exp.data.numbers import listed
from sdpo_exp.errors import UserError

if TYPE_CHECKING:
    from sdpo_exp.data.columns import Columns

# As `_folded` has them, which is without case, `_`, `-` and spaces.
CAPTIONS = ("caption", "prompt", "text")
PREFERRED = ("preferred", "preference", "choice", "chosen", "better", "best", "label", "winner")
_LABEL = "label0"
_BETTER = (
    *(("winner", "loser"), ("chosen", "rejected"), ("win", "lose"), ("preferred", "rejected")),
    *(("accepted", "rejected"), ("positive", "negative"), ("better", "worse"), ("good", "bad")),
)
_TWO = (("0", "1"), ("1", "2"), ("a", "b"), ("left", "right"), ("first", "second"))
# What an image is called, before or behind one of these.
_CALLED = ("image", "img", "jpg", "png", "picture", "photo", "file", "path", "imagepath")
_KEYS = "data.train.columns."


def usual_columns(given: Columns, present: Sequence[str], path: str) -> tuple[Columns, str | None]:
    """The columns with what is absent of the defaults filled in, and what was assumed, in words.

    Args:
        given: as the configuration has them. Only its defaults are replaced (`winner` and `loser`,
            or `jpg_0` and `jpg_1` with `label_0`; `caption`), and only where the table lacks them.
        present: names of the table's columns.
        path: of the table, for messages.

    Raises:
        UserError: several columns could be meant, or none; all such questions at once.
    """
    found: dict[str, str | None] = _without_pickapic(given, present)
    base = replace(given, **found)  # type: ignore[arg-type]
    questions: list[str] = []
    if given.caption == "caption" and "caption" not in present:
        names = list(_there([(name,) for name in CAPTIONS], present))
        if len(names) == 1:
            found["caption"] = names[0][0]
        else:
            questions.append(_question(names, "captions", f"{_KEYS}caption=<name>"))
    if (base.winner, base.loser) == IN_ORDER:
        found |= _images(base, present, path, questions)
    if questions:
        raise UserError(f"{path}: {'; '.join(questions)}. It has: {listed(present)}")
    found = {role: name for role, name in found.items() if name != getattr(given, role)}
    if given.values is not None and not (found.get("preferred") or given.preferred):
        raise UserError(f"{path}: columns.values say what words mean; name columns.preferred, too")
    if not found:
        return given, None
    others = ((role, name) for role, name in found.items() if name not in (None, role))
    told = ", ".join(f"{name} is {role}" for role, name in others)
    return replace(given, **found), told or None  # type: ignore[arg-type]


def told_names(columns: Columns) -> list[str]:
    """Columns that a table has to have, whatever else is in it: all but the defaults."""
    defaults = {"caption", *IN_ORDER, *PICKAPIC, LABEL}
    return [name for name in columns.named.values() if name not in defaults]


def _without_pickapic(given: Columns, present: Sequence[str]) -> dict[str, str | None]:
    """What stands for the columns of Pick-a-Pic where a table does not have its images."""
    if (given.image_0, given.image_1) != PICKAPIC or {*PICKAPIC} <= {*present}:
        return {}
    label = None if given.label_0 == LABEL else given.label_0
    none = {"image_0": None, "image_1": None, "label_0": label}
    return none | dict(zip(IN_ORDER, IN_ORDER, strict=True))


def _images(
    given: Columns, present: Sequence[str], path: str, questions: list[str]
) -> dict[str, str | None]:
    told = given.preferred or given.label_0 or given.score_0
    if {*IN_ORDER} <= {*present}:
        if not told:
            return {}
        raise UserError(
            f"{path}: has winner and loser, which are in order, and '{told}' gives another; "
            "leave it null, or name columns.image_0 and image_1"
        )
    in_order = (*_BETTER, *_called((*_BETTER, ("w", "l"))))
    ordered = [] if told else list(_there(in_order, present))
    two = list(_there((("left", "right"), *_called(_TWO)), present))
    if len(ordered) + len(two) != 1:
        orders = "" if told else ", or image_0, image_1 and preferred"
        roles = ("image_0", "image_1") if told else ("winner", "loser")
        keys = " ".join(f"{_KEYS}{role}=<name>" for role in roles)
        questions.append(_question([*ordered, *two], "the images", f"{keys}{orders}"))
        return {}
    if ordered:
        return {"winner": ordered[0][0], "loser": ordered[0][1]}
    roles_of_two: dict[str, str | None] = {"winner": None, "loser": None}
    roles_of_two |= {"image_0": two[0][0], "image_1": two[0][1]}
    return roles_of_two | ({} if told else _order(present, two[0], questions))


def _order(
    present: Sequence[str], images: tuple[str, ...], questions: list[str]
) -> dict[str, str | None]:
    """The column that says which of two images is preferred."""
    if label := list(_there([(_LABEL,)], present)):
        return {"label_0": label[0][0]}
    others = [name for name in present if name not in images]
    names = list(_there([(name,) for name in PREFERRED], others))
    if len(names) == 1:
        return {"preferred": names[0][0]}
    keys = f"{_KEYS}preferred=<name>, or label_0, or score_0 and score_1"
    questions.append(_question(names, "what is preferred", keys))
    return {}


def _there(known: Iterable[tuple[str, ...]], present: Sequence[str]) -> Iterator[tuple[str, ...]]:
    by_word = {_folded(name): name for name in reversed(present)}
    for names in known:
        if all(name in by_word for name in names):
            yield tuple(by_word[name] for name in names)


def _folded(name: str) -> str:
    return "".join(one for one in name.lower() if one not in "_- ")


def _called(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The names with what an image is called before or behind them."""
    for (one, other), called in product(pairs, _CALLED):
        yield f"{called}{one}", f"{called}{other}"
        yield f"{one}{called}", f"{other}{called}"


def _question(found: Sequence[tuple[str, ...]], what: str, keys: str) -> str:
    if not found:
        return f"no columns of a usual name for {what}; give {keys}"
    return f"{', or '.join(' and '.join(names) for names in found)} could be {what}; give {keys}"


def columns_of(given: Mapping[str, str | None] | None) -> dict[str, Any]:
    """Columns of a mixture's table; where its images are not named, those that are in order."""
    columns = dict(given or {})
    if columns.get("image_0") is None:
        return {"winner": "winner", "loser": "loser", **columns}
    return columns
