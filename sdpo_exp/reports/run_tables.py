"""Run records as rows: one per run, or one per thing in which two runs differ."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdpo_exp.reports.run_records import RunRecord, leaves, metrics_of
from sdpo_exp.reports.text_table import TextTable, text_table
from sdpo_exp.words import word

# What two runs of one comparison may always differ in.
_OF_COURSE = ("run_dir", "name")
_CHOICES = ("status", "model", "objective", "safeguard", "seed", "steps")
_COLUMNS = ("#", *_CHOICES, "started", "seconds", "MB", "folder")
Row = dict[str, Any]


def run_rows(
    records: Sequence[RunRecord], metrics: Sequence[str], numbers: Mapping[Path, int | None]
) -> list[Row]:
    """One row per run: number, status, choices, start, duration, metrics, size in MB, folder."""
    return [_run_row(record, metrics, numbers[record.folder]) for record in records]


def _run_row(record: RunRecord, metrics: Sequence[str], number: int | None) -> Row:
    numbers = metrics_of(record.summary)
    return {
        "#": number,
        "status": record.status,
        "model": record.model,
        "objective": record.objective,
        "safeguard": record.safeguard,
        "seed": record.seed,
        "started": None if record.started is None else record.started[:16].replace("T", " "),
        "steps": record.summary.get("steps"),
        "seconds": record.summary.get("seconds"),
        **{name: numbers.get(name) for name in metrics},
        "MB": round(_size(record.folder) / 1e6, 1),
        "folder": os.path.relpath(record.folder),
    }


def _size(folder: Path) -> int:
    return sum(
        (Path(path) / name).lstat().st_size
        for path, _, files in os.walk(folder)
        for name in files
        if (Path(path) / name).is_file()
    )


def config_rows(first: RunRecord, second: RunRecord) -> list[Row]:
    """Keys of the configuration that differ, with both values; a run's own folder is no value."""
    return _differences(_own_config(first), _own_config(second), _OF_COURSE)


def _own_config(record: RunRecord) -> dict[str, Any]:
    folder = str(record.config.get("run_dir"))
    return {
        key: value.replace(folder, "<run folder>") if isinstance(value, str) else value
        for key, value in leaves(record.config)
    }


def environment_rows(first: RunRecord, second: RunRecord) -> list[Row]:
    """Versions, revision and data that differ, with both values."""
    ignored = ("command", "seed")
    return _differences(dict(leaves(first.environment)), dict(leaves(second.environment)), ignored)


def metric_rows(first: RunRecord, second: RunRecord) -> list[Row]:
    """Every metric of either run, and its change where both have it."""
    ours, theirs = metrics_of(first.summary), metrics_of(second.summary)
    rows: list[Row] = []
    for name in sorted({*ours, *theirs}):
        a, b = ours.get(name), theirs.get(name)
        change = None if a is None or b is None else b - a
        rows.append({"metric": name, "A": a, "B": b, "B - A": change})
    return rows


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], ignored: Sequence[str]
) -> list[Row]:
    keys = [key for key in {**ours, **theirs} if key.partition(".")[0] not in ignored]
    return [
        {"key": key, "A": ours.get(key, "(none)"), "B": theirs.get(key, "(none)")}
        for key in keys
        if ours.get(key, "(none)") != theirs.get(key, "(none)")
    ]


def as_table(
    rows: Sequence[Row],
    width: int | None = None,
    *,
    spare: Sequence[str | tuple[str, ...]] = (),
    below: str | None = None,
) -> TextTable:
    """Columns under each other, numbers to the right; a column without any value is left out.

    Args:
        rows: with the same keys.
        width, spare, below: as in `text_table`.
    """
    header = [key for key in (rows[0] if rows else {}) if any(row[key] is not None for row in rows)]
    if not header:
        return TextTable([], [])
    words = {
        key for key in header if not all(isinstance(row[key], int | float | None) for row in rows)
    }
    cells = [{key: _cell(row[key]) for key in header} for row in rows]
    return text_table(cells, width=width, left=words, spare=spare, below=below)


def runs_table(rows: Sequence[Row], metrics: Sequence[str], width: int | None) -> list[str]:
    """Lines of the rows of `run_rows`, and what was left out of them to fit.

    Metrics stand under their words. What all runs share goes first, folders go below their rows.
    """
    names = _words_of(metrics)
    rows = [{names.get(key, key): value for key, value in row.items()} for row in rows]
    shared = [key for key in _CHOICES if len(rows) > 1 and len({row[key] for row in rows}) == 1]
    spare = ["MB", *shared, "seconds", "steps", "started", "model", "seed"]
    spare += [names[key] for key in reversed(metrics)]
    found = as_table(rows, width, spare=list(dict.fromkeys(spare)), below="folder")
    told = [f"{key} {rows[0][key]}" for key in shared if key in found.left_out]
    lines = list(found.lines)
    if told:
        lines += ["", f"all of them: {', '.join(told)}"]
    if rest := [key for key in found.left_out if key not in shared]:
        lines += [""] * (not told)
        lines.append(f"no room for {', '.join(rest)}; format=csv has all")
    return lines


def _words_of(metrics: Sequence[str]) -> dict[str, str]:
    """Short names of metrics; the whole key where two would be called the same."""
    short = {key: word(key).replace("_change", " change") for key in metrics}
    return {
        key: name if list(short.values()).count(name) == 1 and name not in _COLUMNS else key
        for key, name in short.items()
    }


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_csv(rows: Sequence[Row]) -> str:
    """With a header; empty where there is no value."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().rstrip("\n")


def as_json(rows: Sequence[Row]) -> str:
    """A list of objects."""
    return json.dumps(list(rows), indent=2)


def metric_names(records: Sequence[RunRecord]) -> Iterator[str]:
    """Every metric that any of the runs has."""
    yield from sorted({name for record in records for name in metrics_of(record.summary)})
