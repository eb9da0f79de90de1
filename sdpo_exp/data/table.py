"""Pairs from a table of images, labels and captions: a hub dataset, or local files."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdpo_exp.bounds import HalfOpenUnit, NonNegativeFloat, PositiveInt
from sdpo_exp.data.columns import Columns, Part, Rules, Selection, account, select
from sdpo_exp.data.files import absent_table, find_table, open_table
from sdpo_exp.data.rows import edges, read_pair
from sdpo_exp.errors import UserError
from sdpo_exp.types import ImagePair

_log = logging.getLogger(__name__)
_SAMPLED_IMAGES = 1_000


class TablePairs:
    """Pairs of a table in the table's order, without ties.

    Rows are chosen from captions and numbers alone; images are read one row at a time, where they
    are asked for. A row that cannot be used raises `BadRow` then.

    Args:
        path: a parquet, arrow, csv or jsonl file, a folder of them, a folder of
            `datasets.save_to_disk`, or a hub id.
        columns: which column is what.
        split: the split's name in file or folder names; a lone file is `train`.
        config: folder of a configuration inside the dataset; null: the whole dataset.
        revision: branch, tag or commit of a hub id; null: its default branch.
        min_margin: drop rows whose winner is better by less; needs a margin or scores.
        holdout, part: split by a hash of the caption: `train` and `validation` share no caption.
        max_samples: stop after so many pairs; null: all.
        cache_dir: where `datasets` keeps its arrow copy; null: as HF_DATASETS_CACHE says.

    Raises:
        UserError: no such data, a column that is not there, or no pair left.
    """

    def __init__(
        self,
        path: str,
        columns: Columns,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        min_margin: NonNegativeFloat | None = None,
        holdout: HalfOpenUnit = 0.0,
        part: Part = "all",
        max_samples: PositiveInt | None = None,
        cache_dir: str | None = None,
    ) -> None:
        rules = Rules(min_margin, holdout, part)
        rules.check(columns, path, split)
        self.path, self.split, self.columns = path, split, columns
        found = find_table(path, revision, config, split)
        self.folder = found.folder
        table = open_table(found, split, cache_dir)
        columns.check(table.column_names, path)
        self._table = table.select_columns(list(dict.fromkeys(columns.named.values())))
        self._table = self._table.with_format("arrow")
        self.counts = self._choose(select(self._columns_of_all(), columns, rules), max_samples)
        _log.info("%s", self.description)

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

    @property
    def description(self) -> str:
        """How many rows there are and what became of them."""
        return f"{self.path} ({self.split}): {account(self.counts)}"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ImagePair:
        """Pair `index`.

        Raises:
            BadRow: it cannot be used.
            IndexError: outside 0..len-1.
        """
        row = self._row(index)
        order = int(self.order[index])
        return read_pair(row, self.columns, order, self.row_name(index), self.folder)

    def row_name(self, index: int) -> str:
        """`<path> row <index in the table>`."""
        return f"{self.path} row {self.rows[index]}"

    def fingerprint(self) -> str:
        """sha256 over the pairs, in order; no paths and no dates.

        Covers every caption, the order of every pair and the byte length of every stored image;
        and the first and last 64 bytes of each image of up to 1,000 pairs, evenly spaced. Images
        that are given as paths are covered by these 1,000 alone, and their paths are not covered.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.order.tobytes())
        captions = self._columns_of_all()[self.columns.caption].take(self.rows)
        for start in range(0, len(self), 10_000):
            digest.update(repr(captions[start : start + 10_000].to_pylist()).encode())
        for name in self.columns.images:
            digest.update(self._lengths(name).tobytes())
        sampled = np.linspace(0, len(self) - 1, min(len(self), _SAMPLED_IMAGES)).astype(int)
        for index in sampled:
            row = self._row(int(index))
            for name in self.columns.images:
                digest.update(edges(row[name], "", self.folder))
        return digest.hexdigest()

    def _lengths(self, name: str) -> NDArray[np.int64]:
        """Byte lengths of the stored images, -1 for none: of offsets only, no image is read."""
        column = self._columns_of_all()[name]
        if "struct" in str(column.type):
            column = pc.struct_field(column, "bytes")
        if "binary" not in str(column.type):
            return np.empty(0, np.int64)
        lengths = pc.binary_length(column).cast("int64").fill_null(-1)
        return np.asarray(lengths.to_numpy(), np.int64)[self.rows]

    def _choose(self, chosen: Selection, max_samples: int | None) -> dict[str, int]:
        self.rows, self.order = chosen.rows[:max_samples], chosen.order[:max_samples]
        counts = {**chosen.counts, "kept": len(self.rows)}
        if len(self.rows) < chosen.counts["kept"]:
            counts["beyond max_samples"] = chosen.counts["kept"] - len(self.rows)
        if not len(self.rows):
            raise UserError(f"{self.path} ({self.split}): no pair left ({account(counts)})")
        return counts

    def _columns_of_all(self) -> Any:
        """The whole table as mapped into memory; what is not looked at is not read."""
        return self._table[:]

    def _row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self.rows):
            raise IndexError(f"pair {index} of {len(self.rows)}")
        row: dict[str, Any] = self._table[int(self.rows[index])].to_pylist()[0]
        return row
