"""Tensors of a model's folder by name: one safetensors file, or shards with an index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models.checkpoint_folder import read_json
from sdpo_exp.models.ovis_files import INDEX, SINGLE


def files_of(folder: Path) -> dict[str, Path]:
    """The file of each tensor; where there are both, the single one, as transformers has it.

    Raises:
        UserError: there are neither, or one cannot be read.
    """
    if (folder / SINGLE).is_file():
        with opened(folder / SINGLE) as file:
            return dict.fromkeys(file.keys(), folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder}: has neither {SINGLE} nor {INDEX}")
    table = read_json(folder / INDEX).get("weight_map")
    if not isinstance(table, dict):
        raise UserError(f"{folder / INDEX}: has no weight_map")
    return {name: folder / file for name, file in table.items()}


def opened(file: Path) -> Any:
    """A safetensors file, to be used in a `with`.

    Raises:
        UserError: it is missing or broken.
    """
    if not file.is_file():
        raise UserError(f"{file}: is missing, though {INDEX} names it")
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read ({first_line(error)})") from None


def tensors_in(located: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors on the CPU, in the dtype they are stored in; each file is opened once.

    Raises:
        UserError: a file is missing or broken, or lacks a name.
    """
    by_file: defaultdict[Path, list[str]] = defaultdict(list)
    for name, file in located.items():
        by_file[file].append(name)
    for file, names in by_file.items():
        with opened(file) as tensors:
            check_names(file, tensors, names)
            for name in names:
                yield name, tensors.get_tensor(name)


def check_names(file: Path, tensors: Any, names: Sequence[str]) -> None:
    """Refuse an opened file that lacks one of the names."""
    known = set(tensors.keys())
    for name in names:
        if name not in known:
            raise UserError(f"{file}: has no tensor {name}, though {INDEX} says so")
