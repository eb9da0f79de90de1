"""What names and headers of files that are here already tell, before torch is imported.

A mistake in several places is told in one go, and within two seconds. What cannot be known from
there (weights, images, the hub) is told later, by the classes themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdpo_exp import hub
from sdpo_exp.cli.train.held_out import HELD_OUT
from sdpo_exp.config.command_line import given_keys
from sdpo_exp.data.columns import Columns
from sdpo_exp.data.files import absent_table, find_table
from sdpo_exp.data.folder_files import read_folder
from sdpo_exp.data.holdout import too_few
from sdpo_exp.data.opening import with_meanings
from sdpo_exp.data.table_types import column_names, values_of
from sdpo_exp.data.usual_columns import told_names, usual_columns
from sdpo_exp.errors import UserError
from sdpo_exp.models.checkpoint_folder import missing_parts, read_json
from sdpo_exp.models.families import (
    SDXL,
    STABLE_DIFFUSION,
    Family,
    block_size,
    resolution_misfit,
    unet_mismatch,
)
from sdpo_exp.models.target_names import ATTENTION, check_targets

_FAMILIES: Mapping[str, Family] = {
    "sdpo_exp.models.stable_diffusion.StableDiffusion": STABLE_DIFFUSION,
    "sdpo_exp.models.sdxl.StableDiffusionXL": SDXL,
}
_FOLDER = "sdpo_exp.data.folder.FolderPairs"
_TABLES = ("sdpo_exp.data.table.TablePairs", "sdpo_exp.data.stream.StreamPairs")
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
    """Family and resolution, by the configurations of a model's parts."""
    found = _folder_of(config)
    if found is None:
        return []
    family, folder = found
    width = sum(
        read_json(folder / name / "config.json")["hidden_size"] for name in family.text_encoders
    )
    own = Path(config.model.vae).expanduser() if config.model.vae else folder
    vae = next((p for p in (own / "vae", own, folder / "vae") if _has_config(p)), None)
    if vae is None:
        return []
    latents = read_json(vae / "config.json")
    unet = read_json(folder / "unet" / "config.json")
    mismatch = unet_mismatch(unet, latents.get("latent_channels", 4), width, family)
    misfit = resolution_misfit(config.resolution, block_size(latents))
    return [problem for problem in (mismatch, misfit) if problem is not None]


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _targets(config: DictConfig) -> list[str]:
    """LoRA's targets, by the names in the header of the UNet's weights."""
    found = _folder_of(config)
    if found is None or config.tuning.get("_target_") != _LORA:
        return []
    names = list(_modules(found[1] / "unet"))
    if not names:
        return []
    modules = {name.rpartition(".")[0] for name in names}
    above = {".".join(m.split(".")[:i]) for m in modules for i in range(1, m.count(".") + 1)}
    targets = OmegaConf.to_container(config.tuning).get("targets")  # type: ignore[union-attr]
    check_targets(targets or ATTENTION, modules | above, sorted(modules), "its UNet")
    return []


def _side(config: DictConfig, side: str) -> list[str]:
    """A folder of pairs or the columns of a table, and the held-out pairs that are asked for."""
    node = config.data[side]
    if node.get("_target_") in _TABLES:
        _check_columns(node)
    if node.get("_target_") != _FOLDER:
        return []
    there = len(read_folder(node.path, node.holdout, node.part)[: node.max_samples])
    if side == "train":
        return []
    given = given_keys(map(str, config.hydra.overrides.task))
    asked = {key: OmegaConf.select(config, key, default=0) for key in HELD_OUT if key in given}
    problems = (too_few(key, wanted, there) for key, wanted in asked.items())
    return [problem for problem in problems if problem is not None]


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


def _folder_of(config: DictConfig) -> tuple[Family, Path] | None:
    """The family of a latent model, and its folder where that is here and complete."""
    family = _FAMILIES.get(str(config.model.get("_target_")))
    if family is None:
        return None
    source = str(config.model.pretrained)
    folder = hub.local_path(source)
    if folder is None:
        folder = hub.cached(source, "model", config.model.revision)
    whole = [part for part in family.parts if config.model.vae is None or part != "vae"]
    if folder is None or missing_parts(folder, whole, config.model.variant):
        return None
    return family, folder


def _modules(unet: Path) -> Iterator[str]:
    """Names of the matrices and kernels in the headers of safetensors files."""
    for file in sorted(unet.glob("*.safetensors")):
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(size))
        yield from (
            name
            for name, entry in header.items()
            if name.endswith(".weight") and len(entry["shape"]) > 1
        )
