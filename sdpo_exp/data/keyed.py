"""Sources read by `PairKey`: pixels, prompt dropout, and what stands in for a bad row."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdpo_exp.data.rows import NamesRows
from sdpo_exp.data.transform import aspect_gap
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.protocols import PairSource, PairTransform
from sdpo_exp.randomness import Stream, draw_uniform
from sdpo_exp.types import Geometry, ImagePair, PairBatch, PairKey, PairRow, SkippedRow

OnBadRow = Literal["error", "skip"]
MOST_BAD_IN_A_ROW = 100


@runtime_checkable
class HasKin(Protocol):
    """A source of several, whose rows stand in for rows of the same one alone."""

    def kin(self, index: int) -> Sequence[int]:
        """Rows of the same source as row `index`, ascending, itself among them."""


class StoredRows(Protocol):
    """Rows that were made before."""

    def row(self, index: int) -> PairRow:
        """Row `index`; raises `BadRow` where it was one."""


class KeyedRow(NamedTuple):
    """A row as trained on, the key it was read by, and bad rows that it stands in for."""

    row: PairRow
    key: PairKey
    skipped: list[SkippedRow]


class KeyedPairs(Dataset["KeyedRow | UserError"]):
    """A source read by `PairKey`; drops a pair's prompt by the pair's own random number.

    A mistake of the user's is returned, not raised: a loader's worker would wrap it in a traceback.

    Args:
        source: pairs.
        seed: of prompt dropout and transform.
        prompt_dropout: share of pairs with the empty prompt.
        transform: from images to pixels, where the source gives images.
        on_bad_row: `skip`: the next good row stands in, under the bad one's place in the stream.
        max_aspect_gap: images that differ more in shape (`transform.aspect_gap`) are a bad row;
            None: any shapes.
        stride: how far off the first stand-ins are. A fixed set of the first n rows takes n, so
            that a stand-in is not one of the set already.
        stored: rows of the source as a cache holds them; nothing of the source itself is read.
    """

    def __init__(
        self,
        source: PairSource,
        seed: int,
        prompt_dropout: float = 0.0,
        transform: PairTransform | None = None,
        on_bad_row: OnBadRow = "error",
        max_aspect_gap: float | None = None,
        stride: int = 1,
        stored: StoredRows | None = None,
    ) -> None:
        self.source, self.seed, self.prompt_dropout = source, seed, prompt_dropout
        self.transform, self.on_bad_row, self.stride = transform, on_bad_row, stride
        self.max_aspect_gap, self.stored = max_aspect_gap, stored

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: PairKey) -> KeyedRow | UserError:
        try:
            return self.read(key)
        except UserError as error:
            return error

    def read(self, key: PairKey) -> KeyedRow:
        """The row of a key, or its stand-in, whose row number the key then has.

        Raises:
            UserError: a bad row under `error`, too many of them under `skip`, or a source and a
                transform that do not fit.
        """
        skipped: list[SkippedRow] = []
        for row in islice(self._candidates(key.row), MOST_BAD_IN_A_ROW):
            candidate = key._replace(row=row)
            try:
                return KeyedRow(self._finished(self.pixels(candidate), key), candidate, skipped)
            except BadRow as error:
                if self.on_bad_row == "error":
                    raise UserError(
                        f"{error}. Mend the row, or give data.on_bad_row=skip to go on without "
                        "such rows"
                    ) from None
                skipped.append(SkippedRow(error.row, error.reason))
        first, last = skipped[0], skipped[-1]
        raise UserError(
            f"{len(skipped)} bad rows one after the other, from {first.row} ({first.reason}) to "
            f"{last.row} ({last.reason}); something is wrong with all of them"
        )

    def problem(self, key: PairKey) -> SkippedRow | None:
        """What is wrong with the row of a key, or None."""
        try:
            self.pixels(key)
        except BadRow as error:
            return SkippedRow(error.row, error.reason)
        return None

    def _candidates(self, row: int) -> Iterator[int]:
        """The row itself, those `stride` apart behind it, then all others; none twice.

        Of a mixture only the row's own source, where fewer of the first `stride` rows are.
        """
        if is_endless(self.source):
            return iter(range(row, row + MOST_BAD_IN_A_ROW))
        kin = self.source.kin(row) if isinstance(self.source, HasKin) else range(len(self.source))
        size, place, stride = len(kin), bisect_left(kin, row), bisect_left(kin, self.stride)
        first = range(place, size, max(1, stride))
        others = ((place + step) % size for step in range(1, size))
        return (int(kin[i]) for i in chain(first, (i for i in others if i not in first)))

    def pixels(self, key: PairKey) -> PairRow:
        """The row of a key with its own prompt; what is stored of it in the place of pixels.

        Raises:
            BadRow: it cannot be used.
            UserError: a source and a transform that do not fit.
        """
        if self.stored is not None:
            return self.stored.row(key.row)
        pair = self.source[key.row]
        if self.transform is None:
            if isinstance(pair, ImagePair):
                raise UserError(
                    "data.transform is missing: the source gives images of any size; "
                    "sdpo_exp.data.transform.PairCrop makes pixels of them"
                )
            return pair
        if not isinstance(pair, ImagePair):
            raise UserError("data.transform must be null: the source gives finished pixels")
        try:
            self._check_shapes(pair, key)
            return self.transform(pair, self.seed, key)
        except BadRow as error:
            name = self.source.row_name(key.row) if isinstance(self.source, NamesRows) else None
            raise BadRow(name or error.row, error.reason) from None

    def _check_shapes(self, pair: ImagePair, key: PairKey) -> None:
        if self.max_aspect_gap is not None and aspect_gap(pair) > self.max_aspect_gap:
            shapes = " and ".join(f"{i.width} x {i.height}" for i in (pair.winner, pair.loser))
            reason = f"aspect ratios differ by more than max_aspect_gap ({shapes})"
            raise BadRow(f"row {key.row}", reason)

    def _finished(self, row: PairRow, key: PairKey) -> PairRow:
        if self.prompt_dropout:
            draw = draw_uniform(self.seed, [key], Stream.PROMPT_DROPOUT)
            if float(draw) < self.prompt_dropout:
                return row._replace(prompt="")
        return row


def is_endless(source: PairSource) -> bool:
    """Whether the source is a stream that shuffles itself and has no last row."""
    return bool(getattr(source, "endless", False))


def collate(rows: Sequence[KeyedRow]) -> PairBatch:
    """Stack rows to a `PairBatch`."""
    return PairBatch(
        winner=torch.stack([item.row.winner for item in rows]),
        loser=torch.stack([item.row.loser for item in rows]),
        prompts=[item.row.prompt for item in rows],
        keys=[item.key for item in rows],
        geometry=[item.row.geometry or uncropped(item.row.winner) for item in rows],
        skipped=[bad for item in rows for bad in item.skipped],
    )


def collate_or_error(rows: Sequence[KeyedRow | UserError]) -> PairBatch | UserError:
    """`collate`, or the first mistake among the rows."""
    good = [row for row in rows if not isinstance(row, UserError)]
    return (
        collate(good)
        if len(good) == len(rows)
        else next(row for row in rows if isinstance(row, UserError))
    )


class Sealed:
    """A batch on its way from the loader that Lightning's precision does not look into.

    `trainer.precision=bf16-true` rounds every tensor that it finds in tuples, mappings and
    dataclasses, before any hook; pixels are float32 as far as the backbone.
    """

    def __init__(self, content: PairBatch | UserError) -> None:
        self.content = content

    def pin_memory(self) -> Sealed:
        """As the loader's pinning asks of types it does not know."""
        if isinstance(self.content, UserError):
            return self
        winner, loser = self.content.winner.pin_memory(), self.content.loser.pin_memory()
        return Sealed(self.content._replace(winner=winner, loser=loser))


def collate_sealed(rows: Sequence[KeyedRow | UserError]) -> Sealed:
    """`collate_or_error`, for a loader."""
    return Sealed(collate_or_error(rows))


def uncropped(pixels: Tensor) -> Geometry:
    """Of pixels (3, H, W) that are the whole image."""
    height, width = pixels.shape[-2:]
    return Geometry(height, width, 0, 0, height, width)
