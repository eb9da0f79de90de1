"""Pairs from a table that is too large to store: read in passing, never as a whole."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from itertools import chain, count, islice
from typing import Any, NamedTuple

import pyarrow as pa

from sdpo_exp.bounds import HalfOpenUnit, NonNegativeFloat, NonNegativeInt, PositiveInt
from sdpo_exp.data.columns import Columns, Part, Rules, select
from sdpo_exp.data.files import absent_table
from sdpo_exp.data.keyed import MOST_BAD_IN_A_ROW
from sdpo_exp.data.passing import batches, open_passing
from sdpo_exp.data.rows import edges, read_pair
from sdpo_exp.errors import UserError
from sdpo_exp.types import ImagePair

_log = logging.getLogger(__name__)
_ROWS_IN_FINGERPRINT = 64


class _Raw(NamedTuple):
    """A row that was chosen and not decoded yet."""

    table: pa.Table
    order: int


class StreamPairs:
    """An endless stream of pairs, shuffled anew in every epoch; `source[i]` is its i-th pair.

    The order is that of `datasets`: files are shuffled, and rows within a buffer. Rows are read in
    passing: going on is cheap, skipping decodes nothing, going back starts from the beginning. Each
    of a loader's workers reads the whole stream and decodes its own rows.

    Args:
        path, columns, split, config, revision, min_margin, holdout, part: as for `TablePairs`; a
            hub id that is not in the cache is read from the hub as it goes.
        skip_first: leave the table's first rows to a `StreamHead`; files then keep their order,
            which makes the shuffle more local. A holdout by caption does not.
        buffer_size: rows to shuffle among, in memory in each worker, as stored.
        seed: of the shuffle.

    Raises:
        UserError: no such data, or a column that is not there.
    """

    endless = True

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
        skip_first: NonNegativeInt = 0,
        buffer_size: PositiveInt = 1000,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.path, self.columns = path, columns
        self.rules = Rules(min_margin, holdout, part)
        self.rules.check(columns, path, split)
        stored, self.folder = open_passing(path, columns, split, config, revision)
        self._stored = stored.skip(skip_first) if skip_first else stored
        self._shuffled = self._stored.shuffle(seed=seed, buffer_size=buffer_size)
        self._settings = (split, config, columns, self.rules, skip_first, buffer_size, seed)
        self._rewind()
        _log.info("%s (%s): an endless stream, shuffled within %d rows", path, split, buffer_size)

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
        raise TypeError("a stream has no length")

    def __getitem__(self, index: int) -> ImagePair:
        """Pair `index` of the stream.

        Raises:
            BadRow: it cannot be used.
            UserError: the stream breaks off, or holds no pair.
        """
        if index < self._next - len(self._recent):
            self._rewind()
        while self._next <= index:
            self._recent.append(next(self._rows))
            self._next += 1
        raw = self._recent[index - self._next]
        row = raw.table.to_pylist()[0]
        return read_pair(row, self.columns, raw.order, self.row_name(index), self.folder)

    def row_name(self, index: int) -> str:
        """`<path> stream row <index>` and the beginning of the caption, to find the row by."""
        name = f"{self.path} stream row {index}"
        if 0 < self._next - index <= len(self._recent):
            caption = self._recent[index - self._next].table[self.columns.caption][0].as_py()
            name += f" [{str(caption)[:40]}]"
        return name

    def fingerprint(self) -> str:
        """sha256 over the choices above and the first 64 pairs as stored; the rest is not read.

        Of these pairs it covers captions, order, and byte length and first and last 64 bytes of the
        images; it does not cover paths. Computed once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self._settings).encode())
        for raw in islice(self._read(self._stored), _ROWS_IN_FINGERPRINT):
            row = raw.table.to_pylist()[0]
            digest.update(repr((row[self.columns.caption], raw.order)).encode())
            for name in self.columns.images:
                digest.update(edges(row[name], "", self.folder))
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Without the place in the stream: a worker begins its own."""
        return {**self.__dict__, "_rows": None, "_recent": deque(), "_next": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rewind()

    def _rewind(self) -> None:
        # As many as a stand-in may look ahead before the stream's next row is asked for.
        self._recent: deque[_Raw] = deque(maxlen=MOST_BAD_IN_A_ROW)
        self._next = 0
        self._rows = chain.from_iterable(self._epoch(epoch) for epoch in count())

    def _epoch(self, epoch: int) -> Iterator[_Raw]:
        self._shuffled.set_epoch(epoch)
        empty = True
        for raw in self._read(self._shuffled):
            empty = False
            yield raw
        if empty:
            raise UserError(f"{self.path}: no pair left in the whole stream")

    def _read(self, stored: Any) -> Iterator[_Raw]:
        for table in batches(stored, self.path):
            chosen = select(table, self.columns, self.rules)
            for row, order in zip(chosen.rows.tolist(), chosen.order.tolist(), strict=True):
                yield _Raw(table.slice(row, 1), order)
