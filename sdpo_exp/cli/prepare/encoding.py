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
from sdpo_exp.cli.workers import Rank, quiet
from sdpo_exp.data.cache_card import TEXT
from sdpo_exp.data.cache_shards import StoredRow, shard_rows, write_rows, write_texts
from sdpo_exp.data.datamodule import PairDataModule
from sdpo_exp.data.keyed import KeyedPairs, uncropped
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.terminal.progress import Progress, chunks
from sdpo_exp.types import Geometry, PairKey, PairRow, SkippedRow

_IMAGES_AT_ONCE = 64


def encode_rows(rank: Rank, words: dict[str, Any], folder: str, todo: Sequence[str]) -> None:
    """Write this process's share of shards of rows.

    Args:
        rank: of the process.
        words: the configuration.
        folder: of the cache.
        todo: all shards that are missing; it takes every n-th.
    """
    config, data, backbone = _opened(rank, words)
    mine, dtype = todo[rank.rank :: rank.world], getattr(torch, config.cache_dtype)
    total = sum(len(_rows_of(name, data, config.shard)) for name in mine)
    with Progress("images of", total, "pair", shown=rank.rank == 0) as progress:
        for name in mine:
            part = name.partition("/")[0]
            pairs = cached_pairs(data, part)
            rows = _rows_of(name, data, config.shard)
            encoder = _Encoder(backbone, rank.device)
            stored: list[StoredRow | SkippedRow] = []
            for row in _read(pairs, rows, config.data.get("num_workers") or 0):
                stored.append(encoder.take(row) if isinstance(row, PairRow) else row)
                progress.advance()
            write_rows(Path(folder) / name, encoder.posteriors(pairs), stored, dtype)


def encode_texts(
    rank: Rank, words: dict[str, Any], folder: str, todo: Sequence[str], prompts: Sequence[str]
) -> None:
    """Write this process's share of shards of texts.

    Args:
        rank: of the process.
        words: the configuration.
        folder: of the cache.
        todo: all shards that are missing; it takes every n-th.
        prompts: distinct, of all shards.
    """
    config, data, backbone = _opened(rank, words)
    mine, dtype = todo[rank.rank :: rank.world], getattr(torch, config.cache_dtype)
    place = cached_pairs(data, "train").place
    wanted = [[prompts[i] for i in _range(name, config.shard, len(prompts))] for name in mine]
    with Progress(TEXT, sum(map(len, wanted)), "prompt", shown=rank.rank == 0) as progress:
        for name, some in zip(mine, wanted, strict=True):
            texts: list[Any] = []
            for part in chunks(some, _IMAGES_AT_ONCE):
                texts += backbone.encode_texts(part, [place] * len(part))
                progress.advance(len(part))
            write_texts(Path(folder) / name, some, texts, dtype)


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
            if len(self._waiting) == _IMAGES_AT_ONCE:
                self._encode()
        return self._numbers[digest]

    def _encode(self) -> None:
        if self._waiting:
            pixels = torch.stack(self._waiting).to(self._device)
            self._found.append(self._backbone.posterior(pixels).cpu())
            self._waiting = []


def _opened(rank: Rank, words: dict[str, Any]) -> tuple[Any, PairDataModule, Any]:
    quiet(words["torch_threads"] or 1)
    config = OmegaConf.create(words)
    backbone = build(config.model, "model", loading="on_demand")
    backbone.to(torch.device(rank.device))
    return config, build_datamodule(config), backbone


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
