"""Samples side by side: the same prompts and noises, base and every cell, as data URLs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sdpo_exp.reports.html.cells import Cell
from sdpo_exp.reports.html.runs import Run

_SIDE = 256  # pixels; larger pictures are made smaller
_PIXEL_ART = 64  # up to this side pictures are magnified without smoothing
_MOST = 240  # pictures of the whole page
_FEWEST_ROWS = 3
_STRIPS = 12  # of older runs, which have no single samples


@dataclass(frozen=True)
class Picture:
    """An image of one model for one prompt, and what the main score says of it."""

    url: str
    pixel_art: bool
    score: float | None


@dataclass(frozen=True)
class Row:
    """A prompt with its images: the base's first, None where a model has none."""

    prompt: str
    pictures: tuple[Picture | None, ...]


@dataclass(frozen=True)
class Gallery:
    """Cells that drew the same prompts: `columns` are their names, the base's first."""

    columns: tuple[str, ...]
    seeds: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Strip:
    """The picture of base and tuned that a run without single samples left."""

    cell: str
    seed: str
    url: str


def galleries_of(cells: Sequence[Cell], metric: str | None, most_rows: int) -> list[Gallery]:
    """One for each set of prompts and model; a cell is shown by its first seed with samples."""
    shown = [(cell, run) for cell in cells if (run := _shown(cell)) is not None]
    groups: dict[tuple[object, ...], list[tuple[Cell, Run]]] = {}
    for cell, run in shown:
        groups.setdefault((cell.model, *_prompts(run)), []).append((cell, run))
    columns = len(shown) + len(groups)
    rows = min(most_rows, max(_FEWEST_ROWS, _MOST // columns)) if columns else 0
    return [_gallery(group, metric, rows) for group in groups.values() if rows]


def _shown(cell: Cell) -> Run | None:
    return next((run for run in cell.counted if _samples(run, "tuned")), None)


def _samples(run: Run, model: str) -> dict[int, Path]:
    files = (run.folder / "samples" / model).glob("*.png")
    return {int(file.stem): file for file in sorted(files) if file.stem.isdigit()}


def _prompts(run: Run) -> tuple[str, ...]:
    return tuple(run.scores.prompts.get(index, "") for index in _samples(run, "tuned"))


def _gallery(group: Sequence[tuple[Cell, Run]], metric: str | None, rows: int) -> Gallery:
    first = group[0][1]
    indexes = list(_samples(first, "tuned"))[:rows]
    columns = [(first, "base"), *((run, "tuned") for _, run in group)]
    drawn = [_column(run, model, indexes, metric) for run, model in columns]
    return Gallery(
        ("base", *(cell.label for cell, _ in group)),
        ("", *(str(run.seed) for _, run in group)),
        tuple(
            Row(first.scores.prompts.get(index, f"image {index}"), pictures)
            for index, pictures in zip(indexes, zip(*drawn, strict=True), strict=True)
        ),
    )


def _column(
    run: Run, model: str, indexes: Sequence[int], metric: str | None
) -> list[Picture | None]:
    files = _samples(run, model)
    table = (run.scores.base if model == "base" else run.scores.tuned).get(metric or "", {})
    return [_picture(files.get(index), table.get(index)) for index in indexes]


def _picture(file: Path | None, score: float | None) -> Picture | None:
    found = embedded(file, _SIDE) if file is not None else None
    return None if found is None else Picture(*found, score)


def embedded(file: Path, side: int) -> tuple[str, bool] | None:
    """Data URL of a picture of at most `side` pixels, and whether it is small enough for pixels.

    None where the file is no picture. Small ones stay exact PNG, others become JPEG.
    """
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small = max(picture.size) <= _PIXEL_ART
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    if small:
        picture.save(stream, "PNG", optimize=True)
    else:
        picture.save(stream, "JPEG", quality=82)
    kind, content = "png" if small else "jpeg", base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{kind};base64,{content}", small


def strips_of(cells: Sequence[Cell]) -> list[Strip]:
    """Of cells without samples of their own, at most a dozen."""
    found: list[Strip] = []
    for cell in cells:
        if _shown(cell) is None and len(found) < _STRIPS:
            found += _first_strip(cell)
    return found


def _first_strip(cell: Cell) -> list[Strip]:
    for run in cell.counted:
        file = run.folder / "plots" / "before_after.png"
        if file.is_file() and (picture := embedded(file, 1200)) is not None:
            return [Strip(cell.label, str(run.seed), picture[0])]
    return []
