"""Which columns of a table of ranked images are what, by their usual names or as told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdpo_exp.errors import UserError

USUAL: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "caption", "text"),
    "image": (
        *("image", "images", "image_path", "image_paths", "file", "file_name", "filename"),
        *("file_names", "path", "paths", "jpg"),
    ),
    "score": ("score", "scores", "rating", "ratings", "reward", "rewards"),
    "rank": ("rank", "ranks", "ranking", "rankings"),
}


@dataclass(frozen=True)
class RankedColumns:
    """Names of columns by what they hold.

    Attributes:
        prompt: the text that the images were made for.
        image: bytes, a path, an `Image` column of `datasets`, or a list of these.
        order: numbers, or a list of as many as there are images.
        is_rank: whether the lowest number is the best, as of ranks; else the highest is.
        group: equal values are one ranking; None: equal prompts are, or a row of lists is.
    """

    prompt: str
    image: str
    order: str
    is_rank: bool
    group: str | None = None

    @property
    def light(self) -> list[str]:
        """All but the images."""
        return [name for name in (self.prompt, self.order, self.group) if name is not None]

    @property
    def order_word(self) -> str:
        """What messages call the numbers."""
        return "rank" if self.is_rank else "score"

    def __str__(self) -> str:
        words = {"prompt": self.prompt, "image": self.image, self.order_word: self.order}
        words |= {"group": self.group} if self.group is not None else {}
        return ", ".join(f"{role}: {name}" for role, name in words.items())


def find_columns(
    given: Mapping[str, str | None], present: Sequence[str], path: str
) -> RankedColumns:
    """Columns as told, and for what is not told the one of a usual name.

    Args:
        given: names by `prompt`, `image`, `score`, `rank` and `group`; None: not told.
        present: names of all columns.
        path: of the table, for messages.

    Raises:
        UserError: a column is not there, or several have usual names.
    """
    for role, name in given.items():
        if name is not None and name not in present:
            raise UserError(f"{path}: no column '{name}' (columns.{role}). It has {_list(present)}")
    if given.get("score") is not None and given.get("rank") is not None:
        raise UserError("columns.score and columns.rank: give one; the other is not looked at")
    order = next((role for role in ("score", "rank") if given.get(role) is not None), None)
    found = {
        role: given.get(role) or _usual((role,), present, path) for role in ("prompt", "image")
    }
    role, name = (order, given[order]) if order else _order(present, path)
    assert name is not None, "a role without a name is not chosen"
    return RankedColumns(found["prompt"], found["image"], name, role == "rank", given.get("group"))


def _order(present: Sequence[str], path: str) -> tuple[str, str]:
    name = _usual(("score", "rank"), present, path)
    return ("score" if name.lower() in USUAL["score"] else "rank"), name


def _usual(roles: Sequence[str], present: Sequence[str], path: str) -> str:
    known = {name: role for role in roles for name in USUAL[role]}
    found = [name for name in present if name.lower() in known]
    keys = " or ".join(f"columns.{role}=<name>" for role in roles)
    if len(found) > 1:
        raise UserError(f"{path}: columns {_list(found)} could all be meant; give {keys}")
    if not found:
        what = " or ".join(roles)
        raise UserError(
            f"{path}: no column of a usual name for {what}; give {keys}. It has {_list(present)}"
        )
    return found[0]


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
