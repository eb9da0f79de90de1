"""Tensors of some parts of a checkpoint in safetensors: one file, or shards with an index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models import checkpoint_folder

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_SHOWN = 3


def files_of(folder: Path) -> dict[str, Path]:
    """The file of each tensor of a model's folder, by the tensor's name.

    Raises:
        UserError: no weights, or an index that names a file which is not there.
    """
    index = folder / _INDEX
    if index.is_file():
        table = checkpoint_folder.read_json(index).get("weight_map")
        if not isinstance(table, dict):
            raise UserError(f"{index}: has no weight_map")
        if absent := sorted({file for file in table.values() if not (folder / file).is_file()}):
            raise UserError(f"{index}: names {', '.join(absent[:_SHOWN])}, not in the folder")
        return {name: folder / file for name, file in table.items()}
    single = folder / _SINGLE
    if not single.is_file():
        raise UserError(f"{folder}: has neither {_INDEX} nor {_SINGLE}")
    with _opened(single) as tensors:
        return dict.fromkeys(tensors.keys(), single)


def read_parts(
    folder: Path,
    prefixes: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    dtype: torch.dtype,
    ignored: Collection[str] = (),
) -> dict[str, Tensor]:
    """All tensors whose names begin with one of `prefixes`, on the CPU.

    Args:
        folder: of the model.
        prefixes: what the names begin with.
        shapes: the tensors that must be there, no more and no fewer.
        dtype: what they are cast to.
        ignored: names which may be there and are not read.

    Raises:
        UserError: one is missing, unknown or of another shape; the message names it.
    """
    located = {
        name: file
        for name, file in files_of(folder).items()
        if name.startswith(tuple(prefixes)) and name not in ignored
    }
    _refuse(folder, {"missing": shapes.keys() - located, "unknown": located.keys() - shapes})
    found = dict(_read(located, dtype))
    other = {
        f"{name} {tuple(tensor.shape)} instead of {tuple(shapes[name])}"
        for name, tensor in found.items()
        if tuple(tensor.shape) != tuple(shapes[name])
    }
    _refuse(folder, {"of another shape": other})
    return found


def _read(located: Mapping[str, Path], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    by_file: defaultdict[Path, list[str]] = defaultdict(list)
    for name, file in located.items():
        by_file[file].append(name)
    for file, names in by_file.items():
        with _opened(file) as tensors:
            if absent := sorted(set(names) - set(tensors.keys())):
                raise UserError(f"{file}: lacks {absent[0]}, which the index puts there")
            for name in names:
                yield name, tensors.get_tensor(name).to(dtype)


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except Exception as error:
        raise UserError(f"{file}: cannot be read as weights ({first_line(error)})") from None


def _refuse(folder: Path, faults: Mapping[str, Collection[str]]) -> None:
    told = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:_SHOWN])}"
        f"{', ...' if len(names) > _SHOWN else ''})"
        for what, names in faults.items()
        if names
    ]
    if told:
        raise UserError(f"{folder}: not the weights of Ovis-U1's text side: {'; '.join(told)}")
