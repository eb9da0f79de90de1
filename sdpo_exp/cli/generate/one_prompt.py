"""Images of one prompt: by a tuned model beside its base, judged where the world can, in a grid."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sdpo_exp.cli.checkpoints.model_choice import ModelChoice
from sdpo_exp.cli.environment import describe_environment
from sdpo_exp.cli.generate.drawing import (
    batch_size,
    describe_protocol,
    draw_settings,
    drawing_device,
    open_for_drawing,
)
from sdpo_exp.cli.generate.images import SET_OF_ONE, judge, remarks, store
from sdpo_exp.cli.workers import quiet
from sdpo_exp.data.prompt_hashes import texts_hash
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.generation.drawing import draw_in_batches
from sdpo_exp.generation.folder import SETTINGS_FILE
from sdpo_exp.generation.grid import make_grid
from sdpo_exp.generation.noise import Draw
from sdpo_exp.whole_files import write_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdpo_exp.cli.checkpoints.model_choice import OpenedModel

_IMAGES = 4
_log = logging.getLogger(__name__)


def generate_one(config: DictConfig, folder: Path) -> None:
    """Draw `config.n` images of `config.prompt`, of seeds seed, seed + 1, ...

    Raises:
        UserError: the model cannot be loaded, or takes no prompt.
    """
    quiet(config.torch_threads)
    models = _open_rows(config, drawing_device(config))
    *_, model = models.values()
    for remark in remarks(model.pipeline, config.prompt, config.negative_prompt):
        _log.info("note: %s", remark)
    _make(folder)  # before anything is drawn that could not be kept
    rows = {row: _draw(model, config) for row, model in models.items()}
    entries: dict[str, list[dict[str, Any]]] = {}
    for row, images in rows.items():
        verdict = judge(models[row].pipeline, config.prompt, images)
        below = folder / row if row == "base" else folder
        entries[row] = store(below, _draws(config), images, verdict)
        write_json(below / SETTINGS_FILE, _describe(config, row, models))
    make_grid(rows).save(folder / "grid.png")
    _say(folder, entries)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"folder={folder} exists; give another folder") from None
    except OSError as error:
        raise UserError(f"folder={folder}: cannot be made ({first_line(error)})") from None


def _open_rows(config: DictConfig, device: str) -> dict[str, OpenedModel]:
    """What draws each row: `base` and `tuned` for a run's folder, else `model` alone."""
    model = open_for_drawing(config, device)
    if ModelChoice.of(config).run is None:
        return {"model": model}
    try:
        return {"base": open_for_drawing(config, device, base_of_run=True), "tuned": model}
    except UserError as error:
        _log.info("note: no row of the base. %s", error)
        return {"tuned": model}


def _draw(model: OpenedModel, config: DictConfig) -> list[Image]:
    """`config.n` images; image i follows from the prompt and `config.seed + i` alone."""
    size = batch_size(config, model)
    drawn = draw_in_batches(model.pipeline, _draws(config), draw_settings(config), size)
    return [picture for part in drawn for _, picture in part]


def _draws(config: DictConfig) -> list[Draw]:
    return [Draw(config.prompt, 0, config.seed + i) for i in range(config.n or _IMAGES)]


def _describe(config: DictConfig, row: str, models: dict[str, OpenedModel]) -> dict[str, Any]:
    """The content of a row's `generation.json`, as of a set; and what there is of one prompt."""
    identity = dict(models[row].identity)
    dtype = identity.pop("dtype")
    text = str(config.prompt)
    return {
        "name": "base" if row == "base" else ModelChoice.of(config).name,
        "model": identity,
        "prompts": {"name": SET_OF_ONE, "sha256": texts_hash([text]), "n": 1},
        "protocol": describe_protocol(models[row], draw_settings(config)) | {"dtype": dtype},
        "prompt": text,
        "seed": config.seed,
        "checkpoint": config.checkpoint,
        **describe_environment(),
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
