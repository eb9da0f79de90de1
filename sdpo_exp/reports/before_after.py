"""Base against tuned: scores, table and picture of the same prompts and noises."""

from __future__ import annotations

import csv
import json
import shutil
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from sdpo_exp.evaluation.statistics import estimate, paired_change

Scores = Mapping[str, np.ndarray]
EVALUATION_FILE = "evaluation.json"
PICTURE = "plots/before_after.png"
_MOST = 12  # pairs that are shown
_PIXEL_ART = 64  # pixels of a side, up to which four pairs stand beside each other
_SMALL, _LARGE, _TEXT = 2.75, 6.5, 0.75  # inches: width of a pair, height of what is below it
_GAP = 2  # pixels between the two images of a pair
# Prompts are text: a dollar begins no formula.
_PLAIN: dict[str, Any] = {"fontsize": 8, "parse_math": False}


def write_evaluation(
    folder: Path, description: str, prompts: Sequence[str], base: Scores, tuned: Scores
) -> dict[str, Any]:
    """Write `scores.csv`, one row per model and prompt, and `evaluation.json`, their means.

    Without scores the former has the prompts alone, and the latter is not written.

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
    if base:
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


def write_samples(
    folder: Path, prompts: Sequence[str], base: np.ndarray, tuned: np.ndarray
) -> None:
    """Write the first dozen images one by one, as `base/<index>.png` and `tuned/<index>.png`.

    Beside them `manifest.json`, in the public format, says their prompts: `evaluate` scores such a
    folder.

    Args:
        folder: is emptied first.
        prompts: n prompts, those of `scores.csv` in its order.
        base, tuned: their images (n, H, W, 3) uint8.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for model, images in (("base", base), ("tuned", tuned)):
        (folder / model).mkdir(parents=True)
        rows = []
        for index, (prompt, pixels) in enumerate(zip(prompts[:_MOST], images, strict=False)):
            file = f"{index:04d}.png"
            Image.fromarray(pixels).save(folder / model / file)
            rows.append({"prompt": prompt, "gen_image_path": file})
        (folder / model / "manifest.json").write_text(json.dumps(rows, indent=2) + "\n")


def plot_before_after(
    path: Path,
    prompts: Sequence[str],
    base: np.ndarray,
    tuned: np.ndarray,
    scores: tuple[np.ndarray, np.ndarray] | None = None,
    description: str = "",
) -> None:
    """A picture of the first dozen prompts: base left, tuned right, scores and caption below.

    Args:
        path: of the PNG.
        prompts: n prompts.
        base, tuned: images (n, H, W, 3) uint8.
        scores: of base and tuned, each (n,), to print below the images.
        description: of the images, below the title.
    """
    shown = min(len(prompts), _MOST)
    large = base.shape[1] > _PIXEL_ART
    columns = min(shown, 2 if large else 4)
    rows = -(-shown // columns)
    width = (_LARGE if large else _SMALL) * columns  # inches
    height = width / columns * (base.shape[1] / (2 * base.shape[2]))
    figure = Figure(figsize=(max(width, 5), rows * (height + _TEXT) + 0.4), layout="constrained")
    title = f"base (left) and tuned (right): same prompt, same noise\n{description}".strip()
    figure.suptitle(title, fontsize=10).set_parse_math(False)
    for index, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.axis("off")
        if index >= shown:
            continue
        _show_pair(axis, base[index], tuned[index], large=large)
        text = caption_of(prompts[index], 64 if large else 34)
        if scores is not None:
            text = "   ".join(f"{v[index]:.3g}" for v in scores) + f"\n{text}"
        axis.text(0.5, -0.03, text, transform=axis.transAxes, ha="center", va="top", **_PLAIN)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # Of letters that the font has not; they are shown as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=160 if large else 110)


def caption_of(prompt: str, width: int) -> str:
    """A prompt in at most three lines of `width` characters, its end left out where it is long."""
    lines = textwrap.wrap(prompt, width, max_lines=3, placeholder=" ...")
    return "\n".join(lines)


def _show_pair(axis: Any, base: np.ndarray, tuned: np.ndarray, *, large: bool) -> None:
    gap = np.full((base.shape[0], _GAP * (4 if large else 1), 3), 255, dtype=np.uint8)
    # Small pictures are shown pixel by pixel, large ones smoothly.
    how = "antialiased" if large else "nearest"
    axis.imshow(np.concatenate([base, gap, tuned], axis=1), interpolation=how)
