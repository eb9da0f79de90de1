"""`python -m sdpo_exp.export`: a run's checkpoint as files that other programs load."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.command import new_job_folder, run_command
from sdpo_exp.cli.export.source import (
    Source,
    build_policy,
    find_source,
    policy_state,
    read_checkpoint,
    read_run,
)
from sdpo_exp.config.check import check_keys
from sdpo_exp.config.class_values import class_value
from sdpo_exp.config.schema import EXPORT_KEYS, GROUPS
from sdpo_exp.errors import UserError, first_line

_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `python -m sdpo_exp.export`."""
    run_command("export", export, check_export, check_weights, runs=("checkpoint",))


def check_export(config: DictConfig) -> list[str]:
    """Unknown keys and values, a folder that is already there, a checkpoint that is not."""
    problems = check_keys(config, EXPORT_KEYS)
    if problems:
        return problems
    if Path(config.folder).exists():
        problems.append(f"folder={config.folder} exists; give another folder")
    if config.checkpoint is not None:
        try:
            read_run(_source(config).run)
        except UserError as error:
            problems.append(str(error))
    return problems


def check_weights(config: DictConfig) -> list[str]:
    """What only the checkpoint tells, and a base that cannot be had; nothing is built."""
    if config.checkpoint is None:
        return ["checkpoint: of which run? For example checkpoint=outputs/run/CELL/TIME"]
    from sdpo_exp.config.sources import absent_sources

    source = _source(config)
    model = read_run(source.run).model
    try:
        content = read_checkpoint(source.checkpoint)
        policy_state(content, config.weights, source.checkpoint)
        if config.format == "lora":
            _check_adapters(content, model, source)
        if config.format == "unet_pth":
            _check_unet(model)
    except UserError as error:
        return [str(error)]
    alone: dict[str, Any] = {group: {} for group in GROUPS}
    return absent_sources(OmegaConf.create({**alone, "model": model}))


def _check_adapters(content: Any, model: DictConfig, source: Source) -> None:
    from hydra.utils import get_class

    if not content.get("adapters"):
        raise UserError(
            f"format=lora: the run {source.run} tuned all weights, so it has no adapters. Use "
            "format=diffusers or format=unet_pth."
        )
    family = get_class(model._target_)
    if not hasattr(family, "save_lora"):
        raise UserError(
            f"format=lora: the pipeline of {family.__name__} loads no adapters. Use "
            "format=diffusers, which merges them."
        )


def _check_unet(model: DictConfig) -> None:
    family = class_value(str(model._target_), "FAMILY")
    if family is not None and family.denoiser != "UNet":
        raise UserError(
            f"format=unet_pth: the model has a {family.denoiser} and no UNet. Use format=diffusers."
        )


def export(config: DictConfig) -> None:
    """Build the policy, write it and its model card; see `conf/export.yaml`.

    Raises:
        UserError: the base is gone, the weights do not fit, or the disk is full.
    """
    import torch
    from safetensors import SafetensorError

    from sdpo_exp.cli.export.files import WRITERS
    from sdpo_exp.reports.model_card import Exported, write_card

    torch.set_num_threads(config.torch_threads)
    _quiet()
    source, folder = _source(config), new_job_folder(config)
    content = read_checkpoint(source.checkpoint)
    backbone = build_policy(source, content, config.weights)
    exported = Exported(config.weights, int(content["global_step"]), config.dtype)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        WRITERS[config.format](backbone, partial, getattr(torch, config.dtype))
        write_card(source.run, partial, exported)
        partial.rename(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise UserError(f"folder={folder}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _say(folder, source, exported)


def _source(config: DictConfig) -> Source:
    return find_source(Path(config.checkpoint), config.weights)


def _quiet() -> None:
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()


def _say(folder: Path, source: Source, exported: Any) -> None:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    _log.info("%s, step %d (%s)", source.checkpoint, exported.step, exported.weights)
    _log.info("exported %.1f MB of %s to %s", size / 1e6, exported.dtype, os.path.relpath(folder))
