"""Held-out pairs for a stream: the first rows of its table, kept in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pyarrow as pa

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.data.passing import batches, open_passing
from sdpo_exp.data.rows import edges, read_pair
from sdpo_exp.data.table_source import TableSource
from sdpo_exp.errors import UserError
from sdpo_exp.types import ImagePair


@dataclass(eq=False)
class StreamHead(TableSource):
    """The pairs among the first rows of a stream, in memory: held-out pairs for `StreamPairs`.

    Args:
        rows: rows to read; give the same number to the stream's `skip_first`.
        path, columns, split, config, revision, min_margin: `TableSource`'s; a hub id that is not in
            the cache is read from the hub.

    Raises:
        UserError: no such data, a column that is not there, or no pair among the rows.
    """

    rows: PositiveInt = field(kw_only=True)

    def __post_init__(self) -> None:
        """Read the rows."""
        super().__post_init__()
        stored, self.columns, self.folder = open_passing(
            self.path, self.columns, self.split, self.config, self.revision
        )
        self.table = pa.concat_tables(
            list(batches(stored.take(self.rows), self.path, self.columns.caption))
        )
        self.chosen = self.select(self.table)
        if not len(self.chosen.rows):
            raise UserError(f"{self.path}: no pair among the first {self.rows} rows")

    def __len__(self) -> int:
        return len(self.chosen.rows)

    def __getitem__(self, index: int) -> ImagePair:
        """Pair `index`; BadRow where it cannot be used."""
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        row = self.table.slice(int(self.chosen.rows[index]), 1).to_pylist()[0]
        order = int(self.chosen.order[index])
        return read_pair(row, self.columns, order, self.row_name(index), self.folder)

    def row_name(self, index: int) -> str:
        """`<path> row <index in the table>`."""
        return f"{self.path} row {self.chosen.rows[index]}"

    def fingerprint(self) -> str:
        """sha256 over captions, order, and length, first and last 64 bytes of every image."""
        digest = hashlib.sha256(self.chosen.order.tobytes())
        for row in self.table.take(self.chosen.rows).to_pylist():
            digest.update(repr(row[self.columns.caption]).encode())
            for name in self.columns.images:
                digest.update(edges(row[name], "", self.folder))
        return digest.hexdigest()
