"""How far a long command is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_SECONDS = 10.0  # between plain lines


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Consecutive parts of `size` items, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Progress:
    """Counts what is done.

    Args:
        label: of what.
        total: how many there are.
        unit: their name, singular.
        shown: whether to say anything; one of several processes speaks for all.
    """

    def __init__(self, label: str, total: int, unit: str, *, shown: bool) -> None:
        self.label, self.total, self.unit, self.done, self.shown = label, total, unit, 0, shown
        self._said = self._started = time.monotonic()
        terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=total, desc=label, unit=unit, dynamic_ncols=True, disable=not terminal
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        self.done += count
        self._bar.update(count)
        now, last = time.monotonic(), self.done == self.total
        if not self.shown or not self._bar.disable or not (last or now - self._said > _SECONDS):
            return
        self._said = now
        speed = self.done / max(now - self._started, 1e-9)
        counted = f"{self.done:,}/{self.total:,} {self.unit}s"
        print(f"{self.label}: {counted}, {speed:.0f} a second", flush=True)
