"""Images from a pipeline: repeatable draws, the embedded world's verdict, and a grid to look at."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from sdpo_exp.errors import UserError
from sdpo_exp.models.tiny_pipeline import PixelShufflePipeline
from sdpo_exp.testbed.attributes import ATTRIBUTES, Scene
from sdpo_exp.testbed.captions import caption, parse_caption
from sdpo_exp.testbed.checker import CheckerResult, check
from sdpo_exp.testbed.render import SIDE

_AT_ONCE = 8
_COLUMNS = 8
_GAP = 4
# Smaller images are shown at least this large in a grid, in whole multiples of their pixels.
_VISIBLE_SIDE = 128


def draw(
    pipeline: DiffusionPipeline, prompt: str, n: int, seed: int, **settings: Any
) -> list[Image.Image]:
    """n images of one prompt; image i comes from noise that depends on (seed, i) only.

    Args:
        settings: what else the pipeline is called with; None leaves a value to the pipeline.

    Raises:
        UserError: the pipeline does not take one of these, for example a prompt.
    """
    given = {"prompt": prompt, **{k: v for k, v in settings.items() if v is not None}}
    needed = given.keys() | {"num_images_per_prompt", "generator"}
    unknown = sorted(needed - inspect.signature(pipeline.__call__).parameters.keys())
    if unknown:
        raise UserError(f"{type(pipeline).__name__} takes no {', '.join(unknown)}")
    images: list[Image.Image] = []
    for start in range(0, n, _AT_ONCE):
        noises = [_generator(seed, i) for i in range(start, min(start + _AT_ONCE, n))]
        images += pipeline(**given, num_images_per_prompt=len(noises), generator=noises).images
    return images


def _generator(seed: int, index: int) -> torch.Generator:
    # torch's CPU generator keeps 32 bits of a seed; these are well mixed ones.
    (bits,) = np.random.SeedSequence([seed, index]).generate_state(1)
    return torch.Generator().manual_seed(int(bits))


def judge(
    pipeline: DiffusionPipeline, prompt: str, images: Sequence[Image.Image]
) -> CheckerResult | None:
    """The exact checker's verdicts; None unless a tiny model drew a caption of the world."""
    fits = all(image.size == (SIDE, SIDE) for image in images)
    if not isinstance(pipeline, PixelShufflePipeline) or not fits:
        return None
    try:
        scene = parse_caption(prompt)
    except UserError:
        return None
    return check(np.stack([np.asarray(image) for image in images]), [scene] * len(images))


def remarks(pipeline: DiffusionPipeline, prompt: str, negative: str | None) -> Iterator[str]:
    """What a tiny model cannot make of the prompts: words it does not know, words too many."""
    if not isinstance(pipeline, PixelShufflePipeline):
        return
    tokenizer: Any = pipeline.tokenizer
    for text in filter(None, (prompt, negative)):
        words = re.findall(r"\w+|[^\w\s]+", text)
        unknown = [w for w in dict.fromkeys(words) if tokenizer.unk_token_id in _ids(tokenizer, w)]
        if unknown:
            listing = ", ".join(map(repr, unknown))
            yield f"outside this model's vocabulary, so unknown to it: {listing}"
        if len(_ids(tokenizer, text)) > (room := tokenizer.model_max_length - 2):
            yield f"only the first {room} words are read: {text!r}"
    try:
        parse_caption(prompt)
    except UserError as error:
        example = caption(Scene("circle", "large", "red", "blue", "top left"))
        reason = error.__cause__ or f"not a caption of the embedded world, like {example!r}"
        yield f"no rewards: {reason}"


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return ids


def store(
    folder: Path, row: str, images: Sequence[Image.Image], verdict: CheckerResult | None
) -> list[dict[str, Any]]:
    """Write a row's images below `folder`; what the manifest says about each."""
    below = f"{row}/" if row == "base" else ""
    (folder / below).mkdir(exist_ok=True)
    entries: list[dict[str, Any]] = []
    for i, image in enumerate(images):
        entry: dict[str, Any] = {"file": f"{below}{i:03d}.png"}
        image.save(folder / entry["file"])
        if verdict is not None:
            entry["correct"] = dict(zip(ATTRIBUTES, verdict.correct[i].tolist(), strict=True))
            entry["cleanliness"] = round(float(verdict.cleanliness[i]), 4)
            entry["reward"] = round(float(verdict.reward[i]), 4)
        entries.append(entry)
    return entries


def make_grid(rows: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Rows of equally many images of one size, one below the other, small ones magnified.

    A single row has no label. Rows of more than eight images go on below, all of them together.
    """
    width, height = next(iter(rows.values()))[0].size
    scale = max(1, _VISIBLE_SIDE // min(width, height))
    tile = (width * scale, height * scale)
    lines = list(_lines(rows))
    margin = _label_width(rows) if len(rows) > 1 else 0
    columns = max(len(images) for _, images in lines)
    size = (margin + columns * (tile[0] + _GAP) + _GAP, len(lines) * (tile[1] + _GAP) + _GAP)
    grid = Image.new("RGB", size, "white")
    for line, (label, images) in enumerate(lines):
        top = _GAP + line * (tile[1] + _GAP)
        if margin:
            place = (_GAP, top + tile[1] // 2)
            ImageDraw.Draw(grid).text(place, label, "black", ImageFont.load_default())
        for column, image in enumerate(images):
            left = margin + _GAP + column * (tile[0] + _GAP)
            grid.paste(image.resize(tile, Image.Resampling.NEAREST), (left, top))
    return grid


def _lines(
    rows: Mapping[str, Sequence[Image.Image]],
) -> Iterator[tuple[str, Sequence[Image.Image]]]:
    longest = max(len(images) for images in rows.values())
    for start in range(0, longest, _COLUMNS):
        for label, images in rows.items():
            yield label, images[start : start + _COLUMNS]


def _label_width(labels: Mapping[str, Any]) -> int:
    font = ImageFont.load_default()
    return _GAP + int(max(font.getlength(label) for label in labels)) + _GAP
