"""What names and headers of files that are here already tell, before torch is imported.

A mistake in several places is told in one go, and within two seconds. What cannot be known from
there (weights, images, the hub) is told later, by the classes themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdpo_exp import hub
from sdpo_exp.cli.cache_settings import cache_mistakes
from sdpo_exp.cli.train.held_out import HELD_OUT
from sdpo_exp.config.class_values import class_value
from sdpo_exp.config.command_line import given_keys
from sdpo_exp.data.columns import Columns
from sdpo_exp.data.files import absent_table, find_table
from sdpo_exp.data.folder_files import is_folder_of_pairs, read_folder
from sdpo_exp.data.holdout import too_few
from sdpo_exp.data.opening import with_meanings
from sdpo_exp.data.table_types import column_names, values_of
from sdpo_exp.data.usual_columns import columns_of, told_names, usual_columns
from sdpo_exp.errors import UserError
from sdpo_exp.models.families import ModelFiles
from sdpo_exp.models.target_names import check_targets

_FOLDER = "sdpo_exp.data.folder.FolderPairs"
_TABLES = ("sdpo_exp.data.table.TablePairs", "sdpo_exp.data.stream.StreamPairs")
_MIXTURE = "sdpo_exp.data.mixture.MixedPairs"
_LORA = "sdpo_exp.models.tuning.LoraTuning"


def check_own_files(config: DictConfig) -> list[str]:
    """Mistakes of a composed cell that its files show; each once.

    Where a value itself is a mistake, which is told elsewhere, what needs it is not looked at.
    """
    looks: tuple[Callable[[], list[str]], ...] = (
        partial(_model, config),
        partial(_targets, config),
        partial(_side, config, "train"),
        partial(_side, config, "validation"),
        partial(cache_mistakes, config),
    )
    found: dict[str, None] = {}
    for look in looks:
        try:
            found |= dict.fromkeys(look())
        except UserError as error:
            found[str(error)] = None
        except (OmegaConfBaseException, KeyError, TypeError, ValueError, AttributeError):
            continue  # a value of the wrong kind
    return list(found)


def _model(config: DictConfig) -> list[str]:
    """Family and resolution, by what the family itself reads in a model's folder."""
    found = _folder_of(config)
    if found is None:
        return []
    family, folder = found
    return list(family.mistakes(folder, _model_keys(config), config.resolution))


def _targets(config: DictConfig) -> list[str]:
    """LoRA's targets, by the names in the headers of the denoiser's weights."""
    found = _folder_of(config)
    if found is None or config.tuning.get("_target_") != _LORA:
        return []
    family, folder = found
    layers = set(family.layers(folder))
    if not layers:
        return []
    above = {".".join(m.split(".")[:i]) for m in layers for i in range(1, m.count(".") + 1)}
    asked = OmegaConf.to_container(config.tuning).get("targets")  # type: ignore[union-attr]
    targets = asked or family.lora_targets
    check_targets(targets, layers | above, sorted(layers), f"its {family.denoiser}")
    return []


def _side(config: DictConfig, side: str) -> list[str]:
    """A folder of pairs or the columns of a table, and the held-out pairs that are asked for."""
    node = config.data[side]
    if node.get("_target_") in _TABLES:
        _check_columns(node)
    if node.get("_target_") == _MIXTURE:
        return list(_of_sources(node.sources))
    if node.get("_target_") != _FOLDER:
        return []
    there = len(read_folder(node.path, node.holdout, node.part)[: node.max_samples])
    if side == "train":
        return []
    given = given_keys(map(str, config.hydra.overrides.task))
    asked = {key: OmegaConf.select(config, key, default=0) for key in HELD_OUT if key in given}
    problems = (too_few(key, wanted, there) for key, wanted in asked.items())
    return [problem for problem in problems if problem is not None]


def _of_sources(sources: DictConfig) -> Iterator[str]:
    """The same of each source of a mixture, told by its name."""
    for name in sources:
        node = sources[name]
        path = node.get("path")
        if path is None or is_folder_of_pairs(Path(path).expanduser()):
            continue
        told: Any = OmegaConf.to_container(node, resolve=True)
        words = {key: told.get(key) for key in ("revision", "config")}
        columns = columns_of(told.get("columns"))
        table = {"path": path, "split": told.get("split", "train"), **words, "columns": columns}
        try:
            _check_columns(OmegaConf.create(table))
        except UserError as error:
            yield f"source {name}: {error}"


def _check_columns(node: DictConfig) -> None:
    """Columns of a table that is here, by headers and footers."""
    where = (node.path, node.revision, node.config, node.split)
    if hub.local_path(node.path) is None or absent_table(*where) is not None:
        return  # what lacks of it is told by its class
    found = find_table(*where)
    told: Any = OmegaConf.to_container(node.columns, resolve=True)
    columns = Columns(**{key: value for key, value in told.items() if key != "_target_"})
    if (names := column_names(found, told_names(columns))) is None:
        return
    columns, _ = usual_columns(columns, names, node.path)
    columns.check(names, node.path)
    if columns.preferred is not None:
        with_meanings(columns, values_of(found, columns.preferred), node.path)


def _folder_of(config: DictConfig) -> tuple[ModelFiles, Path] | None:
    """The family that a model's class declares, and its folder where that is here and whole."""
    family: ModelFiles | None = class_value(str(config.model.get("_target_")), "FAMILY")
    if family is None:
        return None
    source = str(config.model.pretrained)
    folder = hub.local_path(source)
    if folder is None:
        folder = hub.cached(source, "model", config.model.revision)
    if folder is None or family.missing(folder, _model_keys(config)):
        return None
    return family, folder


def _model_keys(config: DictConfig) -> dict[str, Any]:
    keys: Any = OmegaConf.to_container(config.model, resolve=True)
    return {str(key): value for key, value in keys.items()}
