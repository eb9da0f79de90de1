"""How fast something goes and how long it will take."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

_RECENT = 30.0  # seconds that a speed is a mean over
_DAY = 86_400.0
# Used below so many seconds; its own length in seconds, and its names.
_UNITS = ((120.0, 1.0, "s", "s"), (7_200.0, 60.0, "min", "m"), (2 * _DAY, 3_600.0, "h", "h"))


def span(seconds: float, *, short: bool = False) -> str:
    """A length of time in two or three digits: `40 s`, `12 min`, `3.5 h`, `12 days`.

    Args:
        seconds: of it.
        short: `40s`, `12m`, `3.5h`, `12d`.
    """
    fitting = (unit for unit in _UNITS if seconds < unit[0])
    _, unit, name, letter = next(fitting, (math.inf, _DAY, "days", "d"))
    value = seconds / unit
    number = f"{value:.1f}" if unit > 60 and value < 10 else f"{value:.0f}"
    return f"{number}{letter}" if short else f"{number} {name}"


class Pace:
    """Counts what is done of a known amount of work.

    Args:
        total: amount of work, > 0.
        done: how much of it was done before the clock starts.
        clock: in seconds.
    """

    def __init__(
        self, total: float, done: float = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.done, self._clock = total, done, clock
        self._before, self.began = done, clock()
        self._marks = deque([(self.began, done)])

    def advance(self, amount: float) -> None:
        """So much more is done."""
        self.done += amount
        now = self._clock()
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[1][0] > _RECENT:
            self._marks.popleft()

    @property
    def seconds(self) -> float:
        """Since the clock started."""
        return self._clock() - self.began

    @property
    def speed(self) -> float | None:
        """Amount per second over the last half minute; None while unknown."""
        (since, before), (until, done) = self._marks[0], self._marks[-1]
        return (done - before) / (until - since) if until > since else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes if it goes on as it did so far; None while unknown."""
        new = self.done - self._before
        return (self.total - self.done) * self.seconds / new if new else None


def cells_left(seconds: Sequence[float], cells: int, side_by_side: int = 1) -> float | None:
    """Seconds for `cells` more cells of a sweep, by those that ended; None where none did."""
    if not seconds:
        return None
    return sum(seconds) / len(seconds) * math.ceil(cells / side_by_side)


def cell_title(number: int, cells: int, left: float | None) -> str:
    """`cell 3/18, 12 min left`, from the number that Hydra counts from 0."""
    return f"cell {number + 1}/{cells}" + (f", {span(left)} left" if left is not None else "")
