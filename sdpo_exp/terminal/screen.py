"""What standard output can show, and the one line on it that is rewritten in place."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Literal

Colour = Literal["red", "green", "yellow"]
_CODES: dict[Colour, int] = {"red": 31, "green": 32, "yellow": 33}
_ERASE = "\x1b[K"  # from the cursor to the end of the line


def is_live() -> bool:
    """Whether standard output is a terminal whose cursor can go back."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def has_colours() -> bool:
    """Whether colours are wanted: on a terminal, without NO_COLOR (no-color.org)."""
    return is_live() and not os.environ.get("NO_COLOR")


def columns() -> int | None:
    """Width of the terminal; None for a file or a pipe, which take any width."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def painted(text: str, colour: Colour) -> str:
    """`text` in a colour where there are any."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if has_colours() else text


class LiveLine:
    """The last line of the terminal. Other output goes above it: see `pipes.Guarded`."""

    def __init__(self) -> None:
        self._shown = False

    def draw(self, text: str, share: float) -> None:
        """Put `text` in the line's place.

        Args:
            text: narrower than the terminal.
            share: of the work that is done, in [0, 1]; so much of the text stands in reverse
                video, which makes it a bar that takes no column of its own.
        """
        if has_colours():
            end = round(share * len(text))
            text = f"\x1b[7m{text[:end]}\x1b[0m{text[end:]}"
        self._write(f"\r{text}{_ERASE}")
        self._shown = True

    def clear(self) -> None:
        """Take the line away, for something else to be printed there."""
        if self._shown:
            self._shown = False
            self._write(f"\r{_ERASE}")

    def keep(self) -> None:
        """Leave the line as it is and go on below it."""
        if self._shown:
            self._shown = False
            self._write("\n")

    def _write(self, text: str) -> None:
        stream = getattr(sys.stdout, "unguarded", sys.stdout)
        stream.write(text)
        stream.flush()


LIVE = LiveLine()
