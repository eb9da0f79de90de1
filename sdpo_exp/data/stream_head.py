"""Held-out pairs for a stream: the first rows of its table, kept in memory."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from sdpo_exp.bounds import NonNegativeFloat, PositiveInt
from sdpo_exp.data.columns import Columns, Rules, select
from sdpo_exp.data.files import absent_table
from sdpo_exp.data.passing import batches, open_passing
from sdpo_exp.data.rows import edges, read_pair
from sdpo_exp.errors import UserError
from sdpo_exp.types import ImagePair


class StreamHead:
    """The pairs among the first rows of a stream, in memory: held-out pairs for `StreamPairs`.

    Args:
        path, columns, split, config, revision, min_margin: as for `StreamPairs`.
        rows: rows to read; give the same number to the stream's `skip_first`.

    Raises:
        UserError: no such data, a column that is not there, or no pair among the rows.
    """

    def __init__(
        self,
        path: str,
        columns: Columns,
        rows: PositiveInt,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        min_margin: NonNegativeFloat | None = None,
    ) -> None:
        self.path, self.columns = path, columns
        rules = Rules(min_margin)
        rules.check(columns, path, split)
        stored, self.folder = open_passing(path, columns, split, config, revision)
        self.table = pa.concat_tables(list(batches(stored.take(rows), path)))
        self.chosen = select(self.table, columns, rules)
        if not len(self.chosen.rows):
            raise UserError(f"{path}: no pair among the first {rows} rows")

    @classmethod
    def absent(
        cls,
        path: str,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        **_: Any,
    ) -> str | None:
        """Why the data cannot be had, in one sentence, or None; loads nothing."""
        return absent_table(path, revision, config, split)

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
