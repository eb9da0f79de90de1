"""How far a long piece of work is: a live line on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from sdpo_exp.terminal.fitting import Piece, fit
from sdpo_exp.terminal.pace import Pace, span
from sdpo_exp.terminal.screen import LIVE, columns, is_live

T = TypeVar("T")
_SECONDS = 10.0  # between plain lines
_REDRAWN = 0.1  # seconds between two drawings of the live line
QUIET = 3.0  # seconds: what takes no longer need not be told
_whose: ContextVar[str] = ContextVar("whose", default="")


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Consecutive parts of `size` items, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _plural(unit: str) -> str:
    return f"{unit}es" if unit.endswith("ch") else f"{unit}s"


@contextmanager
def on_behalf_of(name: str) -> Iterator[None]:
    """Put a name before the labels of all progress meanwhile, such as that of a model."""
    token = _whose.set(f"{name} ")
    try:
        yield
    finally:
        _whose.reset(token)


class Progress:
    """Counts what is done.

    Args:
        label: of what.
        total: how many there are.
        unit: their name, singular.
        shown: whether to say anything; one of several processes speaks for all.
        quiet: seconds in which nothing is said, and after which work that ended says nothing.
    """

    def __init__(
        self, label: str, total: int, unit: str, *, shown: bool = True, quiet: float = 0.0
    ) -> None:
        self.label, self.unit, self.shown, self.quiet = _whose.get() + label, unit, shown, quiet
        self._pace, self._said = Pace(max(total, 1)), time.monotonic()
        self.total, self._live = total, shown and is_live()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            (LIVE.clear if self.quiet else LIVE.keep)()

    @property
    def done(self) -> int:
        """How many are."""
        return int(self._pace.done)

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        self._pace.advance(count)
        now, last = time.monotonic(), self.done == self.total
        pause = _REDRAWN if self._live else _SECONDS
        if not self.shown or self._pace.seconds < self.quiet:
            return
        if not (last or now - self._said > pause):
            return
        self._said = now
        if self._live:
            LIVE.draw(fit(self._pieces(), (columns() or 80) - 1), self.done / max(self.total, 1))
        else:
            print(", ".join(piece.text for piece in self._pieces()), flush=True)

    def _pieces(self) -> list[Piece]:
        counted = f"{self.label}: {self.done:,}/{self.total:,} {_plural(self.unit)}"
        speed, left = self._pace.done / max(self._pace.seconds, 1e-9), self._pace.left
        pieces = [Piece(counted, counted, 3), Piece(f"{speed:.3g} a second", f"{speed:.3g}/s", 1)]
        if left:
            pieces.append(Piece(f"{span(left)} left", f"{span(left, short=True)} left", 2))
        return pieces
