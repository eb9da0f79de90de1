"""Scores on disk in shards: each file is complete or absent, and says itself what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.types import SkippedRow
from sdpo_exp.whole_files import write_parquet

_ABOUT = b"sdpo_exp.relabel"
_SCHEMA = pa.schema(
    {
        "index": pa.int64(),
        "winner": pa.float32(),
        "loser": pa.float32(),
        "row": pa.string(),
        "reason": pa.string(),
    }
)


@dataclass(frozen=True)
class ScoredPair:
    """Scores of the source's winner and loser of pair `index`, or why there are none."""

    index: int
    winner: float | None
    loser: float | None
    problem: SkippedRow | None = None


class Scores(NamedTuple):
    """Scores (N, 2) float32 of a source's winners and losers, nan for bad rows, and these."""

    values: NDArray[np.float32]
    bad: dict[int, SkippedRow]


@dataclass(frozen=True)
class ShardKey:
    """What scores belong to; a shard of another key is never mixed with ours.

    Attributes:
        source: fingerprint of the pairs.
        pairs: how many there are.
        shard: pairs per file; the last one may hold fewer.
        settings: of the scorer, without the device.
    """

    source: str
    pairs: int
    shard: int
    settings: Mapping[str, Any]


class Shards:
    """The shards of one metric on one part of the data: `<folder>/00000.parquet` and so on.

    Args:
        folder: `shards/<part>/<metric>`; it need not exist.
        metric: the name that messages use.
        key: what the scores belong to.
    """

    def __init__(self, folder: Path, metric: str, key: ShardKey) -> None:
        self.folder, self.metric, self.key = folder, metric, key

    def numbers(self) -> range:
        """Of all shards, there or not."""
        return range(-(-self.key.pairs // self.key.shard))

    def rows(self, number: int) -> range:
        """The pairs of a shard."""
        first = number * self.key.shard
        return range(first, min(first + self.key.shard, self.key.pairs))

    def missing(self) -> list[int]:
        """Shards that are still to be scored."""
        return [number for number in self.numbers() if not self._path(number).is_file()]

    def check_pairs(self) -> None:
        """Refuse a folder with scores of other pairs.

        Raises:
            UserError: with what differs, or a shard that cannot be read.
        """
        mine = (self.key.source, self.key.pairs)
        for path, there in self._there():
            if (there.get("source"), there.get("pairs")) != mine:
                raise UserError(
                    f"{path}: scores of other pairs ({there.get('pairs')} with fingerprint "
                    f"{str(there.get('source'))[:12]}; these are {self.key.pairs} with "
                    f"{self.key.source[:12]}). {_WAY_OUT}"
                )

    def check(self, origin: Any = None) -> None:
        """Refuse a folder with scores of other pairs, or in other shards, or by another scorer.

        Args:
            origin: where the scorer's weights come from, if that is known by now.

        Raises:
            UserError: with what differs, or a shard that cannot be read.
        """
        self.check_pairs()
        mine, now = _plain(self.key.settings), _plain(origin)
        for _, there in self._there():
            if there.get("shard") != self.key.shard:
                what = f"made with shard={there.get('shard')}, not {self.key.shard}"
            elif changed := _changes(there.get("settings"), mine):
                what = f"metric.{self.metric} had other settings when it scored ({changed})"
            elif origin is not None and there.get("origin") != now:
                changed = _changes(there.get("origin"), now)
                what = f"metric.{self.metric} had other weights when it scored ({changed})"
            else:
                continue
            raise UserError(f"{self.folder}: {what}. {_WAY_OUT}")

    def write(self, number: int, pairs: Sequence[ScoredPair], origin: Any) -> None:
        """Write a shard, complete or not at all."""
        problems = [pair.problem or SkippedRow("", "") for pair in pairs]
        columns = [
            [pair.index for pair in pairs],
            [pair.winner for pair in pairs],
            [pair.loser for pair in pairs],
            [problem.row or None for problem in problems],
            [problem.reason or None for problem in problems],
        ]
        about = {**_plain(vars(self.key)), "metric": self.metric, "origin": _plain(origin)}
        schema = _SCHEMA.with_metadata({_ABOUT: json.dumps(about)})
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
        path = self._path(number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_parquet(path, pa.table(arrays, schema=schema))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({first_line(error)})") from None

    def origin(self) -> Any:
        """Where the weights come from that scored; None where the scorer does not say."""
        return _about(self._path(0)).get("origin")

    def read(self) -> Scores:
        """All scores; a shard must not be missing.

        Raises:
            UserError: a shard cannot be read.
        """
        values = np.full((self.key.pairs, 2), np.nan, np.float32)
        bad = {}
        for pair in self._pairs():
            if pair.problem is not None:
                bad[pair.index] = pair.problem
                continue
            values[pair.index] = pair.winner, pair.loser
            if not np.isfinite(values[pair.index]).all():
                bad[pair.index] = SkippedRow("", f"score is no finite number ({self.metric})")
        return Scores(values, bad)

    def _pairs(self) -> Iterator[ScoredPair]:
        for number in self.numbers():
            for row in _table(self._path(number)).to_pylist():
                reason = row["reason"]
                problem = SkippedRow(row["row"], reason) if reason is not None else None
                yield ScoredPair(row["index"], row["winner"], row["loser"], problem)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.parquet"

    def _there(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in sorted(self.folder.glob("*.parquet")):
            yield path, _about(path)


_WAY_OUT = "Give the same again, or another folder; what is scored there stays as it is"


def _about(path: Path) -> dict[str, Any]:
    try:
        metadata = pq.read_schema(path).metadata or {}
        about: dict[str, Any] = json.loads(metadata[_ABOUT])
        return about
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(_unreadable(path, error)) from None


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, schema=_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise UserError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: BaseException) -> str:
    return f"{path}: cannot be read ({first_line(error)}); remove it and it is scored again"


def _plain(value: Any) -> Any:
    """As json gives it back, to compare with what a file says."""
    return json.loads(json.dumps(value, default=str))


def _changes(there: Any, here: Any) -> str:
    """`key: there -> here` for every value that differs."""
    before, mine = (value if isinstance(value, dict) else {"": value} for value in (there, here))
    keys = dict.fromkeys([*before, *mine])
    return ", ".join(
        f"{key}: {before.get(key)} -> {mine.get(key)}"
        for key in keys
        if before.get(key) != mine.get(key)
    )
