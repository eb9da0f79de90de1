"""Six formats of files of prompts, read as rows of cells; nothing is stripped."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from sdpo_exp.errors import UserError, first_line

# A row of a file: all of the prompt, or cells by column.
Cells: TypeAlias = str | Mapping[str, Any]


class Table(NamedTuple):
    """Columns, and rows under what messages call them; without columns a row is its prompt."""

    columns: list[str]
    rows: list[tuple[str, Cells]]


def read_table(path: Path, wanted: Collection[str]) -> Table:
    """A file as a table.

    JSON: a list of texts, or of objects, such as a public manifest. JSONL: one of these per line.
    CSV and TSV: a header, and quotes by the rules of CSV. TXT: a prompt per line. Parquet. Text is
    UTF-8; blank lines at the end count for nothing.

    Args:
        path: its ending says which format it is.
        wanted: columns that are needed, where others need not be read.

    Raises:
        UserError: of another ending, unreadable, or not what its ending says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: prompts are read from {', '.join(FORMATS)}")
    return reader(path, wanted)


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({first_line(error)})") from None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines with their names, split at line feeds alone: a prompt may hold other separators."""
    lines = [line.removesuffix("\r") for line in _read_text(path).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    for index, line in enumerate(lines):
        yield f"row {index} (line {index + 1})", line


def _read_txt(path: Path, _: Collection[str]) -> Table:
    return Table([], list(_lines(path)))


def _read_jsonl(path: Path, _: Collection[str]) -> Table:
    entries = []
    for where, line in _lines(path):
        try:
            entries.append((where, json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} {where}: not JSON ({first_line(error)})") from None
    return _of_entries(path, entries)


def _read_json(path: Path, _: Collection[str]) -> Table:
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        advice = "; one JSON value per line is .jsonl" if "Extra data" in str(error) else ""
        raise UserError(f"{path}: not JSON ({first_line(error)}){advice}") from None
    if not isinstance(content, list):
        kind = type(content).__name__
        raise UserError(f"{path}: should be a JSON list of texts or of objects, it is a {kind}")
    return _of_entries(path, [(f"row {i}", entry) for i, entry in enumerate(content)])


def _of_entries(path: Path, entries: list[tuple[str, Any]]) -> Table:
    """A table of texts alone, or of objects alone."""
    if entries and all(isinstance(entry, dict) for _, entry in entries):
        return Table(list(dict.fromkeys(key for _, entry in entries for key in entry)), entries)
    for where, entry in entries:
        if not isinstance(entry, str):
            kind = "null" if entry is None else f"a {type(entry).__name__}"
            raise UserError(
                f"{path} {where}: {kind}; all entries should be texts, or all of them objects"
            )
    return Table([], entries)


def _read_csv(path: Path, _: Collection[str]) -> Table:
    return _separated(path, ",")


def _read_tsv(path: Path, _: Collection[str]) -> Table:
    return _separated(path, "\t")


def _separated(path: Path, delimiter: str) -> Table:
    (_, columns), *lines = _split(path, delimiter)
    if not any(columns):
        raise UserError(f"{path}: no header, so no column is known")
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise UserError(f"{path}: two columns are named '{twice}'")
    rows: list[tuple[str, Cells]] = []
    for index, (number, cells) in enumerate(lines):
        where = f"row {index} (line {number})"
        filled = cells or [""] * len(columns)  # a blank line
        if len(filled) != len(columns):
            raise UserError(f"{path} {where}: {len(cells)} cells under {len(columns)} columns")
        rows.append((where, dict(zip(columns, filled, strict=True))))
    return Table(columns, rows)


def _split(path: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """Cells of every line, with the number of the line that they begin at."""
    # What follows a quote that is never closed ends up in one cell, this last line included.
    last = "end of file"
    text = _read_text(path).rstrip("\r\n")
    reader = csv.reader(io.StringIO(f"{text}\n{last}", newline=""), delimiter=delimiter)
    found: list[tuple[int, list[str]]] = []
    begin = 1
    try:
        for cells in reader:
            found.append((begin, cells))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path} line {begin}: {error}") from None
    if found[-1][1] != [last]:
        raise UserError(f"{path} line {found[-1][0]}: a quote that is never closed")
    return found[:-1]


def _read_parquet(path: Path, wanted: Collection[str]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns: list[str] = file.schema_arrow.names
            rows = file.read(columns=[name for name in columns if name in wanted]).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as parquet ({first_line(error)})") from None
    return Table(columns, [(f"row {index}", row) for index, row in enumerate(rows)])


_READERS: Mapping[str, Callable[[Path, Collection[str]], Table]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
FORMATS = tuple(_READERS)
