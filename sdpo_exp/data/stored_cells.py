"""Tables of any size, cell by cell: text formats in memory, parquet a row group at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sdpo_exp.data.captions import TABLES
from sdpo_exp.data.prompt_formats import read_table
from sdpo_exp.errors import UserError, first_line

TEXT_FORMATS = (".csv", ".tsv", ".jsonl", ".json")
_ENDINGS = (".parquet", *TEXT_FORMATS)


class StoredCells(Protocol):
    """Rows of cells.

    Attributes:
        folder: what image paths in it are relative to.
        columns: names of all of them.
    """

    folder: Path
    columns: list[str]

    def __len__(self) -> int: ...

    def row_name(self, row: int) -> str:
        """What messages call a row."""

    def cells(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Every row in order, by column; absent cells are None."""

    def cell(self, row: int, name: str) -> Any:
        """One cell; neighbours are read with it."""


def open_cells(path: Path) -> StoredCells:
    """A table: a file, a folder of parquet files, or a folder of images with one table in it.

    Raises:
        UserError: there is no table, or more than one, or it cannot be read.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() not in _ENDINGS:
        raise UserError(f"{path}: a table is one of {', '.join(_ENDINGS)}, or a folder with one")
    return ParquetCells([path]) if path.suffix.lower() == ".parquet" else TextCells(path)


def _open_folder(folder: Path) -> StoredCells:
    usual = [folder / name for name in TABLES if (folder / name).is_file()]
    others = [
        p for p in sorted(folder.iterdir()) if p.suffix.lower() in _ENDINGS and p.name[0] != "."
    ]
    tables = usual or others
    if tables and all(table.suffix.lower() == ".parquet" for table in tables):
        return ParquetCells(tables)
    if len(tables) == 1:
        return TextCells(tables[0])
    names = ", ".join(table.name for table in tables[:5])
    if not tables:
        raise UserError(f"{folder}: no table in it; looked for {', '.join(_ENDINGS)}")
    raise UserError(f"{folder}: several tables ({names}); name one of them")


class TextCells:
    """A CSV, TSV, JSON or JSONL file. Cells of CSV and TSV are text as it stands.

    Raises:
        UserError: it cannot be read as what its ending says.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        table = read_table(path, ())
        self.columns, self._rows = table.columns, table.rows
        if not self.columns:
            raise UserError(f"{path}: no columns in it; an object per row is needed")

    def __len__(self) -> int:
        return len(self._rows)

    def row_name(self, row: int) -> str:
        """`<path> row 0 (line 2)`."""
        return f"{self.path} {self._rows[row][0]}"

    def cells(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Every row in order."""
        for row in range(len(self)):
            yield {name: self.cell(row, name) for name in names}

    def cell(self, row: int, name: str) -> Any:
        """One cell, None where a JSON object does not have it."""
        content = self._rows[row][1]
        return content.get(name) if isinstance(content, Mapping) else None


class ParquetCells:
    """Parquet files of the same columns, one after the other; two row groups are kept in memory.

    Raises:
        UserError: one cannot be read, or has other columns than the first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.folder = list(paths), paths[0].parent
        files = [self._open(path) for path in paths]
        self.columns: list[str] = files[0].schema_arrow.names
        sizes = [
            (place, group, file.metadata.row_group(group).num_rows)
            for place, file in enumerate(files)
            for group in range(file.num_row_groups)
        ]
        # Every row group's file and number in it, and first row; one more row is the end.
        self._groups = [(place, group) for place, group, _ in sizes]
        self._starts = list(accumulate((size for *_, size in sizes), initial=0))
        self._column = lru_cache(maxsize=2)(self._read_column)

    def __len__(self) -> int:
        return self._starts[-1]

    def row_name(self, row: int) -> str:
        """`<path of the file> row <index in it>`."""
        place, _ = self._groups[self._group_of(row)]
        begin = next(
            start
            for start, group in zip(self._starts, self._groups, strict=False)
            if group[0] == place
        )
        return f"{self.paths[place]} row {row - begin}"

    def cells(self, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Every row in order; only these columns are read."""
        for place, group in self._groups:
            yield from self._read(place, group, list(names)).to_pylist()

    def cell(self, row: int, name: str) -> Any:
        """One cell."""
        number = self._group_of(row)
        return self._column(*self._groups[number], name)[row - self._starts[number]].as_py()

    def _group_of(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _read_column(self, place: int, group: int, name: str) -> pa.ChunkedArray:
        return self._read(place, group, [name])[name]

    def _read(self, place: int, group: int, names: list[str]) -> pa.Table:
        path = self.paths[place]
        try:
            return self._open(path).read_row_group(group, columns=names)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error)})") from None

    def _open(self, path: Path) -> pq.ParquetFile:
        try:
            file = pq.ParquetFile(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path}: cannot be read as parquet ({first_line(error)})") from None
        mine: list[str] = getattr(self, "columns", file.schema_arrow.names)
        if lacking := [name for name in mine if name not in file.schema_arrow.names]:
            raise UserError(f"{path}: no column '{lacking[0]}', which {self.paths[0]} has")
        return file
