"""Six formats of files of prompts or captions, read as rows of cells; nothing is stripped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from sdpo_exp.data.text_files import (
    Separated,
    csv_rows,
    json_lines,
    parsed_json,
    read_text,
    separated_as,
    text_lines,
)
from sdpo_exp.errors import UserError, first_line

_ENOUGH = 1_000  # objects that tell which columns there are

# A row of a file: all of the prompt, or cells by column.
Cells: TypeAlias = str | Mapping[str, Any]


class Table(NamedTuple):
    """Columns, and rows under what messages call them; without columns a row is its prompt."""

    columns: list[str]
    rows: list[tuple[str, Cells]]


def read_table(path: Path, wanted: Collection[str]) -> Table:
    """A file as a table.

    JSON: a list of texts, or of objects, such as a public manifest. JSONL, and JSON without a list:
    one of these per line. CSV and TSV: a header, and quotes by the rules of CSV. TXT: a prompt per
    line. Parquet. Text is UTF-8; blank lines at the end count for nothing.

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


def iter_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a CSV, TSV, JSON or JSONL file, one after the other; numbers are text as written.

    Raises:
        UserError: the file cannot be read, or has a row without columns.
    """
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        yield from _separated(path)[1]
        return
    entries = _json_entries(path, as_written=True) if ending == ".json" else None
    for where, entry in entries or json_lines(path, as_written=True):
        if not isinstance(entry, dict):
            raise UserError(f'{path} {where}: should be an object, as {{"caption": ...}}')
        yield where, entry


def columns_of(path: Path, needed: Collection[str] = ()) -> list[str]:
    """Names of the columns of such a file: of a header, or of objects until all are met.

    Of objects at least a thousand are looked at, and no more where these have all of `needed`.

    Raises:
        UserError: as `iter_rows`.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return _separated(path)[0]
    names: dict[str, None] = {}
    for number, (_, entry) in enumerate(iter_rows(path)):
        names |= dict.fromkeys(entry)
        if number >= _ENOUGH and names.keys() >= {*needed}:
            break
    return list(names)


def _read_txt(path: Path, _: Collection[str]) -> Table:
    lines = [line.removesuffix("\n").removesuffix("\r") for line in text_lines(path)]
    while lines and not lines[-1].strip():
        lines.pop()
    return Table([], [(f"row {i} (line {i + 1})", line) for i, line in enumerate(lines)])


def _read_jsonl(path: Path, _: Collection[str]) -> Table:
    return _of_entries(path, list(json_lines(path)))


def _read_json(path: Path, _: Collection[str]) -> Table:
    return _of_entries(path, _json_entries(path))


def _json_entries(path: Path, *, as_written: bool = False) -> list[tuple[str, Any]]:
    """Entries of a list, or of lines where each is a value of its own."""
    try:
        content = parsed_json(read_text(path), as_written=as_written)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error):
            return list(json_lines(path, as_written=as_written))
        raise UserError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(content, list):
        kind = type(content).__name__
        raise UserError(f"{path}: should be a JSON list of texts or of objects, it is a {kind}")
    return [(f"row {i}", entry) for i, entry in enumerate(content)]


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


def _read_separated(path: Path, _: Collection[str]) -> Table:
    columns, rows = _separated(path)
    return Table(columns, list(rows))


def _separated(path: Path) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """The header of a CSV or TSV file, and its rows as they are asked for."""
    written = Separated("\t") if path.suffix.lower() == ".tsv" else separated_as(path)
    lines = csv_rows(path, written)
    header: list[str] = next((cells for _, cells in lines if cells), [])
    columns = [name.strip() for name in header]
    if not any(columns):
        raise UserError(f"{path}: no header, so no column is known")
    if twice := next((name for name in columns if name and columns.count(name) > 1), None):
        raise UserError(f"{path}: two columns are named '{twice}'")
    return columns, _under(columns, lines, path)


def _under(
    columns: list[str], lines: Iterator[tuple[int, list[str]]], path: Path
) -> Iterator[tuple[str, dict[str, str]]]:
    for index, (number, cells) in enumerate(lines):
        where = f"row {index} (line {number})"
        filled = cells or [""] * len(columns)  # a blank line
        if len(filled) != len(columns):
            many = len(cells) > len(columns)
            more = "; a cell that holds the separator needs quotes" if many else ""
            raise UserError(
                f"{path} {where}: {len(cells)} cells under {len(columns)} columns{more}"
            )
        yield where, dict(zip(columns, filled, strict=True))


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
    ".csv": _read_separated,
    ".tsv": _read_separated,
    ".parquet": _read_parquet,
}
FORMATS = tuple(_READERS)
