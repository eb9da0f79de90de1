"""Pairs from a table of images, labels and captions: a hub dataset, or local files."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdpo_exp.bounds import PositiveInt, Template
from sdpo_exp.data.columns import Selection, account
from sdpo_exp.data.files import find_table
from sdpo_exp.data.holdout import lone_caption
from sdpo_exp.data.opening import open_table
from sdpo_exp.data.rows import edges, read_pair
from sdpo_exp.data.table_source import TablePart
from sdpo_exp.data.templates import check_template, template_mark, with_template
from sdpo_exp.errors import NoPairLeft
from sdpo_exp.types import ImagePair

_log = logging.getLogger(__name__)
_SAMPLED_IMAGES = 1_000


@dataclass(eq=False)
class TablePairs(TablePart):
    """Pairs of a table in the table's order, without ties.

    Rows are chosen from captions and numbers alone; images are read one row at a time, where they
    are asked for. A row that cannot be used raises `BadRow` then.

    Args:
        max_samples: stop after so many pairs; null: all.
        cache_dir: where `datasets` keeps its arrow copy; null: as HF_DATASETS_CACHE says.
        template: what prompts are made of, such as `a photo of {caption}`; null: captions.
        path, columns, split, config, revision, min_margin, holdout, part: `TablePart`'s.

    Raises:
        UserError: no such data, a column that is not there, or no pair left.
    """

    max_samples: PositiveInt | None = None
    cache_dir: str | None = None
    template: Template | None = None

    def __post_init__(self) -> None:
        """Map the table into memory and choose its rows."""
        super().__post_init__()
        check_template(self.template)
        found = find_table(self.path, self.revision, self.config, self.split)
        self.folder = found.folder
        self._table, self.columns, assumed = open_table(
            found, self.columns, self.split, self.path, self.cache_dir
        )
        whole = self._columns_of_all()
        self.counts = self._choose(self.select(whole, whole=True))
        if assumed is not None:
            _log.info("%s", assumed)
        _log.info("%s", self.description)

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
        pair = read_pair(row, self.columns, order, self.row_name(index), self.folder)
        return with_template(pair, self.template)

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
        digest = hashlib.sha256(template_mark(self.template) + self.order.tobytes())
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
        if pa.types.is_struct(column.type):
            inside = [column.type.field(i).name for i in range(column.type.num_fields)]
            column = pc.struct_field(column, "bytes" if "bytes" in inside else inside[0])
        if "binary" not in str(column.type):
            return np.empty(0, np.int64)
        lengths = pc.binary_length(column).cast("int64").fill_null(-1)
        return np.asarray(lengths.to_numpy(), np.int64)[self.rows]

    def _choose(self, chosen: Selection) -> dict[str, int]:
        self.rows = chosen.rows[: self.max_samples]
        self.order = chosen.order[: self.max_samples]
        counts = {**chosen.counts, "kept": len(self.rows)}
        if len(self.rows) < chosen.counts["kept"]:
            counts["beyond max_samples"] = chosen.counts["kept"] - len(self.rows)
        if not len(self.rows):
            why = f"{self.path} ({self.split}): no pair left ({account(counts)})"
            raise NoPairLeft(f"{why}{lone_caption(counts['other part'])}")
        return counts

    def _columns_of_all(self) -> Any:
        """The whole table as mapped into memory; what is not looked at is not read."""
        return self._table[:]

    def _row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self.rows):
            raise IndexError(f"pair {index} of {len(self.rows)}")
        row: dict[str, Any] = self._table[int(self.rows[index])].to_pylist()[0]
        return row
