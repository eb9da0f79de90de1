"""Scores of a folder's images: by each scorer in turn, on several devices, kept as they come."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.environment import describe_environment
from sdpo_exp.cli.evaluate.pictures import Pictures
from sdpo_exp.cli.evaluate.scorers import build_scorers
from sdpo_exp.cli.workers import (
    Rank,
    count_devices,
    quiet,
    resolve_device,
    run_on_devices,
    without_hydra,
)
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.evaluation.pairing import ImageKey, PromptKey, Score
from sdpo_exp.evaluation.per_prompt import PerPromptScore
from sdpo_exp.evaluation.scores import (
    EVALUATION_FILE,
    SCORES_FILE,
    ScoreTable,
    read_scores,
    write_scores,
)
from sdpo_exp.generation.folder import ImageRecord, Manifest, read_manifest, read_settings
from sdpo_exp.protocols import Scorer
from sdpo_exp.reports.evaluation import evaluation_page, evaluation_table, summarise
from sdpo_exp.terminal.progress import Progress, chunks
from sdpo_exp.whole_files import write_json, write_text

_log = logging.getLogger(__name__)


def score_folder(config: DictConfig, folder: Path) -> None:
    """Score, write `scores.parquet`, `evaluation.json` and `evaluation.md`, and say the table.

    Raises:
        UserError: no images, or a scorer cannot be had or does not fit them.
    """
    device = resolve_device(config.device)
    count = count_devices(device, config.devices)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run_on_devices(score_share, device, count, without_hydra(config), str(folder))
    except KeyboardInterrupt:
        raise UserError(
            f"interrupted; scores of finished metrics are in {os.path.relpath(folder)}"
        ) from None
    except OSError as error:
        raise UserError(f"folder={folder}: {first_line(error)}") from None
    content = json.loads((folder / EVALUATION_FILE).read_text())
    _log.info("\n%s", evaluation_table(content))
    _log.info("\nscores: %s", os.path.relpath(folder / SCORES_FILE))


def score_share(rank: Rank, plain: dict[str, Any], folder: str) -> None:
    """What one process does: every `world`-th image by every scorer; the first writes the sums."""
    config, target = OmegaConf.create(plain), Path(folder)
    quiet(config.torch_threads)
    for node in config.metric.values():
        if node.get("device") in ("auto", config.device):
            node.device = rank.device
    manifest = _images(config, target)
    pictures = Pictures([record.file for record in manifest.images])
    keeper = _Keeper(config, target, manifest) if rank.rank == 0 else None
    for scorer in build_scorers(config.metric):
        values = _score(rank, scorer, manifest.images, pictures, config.score_batch)
        if keeper is not None:
            keeper.keep(scorer, values)
        del scorer
    rank.barrier()


def _images(config: DictConfig, folder: Path) -> Manifest:
    """What to score: of a set drawn here the prompts and seeds asked for, else all there is."""
    if config.images is not None:
        manifest = read_manifest(Path(config.images))
        if manifest.dropped:
            _log.info("note: %d entries without prompt or image left out", manifest.dropped)
        return manifest
    manifest = read_manifest(folder)
    seeds = range(config.seed, config.seed + (config.n or 1))
    wanted = [record for record in manifest.images if record.seed in seeds]
    return manifest._replace(images=wanted)


def _score(
    rank: Rank,
    scorer: Scorer,
    images: Sequence[ImageRecord],
    pictures: Pictures,
    batch: int,
) -> Sequence[float]:
    """Scores of all images, summed up over the processes."""
    state = PerPromptScore(len(images)).to(rank.device)
    mine = range(rank.rank, len(images), rank.world)
    with Progress(scorer.name, len(mine), "image", shown=rank.rank == 0) as progress:
        for positions in chunks(mine, batch):
            prompts = [images[i].prompt for i in positions]
            found = scorer.score(pictures.batch(positions, scorer.image_size), prompts)
            where = torch.tensor(list(positions), device=rank.device)
            state.update(where, found.to(rank.device))
            progress.advance(len(positions))
    values: list[float] = state.compute().reshape(-1).tolist()
    return values


class _Keeper:
    """What is on disk after each scorer: a crash in the last one loses none of the others."""

    def __init__(self, config: DictConfig, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.keys = [ImageKey(r.set, r.index, r.seed) for r in manifest.images]
        if len(set(self.keys)) < len(self.keys):
            raise UserError(f"images={config.images}: an image of the same prompt and seed twice")
        described = _describe(config, manifest, folder)
        kept = self._earlier(described["images_sha256"], [str(key) for key in config.metric])
        scores = read_scores(folder / SCORES_FILE).scores if kept else {}
        scores = {name: scores[name] for name in kept if name in scores}
        self.table = ScoreTable(scores, *_texts_and_labels(manifest.images))
        self.content = described | {"metrics": kept}

    def keep(self, scorer: Scorer, values: Sequence[float]) -> None:
        """Write everything known so far.

        Raises:
            UserError: a score is not a number.
        """
        scores = [Score(key, value) for key, value in zip(self.keys, values, strict=True)]
        for record, score in zip(self.manifest.images, scores, strict=True):
            if not math.isfinite(score.value):
                raise UserError(f"{scorer.name} gives {score.value} for {record.file}")
        self.table = ScoreTable(
            {**self.table.scores, scorer.name: scores}, self.table.texts, self.table.labels
        )
        write_scores(self.folder / SCORES_FILE, self.table)
        metrics = {**self.content["metrics"], scorer.name: self._summary(scorer, scores)}
        self.content = {**self.content, "metrics": metrics}
        write_json(self.folder / EVALUATION_FILE, self.content)
        write_text(self.folder / "evaluation.md", evaluation_page(self.content))

    def _summary(self, scorer: Scorer, scores: Sequence[Score]) -> dict[str, Any]:
        cut = getattr(scorer, "cut_prompts", None)
        return {
            "display_scale": scorer.display_scale,
            "origin": dict(getattr(scorer, "origin", {})),
            **summarise(scores, self.table.texts, self.table.labels),
            "cut_prompts": cut(list(self.table.texts.values())) if cut is not None else 0,
        }

    def _earlier(self, images: str, asked: Sequence[str]) -> dict[str, Any]:
        """The metrics of an earlier call, if it saw the very same images.

        Raises:
            UserError: it saw others, and some of its metrics are not asked for now.
        """
        file = self.folder / EVALUATION_FILE
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text())
            metrics: dict[str, Any] = dict(content["metrics"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file}: broken; give another folder") from None
        if content.get("images_sha256") == images:
            return metrics
        if lost := sorted(metrics.keys() - set(asked)):
            raise UserError(
                f"folder={self.folder} has {', '.join(lost)} of other images (another n or seed, "
                "or images that changed); give another folder, or score by these as well"
            )
        return {}


def _texts_and_labels(
    images: Sequence[ImageRecord],
) -> tuple[dict[PromptKey, str], dict[str, dict[PromptKey, str]]]:
    texts: dict[PromptKey, str] = {}
    labels: dict[str, dict[PromptKey, str]] = {}
    for record in images:
        key = PromptKey(record.set, record.index)
        texts[key] = record.prompt
        for axis, value in record.labels.items():
            labels.setdefault(axis, {})[key] = value
    return texts, labels


def _describe(config: DictConfig, manifest: Manifest, folder: Path) -> dict[str, Any]:
    source = folder if config.images is None else Path(config.images)
    settings = read_settings(source if source.is_dir() else source.parent) or {}
    name = config.label or settings.get("name") or _plain(source.resolve().name)
    return {
        "name": name,
        "model": settings.get("model"),
        "prompts": settings.get("prompts"),
        "protocol": settings.get("protocol"),
        "pairing": "index" if manifest.by_index else "prompt",
        "images": os.path.relpath(source),
        "images_sha256": _content_hash(manifest),
        **describe_environment(),
    }


def _plain(name: str) -> str:
    return name.removesuffix(".json").removesuffix(".csv")


def _content_hash(manifest: Manifest) -> str:
    """Over keys, prompts and files of all images: what scores belong to, whatever the path."""
    digest = hashlib.sha256()
    for record in manifest.images:
        digest.update(repr((record.set, record.index, record.seed, record.prompt)).encode())
        digest.update(hashlib.sha256(record.file.read_bytes()).digest())
    return digest.hexdigest()
