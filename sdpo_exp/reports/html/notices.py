"""What to know before reading the numbers: runs that ended otherwise, and unlike circumstances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sdpo_exp.reports.html.runs import Run

Level = Literal["bad", "warn", "info"]
_LONGEST = 400
_ENDINGS: tuple[tuple[str, Level, str], ...] = (
    ("failed", "bad", "failed"),
    ("died", "bad", "ended without a word"),
    ("interrupted", "warn", "interrupted"),
    ("running", "info", "still running"),
    ("unknown", "warn", "state unknown"),
)
# Words of a run's warnings that make a badge of their own.
_SIGNS = ("skipped", "rolled back")


@dataclass(frozen=True)
class Notice:
    """A circumstance and the runs that it is about, by their labels."""

    level: Level
    title: str
    detail: str
    runs: tuple[str, ...]


def badges_of(run: Run) -> list[tuple[Level, str]]:
    """Short words for one run, its status left out."""
    found: list[tuple[Level, str]] = []
    text = " ".join(run.warnings).lower()
    found += [("warn", word) for word in _SIGNS if word in text]
    if run.status == "failed" and run.record.summary.get("status", "").startswith("stopped"):
        found.append(("bad", "stopped"))
    if _resumed(run):
        found.append(("info", "resumed"))
    if run.environment.get("git_dirty"):
        found.append(("warn", "uncommitted changes"))
    if run.warnings:
        count = len(run.warnings)
        found.append(("warn", f"{count} warning{'s' if count > 1 else ''}"))
    found += [("info", f"no {what}") for what in run.missing] if run.finished else []
    return found


def notices_of(runs: Sequence[Run]) -> list[Notice]:
    """The gravest first."""
    found = [
        *_endings(runs), *_warnings(runs), *_unlike(runs),
        *_flags(runs), *_missing(runs),
    ]  # fmt: skip
    return sorted(found, key=lambda notice: ("bad", "warn", "info").index(notice.level))


def _endings(runs: Sequence[Run]) -> Iterable[Notice]:
    for status, level, words in _ENDINGS:
        ended = [run for run in runs if run.status == status]
        for reason, group in _by(ended, lambda run: run.reason).items():
            yield Notice(level, f"{_count(group)} {words}", _short(reason), _labels(group))


def _warnings(runs: Sequence[Run]) -> Iterable[Notice]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        for line in dict.fromkeys(run.warnings):
            found.setdefault(line, []).append(run)
    for line, group in found.items():
        yield Notice("warn", f"warning of {_count(group)}", _short(line), _labels(group))


def _unlike(runs: Sequence[Run]) -> Iterable[Notice]:
    """Data, code or packages that are not the same in all runs."""
    aspects: dict[str, Callable[[Run], object]] = {
        "data fingerprint": lambda run: run.environment.get("data_fingerprint"),
        "git revision": lambda run: run.environment.get("git_revision"),
        "python": lambda run: run.environment.get("python"),
        "accelerator": lambda run: run.environment.get("accelerator"),
    }
    for what, value in aspects.items():
        groups = _by(runs, lambda run, value=value: _text(value(run)))  # type: ignore[misc]
        if len(groups) > 1:
            yield _difference(what, groups)
    versions: dict[str, None] = {name: None for run in runs for name in _versions(run)}
    for name in versions:
        groups = _by(runs, lambda run, name=name: _text(_versions(run).get(name)))  # type: ignore[misc]
        if len(groups) > 1:
            yield _difference(f"version of {name}", groups)


def _difference(what: str, groups: Mapping[str, Sequence[Run]]) -> Notice:
    parts = [f"{value[:16]} ({_count(group)})" for value, group in groups.items()]
    rarest = min(groups.values(), key=len)
    title = f"runs differ in their {what}"
    return Notice("warn", title, "; ".join(parts), _labels(rarest))


def _flags(runs: Sequence[Run]) -> Iterable[Notice]:
    dirty = [run for run in runs if run.environment.get("git_dirty")]
    resumed = [run for run in runs if _resumed(run)]
    if dirty:
        title = f"{_count(dirty)} made from a working tree with uncommitted changes"
        yield Notice("warn", title, "The revision alone does not make them again.", _labels(dirty))
    if resumed:
        title = f"{_count(resumed)} resumed from a checkpoint"
        yield Notice("info", title, "Only the last run of a seed counts.", _labels(resumed))
    for changes, group in _by(resumed, _changes).items():
        yield Notice("warn", f"{_count(group)} resumed with changes", changes, _labels(group))


def _resumed(run: Run) -> bool:
    return bool(run.config.get("resume") or run.record.told.get("resumed_from"))


def _changes(run: Run) -> str | None:
    told = run.record.told.get("resumed")
    return "; ".join(told["changes"]) or None if isinstance(told, dict) else None


def _missing(runs: Sequence[Run]) -> Iterable[Notice]:
    for what in dict.fromkeys(what for run in runs for what in run.missing):
        group = [run for run in runs if what in run.missing]
        yield Notice("info", f"{_count(group)} without {what}", "", _labels(group))


def _by(runs: Sequence[Run], key: Callable[[Run], str | None]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        if (value := key(run)) is not None:
            found.setdefault(value, []).append(run)
    return found


def _versions(run: Run) -> Mapping[str, object]:
    versions = run.environment.get("versions")
    return versions if isinstance(versions, dict) else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _labels(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(run.label for run in runs)


def _count(runs: Sequence[Run]) -> str:
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
