"""One line of several pieces in as many columns as there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """A part of a line: its text, a shorter one (empty: none), and how much it matters."""

    text: str
    short: str
    weight: int


def fit(pieces: Sequence[Piece], width: int) -> str:
    """The pieces in their order, in at most `width` columns.

    What matters least is shortened first. When all of it is short and one space stands between,
    what matters least is left out.
    """
    forms = [piece.text for piece in pieces]
    least_first = sorted(range(len(pieces)), key=lambda i: pieces[i].weight)
    for i in least_first:
        if len(_line(forms, "  ")) <= width:
            return _line(forms, "  ")
        forms[i] = pieces[i].short
    for gap in ("  ", " "):
        if len(_line(forms, gap)) <= width:
            return _line(forms, gap)
    for i in least_first:
        forms[i] = ""
        if len(_line(forms, " ")) <= width:
            break
    return _line(forms, " ")


def _line(forms: Sequence[str], gap: str) -> str:
    return gap.join(form for form in forms if form)
