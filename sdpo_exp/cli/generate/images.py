"""Images of one prompt: the embedded world's verdict on them, and their files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline
from PIL import Image

from sdpo_exp.errors import UserError
from sdpo_exp.evaluation.manifests import MANIFEST_FILE
from sdpo_exp.evaluation.pairing import ImageKey
from sdpo_exp.generation.folder import manifest_entry
from sdpo_exp.generation.noise import Draw
from sdpo_exp.models.tiny_pipeline import PixelShufflePipeline
from sdpo_exp.testbed.attributes import ATTRIBUTES, Scene
from sdpo_exp.testbed.captions import caption, parse_caption
from sdpo_exp.testbed.checker import CheckerResult, check
from sdpo_exp.testbed.render import SIDE
from sdpo_exp.whole_files import write_json

SET_OF_ONE = "prompt"  # the name of the set that a single prompt is


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
    folder: Path,
    draws: Sequence[Draw],
    images: Sequence[Image.Image],
    verdict: CheckerResult | None,
) -> list[dict[str, Any]]:
    """Write a row's images and `manifest.json` to `folder`; the entries of the latter."""
    folder.mkdir(exist_ok=True)
    entries: list[dict[str, Any]] = []
    for i, (draw, image) in enumerate(zip(draws, images, strict=True)):
        file = f"{i:03d}.png"
        image.save(folder / file)
        entry = manifest_entry(draw.prompt, file, {}, ImageKey(SET_OF_ONE, draw.index, draw.seed))
        if verdict is not None:
            entry["correct"] = dict(zip(ATTRIBUTES, verdict.correct[i].tolist(), strict=True))
            entry["cleanliness"] = round(float(verdict.cleanliness[i]), 4)
            entry["reward"] = round(float(verdict.reward[i]), 4)
        entries.append(entry)
    write_json(folder / MANIFEST_FILE, entries)
    return entries
