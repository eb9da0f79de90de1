"""Weights in a folder of the released layout, read by prefix and written back in place.

Such a folder holds `config.json` and either `model.safetensors` or several shards with
`model.safetensors.index.json`. Every tensor is in one file; what a network takes of them starts
with its prefix.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.models.checkpoint_folder import read_json
from sdpo_exp.models.ovis_files import CONFIG, GENERATOR, INDEX
from sdpo_exp.models.stored_tensors import check_names, files_of, opened, tensors_in
from sdpo_exp.models.yak.config import YakConfig
from sdpo_exp.whole_files import write_json

VAE = "visual_generator.vae."


def read_config(folder: Path) -> YakConfig:
    """The network's sizes, from the folder's `config.json`.

    Raises:
        UserError: the file is missing or broken, says nothing of a generator, or does not fit.
    """
    content = read_json(folder / CONFIG)
    generator = content.get(GENERATOR)
    if not isinstance(generator, dict):
        raise UserError(f"{folder / CONFIG}: has no visual_generator_config, so it is no Ovis-U1")
    try:
        return YakConfig.from_dict(generator)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG}: visual_generator_config: {error}") from None


def read_prefix(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, under their names without it.

    On the CPU, in the dtype they are stored in.

    Raises:
        UserError: a file is missing or broken, or no name starts so.
    """
    located = {n: file for n, file in files_of(folder).items() if n.startswith(prefix)}
    if not located:
        raise UserError(f"{folder}: none of its tensors is named {prefix}*")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors_in(located)}


def write_prefixed(
    source_folder: Path,
    target_folder: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a whole folder: the source with `tensors` in the place of its own of these names.

    Only the shards that hold these tensors are written, one at a time. Other weight files are
    hard links to the source's where that can be (what is done to one is then done to both), else
    copies; all the rest is copied. The target appears when it is complete.

    Args:
        source_folder: of the released layout.
        target_folder: new, or empty.
        tensors: by whole name, prefix included.
        dtype: of the written tensors; None: each in the dtype that the source has it in.

    Raises:
        UserError: the target is not empty, a file of the source is missing or broken, or it has
            no tensor of a name, or one of another shape.
    """
    if target_folder.exists() and not (target_folder.is_dir() and _is_empty(target_folder)):
        raise UserError(f"{target_folder}: exists and is not empty; name another folder")
    shards = _shards_of(source_folder, tensors)
    partial = target_folder.with_name(f"{target_folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    files = [file for file in sorted(source_folder.rglob("*")) if file.is_file()]
    grown = 0
    try:
        for file in files:
            name = file.relative_to(source_folder)
            given = {key: tensors[key] for key in shards.get(name.as_posix(), ())}
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            if given:
                grown += _rewrite(file, partial / name, given, dtype)
            else:
                _take_over(file, partial / name)
        _correct_size(partial, grown)
        partial.replace(target_folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _shards_of(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Which of the tensors go into which file, after a look whether they fit."""
    where = files_of(folder)
    shards: dict[str, list[str]] = defaultdict(list)
    for name in tensors:
        if name not in where:
            raise UserError(f"{folder}: has no tensor {name} to put the new one in place of")
        shards[where[name].relative_to(folder).as_posix()].append(name)
    for shard, names in shards.items():
        _check_shapes(folder / shard, names, tensors)
    return shards


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _check_shapes(file: Path, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    with opened(file) as stored:
        check_names(file, stored, names)
        for name in names:
            shape, given = tuple(stored.get_slice(name).get_shape()), tuple(tensors[name].shape)
            if shape != given:
                raise UserError(f"{name}: the new one is {given}, that of {file} {shape}")


def _rewrite(
    source: Path, target: Path, given: Mapping[str, Tensor], dtype: torch.dtype | None
) -> int:
    """Write a shard with tensors exchanged; by how many bytes it grows."""
    grown = 0
    with opened(source) as stored:
        content = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        metadata = stored.metadata() or {"format": "pt"}
    for name, tensor in given.items():
        old = content[name]
        new = torch.empty(old.shape, dtype=dtype or old.dtype).copy_(tensor.detach())
        content[name] = new
        grown += new.nbytes - old.nbytes
    save_file(content, target, metadata)
    return grown


def _take_over(source: Path, target: Path) -> None:
    """A link for weights, which nobody edits; a copy for all else."""
    # Files of the hub's cache are links to where the content is.
    real = source.resolve()
    if source.suffix == ".safetensors":
        try:
            os.link(real, target)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copy2(real, target)


def _correct_size(folder: Path, grown: int) -> None:
    """Let the index tell the bytes that there are, where another dtype has changed them."""
    if not grown or not (folder / INDEX).is_file():
        return
    content = read_json(folder / INDEX)
    if "total_size" in content.get("metadata", {}):
        content["metadata"]["total_size"] += grown
        write_json(folder / INDEX, content)
