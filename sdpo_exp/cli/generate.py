"""`python -m sdpo_exp.generate`: images from a prompt, by a tuned model beside its base."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

import sdpo_exp
from sdpo_exp.cli.command import run_command
from sdpo_exp.cli.pipelines import find_model, load_base, load_pipeline
from sdpo_exp.config.check import check_keys
from sdpo_exp.config.schema import GENERATE_KEYS
from sdpo_exp.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

EXAMPLE = "a large red circle on a blue background at the top left"
_TEXT = re.compile(r"^(?P<key>\+{0,2}(?:negative_)?prompt=)(?P<value>.*)$", re.DOTALL)
_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `python -m sdpo_exp.generate`."""
    quote_prompts(sys.argv)
    run_command("generate", generate, check_generate, check_prompt)


def quote_prompts(argv: list[str]) -> None:
    """Quote prompts for Hydra in place, so that commas, colons and the like stand for themselves.

    What Hydra reads as one text or null already stays, and so does all of a sweep's command line,
    where a comma separates two prompts.
    """
    if get_args_parser().parse_args(argv[1:]).multirun:
        return
    for i, argument in enumerate(argv):
        match = _TEXT.match(argument)
        if match and not _is_one_text(argument):
            argv[i] = match["key"] + QuotedString(match["value"], Quote.single).with_quotes()


def _is_one_text(argument: str) -> bool:
    try:
        value = OverridesParser.create().parse_override(argument).value()
        return isinstance(value, str | None)  # not a number, a list or a sweep
    except HydraException:
        return False


def check_generate(config: DictConfig) -> list[str]:
    """Unknown keys, types, ranges, a folder that is already there, a checkpoint that is not."""
    problems = check_keys(config, GENERATE_KEYS)
    if problems:
        return problems
    if config.negative_prompt is not None and config.guidance == 1.0:
        problems.append("negative_prompt: has no effect at guidance=1; raise guidance, or leave it")
    if Path(config.folder).exists():
        problems.append(f"folder={config.folder} exists; give another folder")
    try:
        if config.checkpoint is not None:
            find_model(config.checkpoint)
    except UserError as error:
        problems.append(f"checkpoint={error}")
    return problems


def check_prompt(config: DictConfig) -> list[str]:
    """A prompt is needed to run, but not to look at the configuration."""
    if (config.prompt or "").strip():
        return []
    return [f"prompt: what should the images show? For example prompt='{EXAMPLE}'"]


def generate(config: DictConfig) -> None:
    """Generate, judge where the world can, and write; see `conf/generate.yaml`.

    Raises:
        UserError: the model cannot be loaded, or takes no prompt.
    """
    hydra = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN  # its jobs may share the time in the folder's name
    folder = Path(config.folder) / str(hydra.job.num) if sweep else Path(config.folder)
    _quiet(config.torch_threads)
    pipelines = _load(config.checkpoint)
    _draw_and_write(folder, pipelines, config)


def _quiet(threads: int) -> None:
    import diffusers
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()


def _load(checkpoint: str | None) -> dict[str, DiffusionPipeline]:
    """What draws each row: `base` and `tuned` for a run's folder, else `model` alone."""
    pipeline = load_pipeline(checkpoint)
    run = find_model(checkpoint).run if checkpoint is not None else None
    if run is None:
        return {"model": pipeline}
    try:
        return {"base": load_base(run), "tuned": pipeline}
    except UserError as error:
        _log.info("note: no row of the base. %s", error)
        return {"tuned": pipeline}


def _draw_and_write(
    folder: Path, pipelines: dict[str, DiffusionPipeline], config: DictConfig
) -> None:
    from sdpo_exp.cli.images import judge, make_grid, remarks, store

    *_, pipeline = pipelines.values()
    for remark in remarks(pipeline, config.prompt, config.negative_prompt):
        _log.info("note: %s", remark)
    rows = {row: _draw(pipeline, config) for row, pipeline in pipelines.items()}
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"folder={folder} exists; give another folder") from None
    entries = {
        row: store(folder, row, images, judge(pipelines[row], config.prompt, images))
        for row, images in rows.items()
    }
    make_grid(rows).save(folder / "grid.png")
    manifest = _describe(config, entries)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    _say(folder, entries)


def _draw(pipeline: DiffusionPipeline, config: DictConfig) -> list[Image]:
    from sdpo_exp.cli.images import draw

    settings = {
        "negative_prompt": config.negative_prompt,
        "guidance_scale": config.guidance,
        "num_inference_steps": config.steps,
    }
    pipeline.set_progress_bar_config(disable=True)
    return draw(pipeline, config.prompt, config.n, config.seed, **settings)


def _describe(config: DictConfig, entries: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    keys = ("prompt", "negative_prompt", "seed", "guidance", "steps", "checkpoint")
    versions = {name: metadata.version(name) for name in ("diffusers", "torch")}
    return {
        **{key: config[key] for key in keys},
        "grid": "grid.png",
        "images": entries,
        "versions": {"sdpo_exp": sdpo_exp.__version__, **versions},
    }


def _say(folder: Path, entries: dict[str, list[dict[str, Any]]]) -> None:
    """The table of rewards, where there are any, and where everything is."""
    rewards = {row: [e["reward"] for e in of] for row, of in entries.items() if "reward" in of[0]}
    if rewards:
        lines = [("reward", *rewards)]
        values = list(zip(*rewards.values(), strict=True))
        means = tuple(sum(column) / len(column) for column in rewards.values())
        names = [f"{i:03d}.png" for i in range(len(values))]
        for name, numbers in zip([*names, "mean"], [*values, means], strict=True):
            lines.append((name, *(f"{number:.4f}" for number in numbers)))
        _log.info("\n".join(f"{name:10}" + "".join(f"{c:>9}" for c in of) for name, *of in lines))
    _log.info("images: %s", os.path.relpath(folder))
