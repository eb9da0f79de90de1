"""Images of a whole prompt set: batched, on several devices, and gone on with where it stopped."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.build import build
from sdpo_exp.cli.checkpoints.model_choice import ModelChoice, OpenedModel
from sdpo_exp.cli.environment import describe_environment
from sdpo_exp.cli.generate.drawing import (
    batch_size,
    describe_protocol,
    draw_settings,
    drawing_device,
    open_for_drawing,
)
from sdpo_exp.cli.workers import Rank, count_devices, quiet, run_on_devices, without_hydra
from sdpo_exp.errors import UserError
from sdpo_exp.generation.drawing import draw_in_batches
from sdpo_exp.generation.folder import ImageFolder
from sdpo_exp.generation.noise import Draw
from sdpo_exp.protocols import PromptSet
from sdpo_exp.terminal.progress import Progress

_log = logging.getLogger(__name__)


def generate_set(config: DictConfig, folder: Path) -> None:
    """Draw what is missing of `config.prompts` in `folder`, and write the manifest.

    Raises:
        UserError: model, prompts or folder cannot be used, or the user stopped it.
    """
    device = drawing_device(config)
    count = count_devices(device, config.devices)
    try:
        run_on_devices(draw_share, device, count, without_hydra(config), str(folder))
    except KeyboardInterrupt:
        raise UserError(
            f"interrupted; what is drawn stays. folder={os.path.relpath(folder)} in the same "
            "command goes on"
        ) from None


def draw_share(rank: Rank, plain: dict[str, Any], folder: str) -> None:
    """What one process does: every `world`-th missing image, from its `rank` on."""
    config = OmegaConf.create(plain)
    quiet(config.torch_threads)
    prompt_set: PromptSet = build(config.prompts, "prompts")
    model, store = open_for_drawing(config, rank.device), ImageFolder(Path(folder))
    if rank.rank == 0:
        for remark in store.begin(_describe(config, model, prompt_set)):
            _log.info("note: %s", remark)
    rank.barrier()
    draws = list(_draws(config, prompt_set))
    missing = store.missing(draws)
    rank.barrier()  # all have looked before anyone draws
    if rank.rank == 0:
        _log.info("%d of %d images to draw", len(missing), len(draws))
    todo, size = missing[rank.rank :: rank.world], batch_size(config, model)
    drawn = draw_in_batches(model.pipeline, todo, draw_settings(config), size)
    with Progress("images", len(todo), "image", shown=rank.rank == 0) as progress:
        for part in drawn:
            for draw, picture in part:
                store.save(draw, picture)
            progress.advance(len(part))
    rank.barrier()
    if rank.rank == 0:
        written = store.write_manifest(prompt_set.name, prompt_set.prompts())
        _log.info("images: %s (%d)", os.path.relpath(folder), written)


def _draws(config: DictConfig, prompt_set: PromptSet) -> Iterator[Draw]:
    """Every image, seed by seed."""
    for seed in range(config.seed, config.seed + (config.n or 1)):
        for prompt in prompt_set.prompts():
            yield Draw(prompt.text, prompt.index, seed)


def _describe(config: DictConfig, model: OpenedModel, prompt_set: PromptSet) -> dict[str, Any]:
    """The content of `generation.json`."""
    identity = dict(model.identity)
    dtype = identity.pop("dtype")
    return {
        "name": config.get("label") or ModelChoice.of(config).name,
        "model": identity,
        "prompts": {
            "name": prompt_set.name,
            "sha256": prompt_set.fingerprint(),
            "n": len(prompt_set.prompts()),
        },
        "protocol": describe_protocol(model, draw_settings(config)) | {"dtype": dtype},
        "batch": batch_size(config, model),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **describe_environment(),
    }
