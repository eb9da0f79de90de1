"""One process's share of a cache: rows first, then the prompts that were found in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdpo_exp.cli.build import build, build_datamodule
from sdpo_exp.cli.prepare.disk import check_disk, missing
from sdpo_exp.cli.workers import Rank, quiet
from sdpo_exp.data.cache_card import TEXT
from sdpo_exp.data.cache_shards import (
    StoredRow,
    prompts_of,
    shard_names,
    shard_rows,
    write_rows,
    write_texts,
)
from sdpo_exp.data.datamodule import PairDataModule
from sdpo_exp.data.keyed import KeyedPairs, uncropped
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.terminal.progress import Progress, chunks
from sdpo_exp.types import Geometry, PairKey, PairRow, SkippedRow

_AT_ONCE = 64


def encode_share(rank: Rank, words: dict[str, Any], folder: str, names: Sequence[str]) -> None:
    """Write this process's share of what is missing: every n-th shard.

    Args:
        rank: of the process.
        words: the configuration.
        folder: of the cache.
        names: all shards of rows, there or not.

    Raises:
        UserError: pairs or model cannot be used, or the texts do not fit on the disk.
    """
    quiet(words["torch_threads"] or 1)
    config, root = OmegaConf.create(words), Path(folder)
    backbone = build(config.model, "model", loading="on_demand")
    backbone.to(torch.device(rank.device))
    data, dtype = build_datamodule(config), getattr(torch, config.cache_dtype)
    todo = missing(root, names)
    rank.barrier()  # all have looked before anyone writes
    _encode_rows(rank, root, todo, data, backbone, config.shard, dtype)
    rank.barrier()
    prompts = prompts_of(root, names)
    todo = missing(root, shard_names(TEXT, config.shard, len(prompts)))
    if rank.rank == 0 and todo:
        count = min(len(todo) * config.shard, len(prompts))
        check_disk(root, _bytes_of_texts(count, prompts, data, backbone, dtype), "texts")
    rank.barrier()
    _encode_texts(rank, root, todo, prompts, data, backbone, config.shard, dtype)


def _encode_rows(
    rank: Rank,
    folder: Path,
    todo: Sequence[str],
    data: PairDataModule,
    backbone: Any,
    shard: int,
    dtype: torch.dtype,
) -> None:
    mine = todo[rank.rank :: rank.world]
    total = sum(len(_rows_of(name, data, shard)) for name in mine)
    with Progress("images of", total, "pair", shown=rank.rank == 0) as progress:
        for name in mine:
            pairs = cached_pairs(data, name.partition("/")[0])
            encoder = _Encoder(backbone, rank.device)
            stored: list[StoredRow | SkippedRow] = []
            for row in _read(pairs, _rows_of(name, data, shard), data.num_workers):
                stored.append(encoder.take(row) if isinstance(row, PairRow) else row)
                progress.advance()
            write_rows(folder / name, encoder.posteriors(pairs), stored, dtype)


def _encode_texts(
    rank: Rank,
    folder: Path,
    todo: Sequence[str],
    prompts: Sequence[str],
    data: PairDataModule,
    backbone: Any,
    shard: int,
    dtype: torch.dtype,
) -> None:
    mine = todo[rank.rank :: rank.world]
    wanted = [[prompts[i] for i in _range(name, shard, len(prompts))] for name in mine]
    with Progress(TEXT, sum(map(len, wanted)), "prompt", shown=rank.rank == 0) as progress:
        for name, some in zip(mine, wanted, strict=True):
            place = cached_pairs(data, "train").place
            texts: list[Any] = []
            for part in chunks(some, _AT_ONCE):
                texts += backbone.encode_texts(part, [place] * len(part))
                progress.advance(len(part))
            write_texts(folder / name, some, texts, dtype)


def _bytes_of_texts(
    count: int, prompts: Sequence[str], data: PairDataModule, backbone: Any, dtype: torch.dtype
) -> int:
    """As if all were as long as the longest."""
    (text,) = backbone.encode_texts([max(prompts, key=len)], [cached_pairs(data, "train").place])
    return count * sum(int(value.numel()) * dtype.itemsize for value in text.values())


class CachedPairs(Dataset["PairRow | SkippedRow | UserError"]):
    """Rows of a part as a training would see them, bad ones in words.

    A mistake of the user's is returned, not raised: a worker would wrap it in a traceback.
    """

    def __init__(self, keyed: KeyedPairs) -> None:
        self.keyed = keyed

    def __getitem__(self, index: int) -> PairRow | SkippedRow | UserError:
        try:
            row = self.keyed.pixels(PairKey(0, index, index))
        except BadRow as error:
            return SkippedRow(error.row, error.reason)
        except UserError as error:
            return error
        return row._replace(geometry=row.geometry or uncropped(row.winner))

    @cached_property
    def place(self) -> Geometry:
        """Of the first good row: all have its height and width."""
        for index in range(len(self.keyed)):
            row = self[index]
            if isinstance(row, UserError):
                raise row
            if isinstance(row, PairRow) and row.geometry is not None:
                return row.geometry
        raise UserError("data.train: none of its rows can be used")


def cached_pairs(data: PairDataModule, part: str) -> CachedPairs:
    """The rows of `train` or `validation`."""
    source = data.train if part == "train" else data.validation
    gap = data.max_aspect_gap
    return CachedPairs(KeyedPairs(source, 0, 0.0, data.transform, "error", gap))


class _Encoder:
    """Distinct images of one shard, encoded as they come."""

    def __init__(self, backbone: Any, device: str) -> None:
        self._backbone, self._device = backbone, device
        self._numbers: dict[bytes, int] = {}
        self._waiting: list[Tensor] = []
        self._found: list[Tensor] = []

    def take(self, row: PairRow) -> StoredRow:
        """The row with the numbers of its images."""
        assert row.geometry is not None
        return StoredRow(self._of(row.winner), self._of(row.loser), row.prompt, row.geometry)

    def posteriors(self, pairs: CachedPairs) -> Tensor:
        """(m, 2, C, h, w) of all images taken."""
        self._encode()
        if self._found:
            return torch.cat(self._found)
        place = pairs.place
        return torch.zeros(0, 2, *self._backbone.latent_shape(place.height, place.width))

    def _of(self, pixels: Tensor) -> int:
        digest = hashlib.sha256(pixels.contiguous().numpy().tobytes()).digest()
        if digest not in self._numbers:
            self._numbers[digest] = len(self._numbers)
            self._waiting.append(pixels)
            if len(self._waiting) == _AT_ONCE:
                self._encode()
        return self._numbers[digest]

    def _encode(self) -> None:
        if self._waiting:
            pixels = torch.stack(self._waiting).to(self._device)
            self._found.append(self._backbone.posterior(pixels).cpu())
            self._waiting = []


def _rows_of(name: str, data: PairDataModule, shard: int) -> range:
    part = name.partition("/")[0]
    return _range(name, shard, len(data.train if part == "train" else data.validation))


def _range(name: str, shard: int, total: int) -> range:
    return shard_rows(int(name.partition("/")[2].partition(".")[0]), shard, total)


def _read(pairs: CachedPairs, rows: range, workers: int) -> Iterator[PairRow | SkippedRow]:
    loader: Any = DataLoader(pairs, sampler=rows, batch_size=None, num_workers=workers)
    for row in loader:
        if isinstance(row, UserError):
            raise row
        yield row
