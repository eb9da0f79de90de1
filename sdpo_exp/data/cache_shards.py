"""Shards of a cache: safetensors files that are there as a whole or not at all.

A shard of rows has the posteriors of its distinct images, which of them each row's winner and loser
are, and each row's geometry; a shard of texts has each prompt's tensors as the encoder made them.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sdpo_exp.data.cache_card import TEXT, CacheCard
from sdpo_exp.errors import BadRow, UserError, first_line
from sdpo_exp.types import Geometry, PairRow, SkippedRow
from sdpo_exp.whole_files import write_bytes

_OPEN_AT_ONCE = 64
_BAD = -1


def shard_name(part: str, number: int) -> str:
    """Its path in the cache."""
    return f"{part}/{number:05d}.safetensors"


def shard_rows(number: int, shard: int, total: int) -> range:
    """The rows, or prompts, of a shard."""
    return range(number * shard, min((number + 1) * shard, total))


def shard_names(part: str, shard: int, total: int) -> list[str]:
    """The shards of a part, there or not."""
    return [shard_name(part, number) for number in range(-(-total // shard))]


class StoredRow(NamedTuple):
    """A row by the numbers of its two images in its shard."""

    winner: int
    loser: int
    prompt: str
    geometry: Geometry


def write_rows(
    file: Path, posteriors: Tensor, rows: Sequence[StoredRow | SkippedRow], dtype: torch.dtype
) -> None:
    """Write a shard of rows.

    Args:
        file: its path.
        posteriors: mean and deviation (m, 2, C, h, w) of its distinct images.
        rows: in order, bad ones among them.
        dtype: of the posteriors in the file.
    """
    good = [row if isinstance(row, StoredRow) else None for row in rows]
    tensors = {
        "posterior": posteriors.to(dtype).cpu().contiguous(),
        "images": torch.tensor([[r.winner, r.loser] if r else [_BAD] * 2 for r in good]),
        "geometry": torch.tensor([list(r.geometry) if r else [0] * 6 for r in good]),
    }
    told = [row.prompt if isinstance(row, StoredRow) else list(row) for row in rows]
    _write(file, tensors, {"rows": told})


def write_texts(
    file: Path, prompts: Sequence[str], texts: Sequence[Mapping[str, Tensor]], dtype: torch.dtype
) -> None:
    """Write a shard of texts: each prompt's tensors without padding."""
    tensors = {
        f"{i}.{name}": (value.to(dtype) if value.is_floating_point() else value).cpu().contiguous()
        for i, text in enumerate(texts)
        for name, value in text.items()
    }
    _write(file, tensors, {"prompts": list(prompts)})


def prompts_of(folder: Path, names: Sequence[str]) -> list[str]:
    """The distinct prompts of shards of rows, in order, the empty one first."""
    shards = _Shards(folder)
    found = dict.fromkeys([""])
    for name in names:
        found |= dict.fromkeys(p for p in shards.told(name)["rows"] if isinstance(p, str))
    return list(found)


class CachedRows:
    """Rows of one part, read when they are asked for; each worker opens files of its own."""

    def __init__(self, folder: Path, card: CacheCard, part: str) -> None:
        self.part, self.size, self._shards = part, card.shard, _Shards(folder)

    def row(self, index: int) -> PairRow:
        """Posteriors (2, C, h, w) of winner and loser in the place of pixels, as float32.

        Raises:
            BadRow: it was one when the cache was made.
            UserError: a file cannot be read.
        """
        name, place = shard_name(self.part, index // self.size), index % self.size
        told = self._shards.told(name)["rows"][place]
        if not isinstance(told, str):
            raise BadRow(*told)
        winner, loser = self._shards.read(name, "images", place).tolist()
        geometry = Geometry(*self._shards.read(name, "geometry", place).tolist())
        pair = [self._shards.read(name, "posterior", i).float() for i in (winner, loser)]
        return PairRow(pair[0], pair[1], told, geometry)


class CachedTexts:
    """What the text encoders made of each prompt."""

    def __init__(self, folder: Path, card: CacheCard) -> None:
        self._shards, self._where = _Shards(folder), dict[str, tuple[str, int]]()
        for name in card.shards:
            if name.startswith(f"{TEXT}/"):
                for i, prompt in enumerate(self._shards.told(name)["prompts"]):
                    self._where[prompt] = (name, i)

    def __call__(self, prompt: str) -> dict[str, Tensor]:
        """Its tensors by name, float32.

        Raises:
            UserError: the cache has no such prompt, or a file cannot be read.
        """
        if prompt not in self._where:
            raise UserError(f"data.cache: holds nothing of the prompt {prompt!r}")
        name, place = self._where[prompt]
        found = self._shards.all_of(name, f"{place}.")
        return {key: v.float() if v.is_floating_point() else v for key, v in found.items()}


class _Shards:
    """Files of a cache, a few open at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, tuple[Any, dict[str, Any]]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_open": OrderedDict()}

    def told(self, name: str) -> dict[str, Any]:
        """What a file says of its rows."""
        return self._opened(name)[1]

    def read(self, name: str, key: str, place: int) -> Tensor:
        """One row of a tensor."""
        found: Tensor = self._opened(name)[0].get_slice(key)[place : place + 1][0]
        return found

    def all_of(self, name: str, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without it."""
        file, told = self._opened(name)
        return {
            key.removeprefix(prefix): file.get_tensor(key)
            for key in told["keys"]
            if key.startswith(prefix)
        }

    def _opened(self, name: str) -> tuple[Any, dict[str, Any]]:
        if name not in self._open:
            try:
                file = safe_open(self.folder / name, "pt")
                told = json.loads(file.metadata()["told"])
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{self.folder / name}: cannot be read ({first_line(error)}); remove it, and "
                    "the python -m sdpo_exp.prepare that made the cache makes it again"
                ) from None
            self._open[name] = (file, {**told, "keys": list(file.keys())})
            while len(self._open) > _OPEN_AT_ONCE:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]


def _write(file: Path, tensors: dict[str, Tensor], told: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, save(tensors, {"told": json.dumps(told)}))
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({first_line(error)})") from None
