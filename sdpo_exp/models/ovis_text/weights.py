"""Tensors of some parts of a checkpoint, all of them and of the right shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.models.stored_tensors import files_of, tensors_in

_SHOWN = 3


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
    found = {name: tensor.to(dtype) for name, tensor in tensors_in(located)}
    other = {
        f"{name} {tuple(tensor.shape)} instead of {tuple(shapes[name])}"
        for name, tensor in found.items()
        if tuple(tensor.shape) != tuple(shapes[name])
    }
    _refuse(folder, {"of another shape": other})
    return found


def _refuse(folder: Path, faults: Mapping[str, Collection[str]]) -> None:
    told = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:_SHOWN])}"
        f"{', ...' if len(names) > _SHOWN else ''})"
        for what, names in faults.items()
        if names
    ]
    if told:
        raise UserError(f"{folder}: not the weights of Ovis-U1's text side: {'; '.join(told)}")
