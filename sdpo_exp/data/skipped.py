"""The account of bad rows that a run went on without."""

from __future__ import annotations

from collections.abc import Iterable

from sdpo_exp.types import SkippedRow

_NAMED = 3


class SkippedRows:
    """Bad rows by name, each once, however often it came up."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def add(self, rows: Iterable[SkippedRow]) -> None:
        """Take note of rows."""
        for row in rows:
            self._reasons.setdefault(row.row, row.reason)

    def rows(self) -> list[SkippedRow]:
        """All of them, in the order they were met."""
        return [SkippedRow(name, reason) for name, reason in self._reasons.items()]

    def by_kind(self) -> dict[str, list[str]]:
        """Names by kind of reason, which is the reason without what is in brackets."""
        kinds: dict[str, list[str]] = {}
        for name, reason in self._reasons.items():
            kinds.setdefault(reason.partition(" (")[0], []).append(name)
        return kinds

    def summary(self) -> str:
        """One line: how many, of which kinds, and the first names of each."""
        kinds = [f"{len(names)} {kind}: {_few(names)}" for kind, names in self.by_kind().items()]
        count = len(self._reasons)
        return f"{count} bad row{'s' if count != 1 else ''} skipped; {'; '.join(kinds)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
