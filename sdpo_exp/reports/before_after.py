"""Base against tuned: scores, table and picture of the same prompts and noises."""

from __future__ import annotations

import csv
import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from sdpo_exp.statistics import estimate, paired_change

mpl.use("Agg")

import matplotlib.pyplot as plt
from PIL import Image

Scores = Mapping[str, np.ndarray]
EVALUATION_FILE = "evaluation.json"
_COLUMNS, _ROWS = 4, 3
_GAP = 2  # pixels between the two images of a pair


def write_evaluation(
    folder: Path, description: str, prompts: Sequence[str], base: Scores, tuned: Scores
) -> dict[str, Any]:
    """Write `scores.csv`, one row per model and prompt, and `evaluation.json`, their means.

    Args:
        folder: of the run.
        description: what the means are over.
        prompts: n prompts.
        base, tuned: scores by name, each (n,), row by row of the same prompt and noise.

    Returns:
        The content of `evaluation.json`.
    """
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["model", "index", "prompt", *base])
        for model, scores in (("base", base), ("tuned", tuned)):
            for index, prompt in enumerate(prompts):
                row = [f"{scores[name][index]:.6g}" for name in base]
                writer.writerow([model, index, prompt, *row])
    content = {
        "description": description,
        "n": len(prompts),
        "scores": {name: _compare(base[name], tuned[name]) for name in base},
    }
    (folder / EVALUATION_FILE).write_text(json.dumps(content, indent=2) + "\n")
    return content


def _compare(base: np.ndarray, tuned: np.ndarray) -> dict[str, Any]:
    estimates = {
        "base": estimate(base),
        "tuned": estimate(tuned),
        "change": paired_change(base, tuned),
    }
    # JSON knows no nan, which a single prompt gives for its errors.
    return {
        name: {key: value if np.isfinite(value) else None for key, value in e._asdict().items()}
        for name, e in estimates.items()
    }


def write_samples(folder: Path, base: np.ndarray, tuned: np.ndarray) -> None:
    """Write the first dozen images one by one, as `base/<index>.png` and `tuned/<index>.png`.

    Args:
        folder: is emptied first.
        base, tuned: images (n, H, W, 3) uint8 of the prompts of `scores.csv`, in its order.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for model, images in (("base", base), ("tuned", tuned)):
        (folder / model).mkdir(parents=True)
        for index, pixels in enumerate(images[: _COLUMNS * _ROWS]):
            Image.fromarray(pixels).save(folder / model / f"{index:04d}.png")


def plot_before_after(
    path: Path,
    prompts: Sequence[str],
    base: np.ndarray,
    tuned: np.ndarray,
    scores: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """A picture of the first prompts: base on the left of each pair, tuned on the right.

    Args:
        path: of the PNG.
        prompts: n prompts.
        base, tuned: images (n, H, W, 3) uint8.
        scores: of base and tuned, each (n,), to print below the images.
    """
    figure, axes = plt.subplots(_ROWS, _COLUMNS, figsize=(11, 6.4), constrained_layout=True)
    figure.suptitle("base (left) and tuned (right): same prompt, same noise", fontsize=11)
    for index, axis in enumerate(axes.flat):
        axis.axis("off")
        if index >= len(prompts):
            continue
        gap = np.full((base.shape[1], _GAP, 3), 255, dtype=np.uint8)
        axis.imshow(np.concatenate([base[index], gap, tuned[index]], axis=1))
        axis.set_title("\n".join(textwrap.wrap(prompts[index], 34)), fontsize=8)
        if scores is not None:
            for where, values in zip((0.25, 0.75), scores, strict=True):
                text = f"{values[index]:.2f}"
                axis.text(
                    where, -0.04, text, transform=axis.transAxes, ha="center", va="top", fontsize=8
                )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
