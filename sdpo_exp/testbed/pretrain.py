"""Makes base models by their recipes; those that ship with the package are `unfinished`.

An `unfinished` base takes minutes on one CPU core, a `lazy` one about an hour; a
training that was ended goes on where it last stored itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.errors import UserError
from sdpo_exp.models.pixel_backbone import PixelBackbone
from sdpo_exp.testbed.attributes import split_scenes
from sdpo_exp.testbed.base_model import train
from sdpo_exp.testbed.recipes import RECIPES, BaseName, Model, Recipe
from sdpo_exp.testbed.sampling import evaluate

RECIPE_FILE = "recipe.json"
_STATE_FILE = "state.pt"


def pretrain(
    folder: Path,
    steps: PositiveInt | None = None,
    seed: NonNegativeInt = 0,
    threads: PositiveInt = 1,
    log: Callable[[str], None] = print,
    model: Model = "tiny",
    base: BaseName = "unfinished",
) -> dict[str, Any]:
    """Train, store as fp16, measure what was stored, and only then move it to `folder`.

    Without `steps` as many as the recipe has. Sets torch's thread count and
    flush-denormal mode for the process. `<folder>.partial` is gone on with if it is there.

    Returns:
        The content of `recipe.json`: seed, steps, versions, checker results, file hashes.

    Raises:
        UserError: `folder` exists already, or the partial one is of another training.
    """
    if folder.exists():
        raise UserError(f"{folder} exists; remove it or choose another folder")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    started = time.perf_counter()
    recipe = RECIPES[base][model]
    recipe = recipe if steps is None else recipe._replace(steps=steps)
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    state = partial / _STATE_FILE
    trained = train(recipe, seed, log, state)
    save_half(trained, partial)
    described = _describe(type(trained)(str(partial)), partial, recipe, seed, log)
    described = {"base": base, **described}
    (partial / RECIPE_FILE).write_text(json.dumps(described, indent=2) + "\n")
    state.unlink(missing_ok=True)
    partial.rename(folder)
    log(f"{folder}: {time.perf_counter() - started:.0f} s")
    return described


def save_half(backbone: PixelBackbone, folder: Path) -> None:
    """Write the four parts as fp16, readable by everyone; `backbone` itself is converted too."""
    backbone.save_half(folder)
    for file in folder.glob("*/*"):
        file.chmod(0o644)  # safetensors writes 0600, which an installed wheel would keep


def weight_hashes(folder: Path) -> dict[str, str]:
    """sha256 of each weight file below `folder`, by its relative path."""
    files = sorted(folder.glob("*/*.safetensors"))
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _describe(
    stored: PixelBackbone,
    folder: Path,
    recipe: Recipe,
    seed: int,
    log: Callable[[str], None],
) -> dict[str, Any]:
    results = []
    for guidance in (1.0, 2.0):
        result = evaluate(stored, "validation", len(split_scenes("validation")), guidance)
        log(
            f"guidance {guidance}: accuracy {result.accuracy:.3f}, exact {result.exact:.3f}, "
            f"cleanliness {result.cleanliness:.3f}"
        )
        results.append(result._asdict())
    return _as_json(
        {
            "seed": seed,
            "steps": recipe.steps,
            "torch": torch.__version__,
            "hyperparameters": dataclasses.asdict(recipe.hyper),
            "validation": results,
            "sha256": weight_hashes(folder),
        }
    )


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """What `values` reads back as from a file, numbers rounded to 4 digits."""
    text = json.dumps(values)
    rounded: dict[str, Any] = json.loads(text, parse_float=lambda number: round(float(number), 4))
    return rounded
