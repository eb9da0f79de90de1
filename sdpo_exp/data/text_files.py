"""Text files in UTF-8 read line by line: rows of cells of CSV, values of JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from sdpo_exp.errors import UserError, first_line

_SEPARATORS = (",", ";", "\t", "|")
_HEAD = 50  # lines that the separator is known by
_LARGEST = 2**31 - 1  # characters of a cell, which may be an image written out
_END = "end of file"
_FEW = 64  # bytes that tell what a file is
_OTHERS = {
    b"PAR1": "a parquet file: give it the ending .parquet",
    b"PK\3\4": "a spreadsheet or an archive: save it as CSV in UTF-8",
    b"\x1f\x8b": "packed by gzip: unpack it",
}
_PLAIN, _AS_WRITTEN = json.JSONDecoder(), json.JSONDecoder(parse_int=str, parse_float=str)


class Separated(NamedTuple):
    """How a CSV file is written: what separates cells, and whether a space follows it."""

    separator: str
    spaced: bool = False


def read_text(path: Path) -> str:
    """A file's text, which is UTF-8.

    Raises:
        UserError: it is not, or cannot be read.
    """
    return "".join(text_lines(path))


def text_lines(path: Path) -> Iterator[str]:
    """Lines with their ends, split at line feeds alone: a caption may hold other separators.

    Raises:
        UserError: the file is not UTF-8, or cannot be read.
    """
    number = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if number == 1 and b"\0" in line[:_FEW]:
                    raise UnicodeDecodeError("utf-8", line, line.index(b"\0"), _FEW, "no text")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        where = f"line {number}: byte 0x{error.object[error.start]:02x}"
        raise UserError(
            f"{path}: cannot be read as UTF-8 text ({where}); {_advice(path)}"
        ) from None


def json_lines(path: Path, *, as_written: bool = False) -> Iterator[tuple[str, Any]]:
    """The value of every line, under what messages call it; blank lines are none.

    Args:
        path: of the file.
        as_written: give numbers as the text that stands there.

    Raises:
        UserError: a line is no JSON.
    """
    row = 0
    for number, line in enumerate(text_lines(path), 1):
        if line.strip():
            where = f"row {row} (line {number})"
            try:
                yield where, parsed_json(line, as_written=as_written)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path} {where}: not JSON ({first_line(error)})") from None
            row += 1


def parsed_json(text: str, *, as_written: bool = False) -> Any:
    """`json.loads`; `as_written` gives numbers as the text that stands there."""
    return (_AS_WRITTEN if as_written else _PLAIN).decode(text)


def separated_as(path: Path) -> Separated:
    """How a CSV file is written, by its header and the row below it.

    A comma, or what gives header and row the same number of cells, most of them if several do.
    """
    head = list(islice(_csv_lines(path), _HEAD))
    found = {one: _counts(head, one) for one in _SEPARATORS}
    fitting = [one for one, (header, row) in found.items() if header > 1 and row in (0, header)]
    some = [one for one, (header, _) in found.items() if header > 1]
    separator = max(fitting, key=lambda one: found[one][0]) if fitting else next(iter(some), ",")
    header = re.sub(r'"[^"]*"', "", next((line for line in head if line.strip()), ""))
    return Separated(separator, f"{separator} " in header)


def _counts(lines: list[str], separator: str) -> tuple[int, int]:
    """Numbers of cells of the header and of the next row, 0 where there is none."""
    csv.field_size_limit(_LARGEST)
    try:
        rows = [cells for cells in csv.reader(lines, delimiter=separator) if cells][:2]
    except csv.Error:
        return 0, 0
    header, row = (len(cells) for cells in (*rows, [], [])[:2])
    return header, row


def csv_rows(path: Path, written: Separated) -> Iterator[tuple[int, list[str]]]:
    """Cells of every row, with the number of the line that it begins at; no blank ones at the end.

    Raises:
        UserError: a quote is never closed, or a line is no CSV.
    """
    csv.field_size_limit(_LARGEST)
    lines = _Lines(path)
    reader = csv.reader(lines, delimiter=written.separator, skipinitialspace=written.spaced)
    begin, blank = 1, list[int]()
    try:
        for cells in reader:
            if lines.ended:  # what follows a quote that is never closed is in one cell, to the end
                if cells != [_END]:
                    raise UserError(f"{path} line {begin}: a quote that is never closed")
                return
            if cells:
                yield from ((number, []) for number in blank)
                blank.clear()
                yield begin, cells
            else:
                blank.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path} line {begin}: {error}") from None


class _Lines:
    """Lines of a CSV file and one more, which tells that all of them were read."""

    def __init__(self, path: Path) -> None:
        self.ended = False
        self._lines = _csv_lines(path)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            yield line if line.endswith(("\n", "\r")) else f"{line}\n"
        self.ended = True
        yield _END


def _csv_lines(path: Path) -> Iterator[str]:
    """Lines as spreadsheets write them: also ended by a carriage return alone, below `sep=;`."""
    for number, line in enumerate(text_lines(path)):
        if number == 0 and re.fullmatch(r'"?sep=."?\s*', line):
            yield "\n"
            continue
        yield from re.findall(r"[^\r]*(?:\r\n|\r|$)", line)[:-1] if "\r" in line else [line]


def _advice(path: Path) -> str:
    """What to do about a file that is no UTF-8."""
    with path.open("rb") as stream:
        head = stream.read(_FEW)
    for beginning, kind in _OTHERS.items():
        if head.startswith(beginning):
            return f"by its content it is {kind}"
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
    if b"\0" in head and encoding == "latin1":
        encoding = "utf-16le" if head[1:2] == b"\0" else "utf-16be"
    return (
        f"convert it, as by: iconv -f {encoding} -t utf-8 {quote(str(path))} > utf8{path.suffix}, "
        "and give that in its place"
    )
