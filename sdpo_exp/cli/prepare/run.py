"""The body of `sdpo_exp.prepare`: what is missing, whether it fits on the disk, and who does it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sdpo_exp.cli.build import build, build_datamodule
from sdpo_exp.cli.cache_settings import settings_of
from sdpo_exp.cli.environment import describe_environment
from sdpo_exp.cli.prepare.disk import check_disk, missing, told
from sdpo_exp.cli.prepare.encoding import cached_pairs, encode_share
from sdpo_exp.cli.printed import word
from sdpo_exp.cli.workers import (
    count_devices,
    quiet,
    resolve_device,
    run_on_devices,
    without_hydra,
)
from sdpo_exp.data.cache_card import CARD, PARTS, TEXT, CacheCard, read_card
from sdpo_exp.data.cache_shards import prompts_of, shard_names
from sdpo_exp.data.cached import fingerprints
from sdpo_exp.data.datamodule import PairDataModule
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.terminal.progress import Progress
from sdpo_exp.whole_files import write_text

_BYTES = {"float32": 4, "bfloat16": 2}
_HEAD = 64 * 2**10  # bytes of a shard beside its tensors, generously
_log = logging.getLogger(__name__)


def prepare_into(config: DictConfig, folder: Path) -> None:
    """Make a cache in a folder, which may hold a part of it already.

    Raises:
        UserError: pairs, model, folder or disk cannot be used, or the user stopped it.
    """
    quiet(config.torch_threads or 1)
    data = build_datamodule(config)
    backbone = build(config.model, "model", loading="on_demand")
    card = _card(config, data, backbone)
    _begin(folder, card)
    device = resolve_device(config.device)
    count, words = count_devices(device, config.devices), without_hydra(config)
    names = [n for part in PARTS for n in shard_names(part, card.shard, card.pairs[part])]
    try:
        check_disk(folder, _bytes_of_rows(missing(folder, names), card, data, backbone), "images")
        run_on_devices(encode_share, device, min(count, len(names)), words, str(folder), names)
    except KeyboardInterrupt:
        raise UserError(
            "interrupted; what is written stays, and the same command goes on"
        ) from None
    prompts = len(prompts_of(folder, names))
    _finish(folder, card, [*names, *shard_names(TEXT, card.shard, prompts)], prompts)


def _card(config: DictConfig, data: PairDataModule, backbone: Any) -> CacheCard:
    sources = {"train": data.train, "validation": data.validation}
    return CacheCard(
        settings=settings_of(config),
        data=fingerprints(sources),
        files=backbone.frozen_files(),
        pairs={part: len(source) for part, source in sources.items()},
        shard=config.shard,
        dtype=config.cache_dtype,
        made_by=describe_environment(),
    )


def _begin(folder: Path, card: CacheCard) -> None:
    """Write the card before any shard, or refuse a folder with something else in it."""
    if (folder / CARD).is_file():
        there = read_card(folder, "out")
        names = ("settings", "data", "files", "pairs", "shard", "dtype")
        if changed := there.differences(card, names):
            raise UserError(
                f"out={folder}: holds the cache of other work ({'; '.join(changed)}). Give the "
                "same again, or another folder"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"out={folder}: is not empty and no cache; give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        card.write(folder)
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({first_line(error)})") from None


def _bytes_of_rows(
    todo: Sequence[str], card: CacheCard, data: PairDataModule, backbone: Any
) -> int:
    """At most, where no two images are alike."""
    if not todo:
        return 0
    height, width = _image_size(data)
    channels, rows, columns = backbone.latent_shape(height, width)
    image = 2 * channels * rows * columns * _BYTES[card.dtype]
    most = sum(min(card.shard, card.pairs[name.partition("/")[0]]) for name in todo)
    return 2 * image * most + _HEAD * len(todo)


def _image_size(data: PairDataModule) -> tuple[int, int]:
    """Height and width of the images as trained on."""
    place = cached_pairs(data, "train").place
    return place.height, place.width


def _finish(folder: Path, card: CacheCard, names: Sequence[str], prompts: int) -> None:
    shards = {}
    with Progress("hashes", len(names), "file", quiet=3.0) as progress:
        for name in names:
            with (folder / name).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            shards[name] = {"bytes": (folder / name).stat().st_size, "sha256": digest}
            progress.advance()
    done = CacheCard(**{**vars(card), "complete": True, "shards": shards})
    write_text(folder / "README.md", _readme(done, prompts))
    done.write(folder)
    _log.info("cache: %s", os.path.relpath(folder))
    _log.info("train from it: the same words, and %s", word("data.cache", folder))


def _readme(card: CacheCard, prompts: int) -> str:
    exact = {
        "float32": "float32: what the encoders made, bit by bit.\nOn the CPU the losses of a "
        "training are those without the cache. On CUDA last bits depend\non the batch that an "
        "image passes in: model.encode_batch=1 makes the passes the same (not measured).",
        "bfloat16": "bfloat16: rounded to 8 bits of mantissa.\nThe losses of a training are "
        "within 1e-2 of those without the cache, relatively.",
    }[card.dtype]
    size = sum(about["bytes"] for about in card.shards.values())
    settings = "\n".join(f"- {key}: {value}" for key, value in card.settings.items())
    return f"""# A cache of frozen work

VAE posteriors (mean and standard deviation) of {card.pairs["train"]} training and
{card.pairs["validation"]} held-out pairs and text conditions of {prompts} prompts, {told(size)}.
For training with the same words and `data.cache=` this folder.

{exact}

Made with

{settings}

`cache.json` has the hashes of pairs, weights and files.
"""
