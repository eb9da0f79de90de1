"""Pieces of markdown pages, whatever users call their things."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What begins something in markdown or HTML; an underscore inside a word does not.
_MARKUP = re.compile(r"[\\`*\[\]<>|#~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; cells must be escaped already where they hold a user's words."""
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]


def escaped(text: str) -> str:
    """A name or a sentence of a user's on one line, where nothing of it is markup."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
