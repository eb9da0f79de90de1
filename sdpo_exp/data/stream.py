"""Pairs from a table that is too large to store: read in passing, never as a whole."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count, islice
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.data.keyed import MOST_BAD_IN_A_ROW
from sdpo_exp.data.passing import batches, open_passing
from sdpo_exp.data.rows import edges, read_pair
from sdpo_exp.data.table_source import TablePart
from sdpo_exp.errors import UserError
from sdpo_exp.types import ImagePair

_log = logging.getLogger(__name__)
_ROWS_IN_FINGERPRINT = 64


class _Raw(NamedTuple):
    """A row that was chosen and not decoded yet."""

    table: pa.Table
    order: int


@dataclass(eq=False)
class StreamPairs(TablePart):
    """An endless stream of pairs, shuffled anew in every epoch; `source[i]` is its i-th pair.

    The order is that of `datasets`: files are shuffled, and rows within a buffer. Rows are read in
    passing: going on is cheap, skipping decodes nothing, going back starts from the beginning. Each
    of a loader's workers reads the whole stream and decodes its own rows.

    Args:
        skip_first: leave the table's first rows to a `StreamHead`; files then keep their order,
            which makes the shuffle more local. A holdout by caption does not.
        buffer_size: rows to shuffle among, in memory in each worker, as stored.
        seed: of the shuffle.
        path, columns, split, config, revision, min_margin, holdout, part: `TablePart`'s; a hub id
            that is not in the cache is read from the hub as it goes.

    Raises:
        UserError: no such data, or a column that is not there.
    """

    skip_first: NonNegativeInt = 0
    buffer_size: PositiveInt = 1000
    seed: NonNegativeInt = 0
    endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Open the table; nothing but its columns' names is read yet."""
        super().__post_init__()
        stored, self.columns, self.folder = open_passing(
            self.path, self.columns, self.split, self.config, self.revision
        )
        self._stored = stored.skip(self.skip_first) if self.skip_first else stored
        self._rewind()
        _log.info(
            "%s (%s): an endless stream, shuffled within %d rows",
            *(self.path, self.split, self.buffer_size),
        )

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
        table = (self.split, self.config, self.columns, self.rules)
        choices = (*table, self.skip_first, self.buffer_size, self.seed)
        digest = hashlib.sha256(repr(choices).encode())
        if self.columns.preferred is not None:
            digest.update(repr((self.columns.preferred, self.columns.values)).encode())
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
        # A new one each time: `datasets` keeps the epoch of a set in memory that a loader's workers
        # share, so each would move it under the others' hands.
        shuffled = self._stored.shuffle(self.seed, buffer_size=self.buffer_size)
        shuffled.set_epoch(epoch)
        empty = True
        for raw in self._read(shuffled):
            empty = False
            yield raw
        if empty:
            raise UserError(f"{self.path}: no pair left in the whole stream")

    def _read(self, stored: Any) -> Iterator[_Raw]:
        for table in batches(stored, self.path, self.columns.caption):
            chosen = self.select(table, passing=True)
            for row, order in zip(chosen.rows.tolist(), chosen.order.tolist(), strict=True):
                yield _Raw(table.slice(row, 1), order)
