"""Score both images of every pair of some shards with one scorer, on one device or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdpo_exp.cli.relabel.shards import ScoredPair, Shards
from sdpo_exp.cli.workers import Rank, quiet
from sdpo_exp.data.images import MAX_PIXELS
from sdpo_exp.data.relabelled import name_of
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.metrics.preprocessing import crop
from sdpo_exp.protocols import PairSource, Scorer
from sdpo_exp.terminal.progress import Progress, chunks
from sdpo_exp.types import SkippedRow


class Unscored(NamedTuple):
    """Pairs of one part of the data, and where their scores go."""

    part: str
    source: PairSource
    shards: Shards


@dataclass(frozen=True)
class ScoringPlan:
    """What a device needs to know; all of it can be pickled.

    Attributes:
        config: the node of one metric, as `metric`, with the root keys that it may refer to;
            `device` is set here.
        unscored: pairs to score.
        batch: pairs per call of the scorer.
        workers: processes that decode images; 0 decodes here.
    """

    config: dict[str, Any]
    unscored: Sequence[Unscored]
    batch: int
    workers: int


def score_share(rank: Rank, plan: ScoringPlan) -> None:
    """Score this device's share of the missing shards, with one scorer for all parts.

    Raises:
        UserError: the scorer cannot be had, refuses a prompt or an image, or is another than the
            one that has scored the rest.
    """
    quiet(plan.config["torch_threads"])
    todo = [(one, one.shards.missing()[rank.rank :: rank.world]) for one in plan.unscored]
    rank.barrier()  # nobody writes before everybody has seen what is missing
    if not any(numbers for _, numbers in todo):
        return
    scorer = _build(plan, rank.device)
    for one, _ in todo:
        one.shards.check(getattr(scorer, "origin", None))
    for one, numbers in todo:
        scored = _score_all(scorer, one, numbers, plan, rank)
        _write_all(scored, one, numbers, scorer, shown=rank.rank == 0)


def _build(plan: ScoringPlan, device: str) -> Scorer:
    from sdpo_exp.cli.evaluate.scorers import build_scorers

    config = OmegaConf.create({**plan.config, "device": device})
    (scorer,) = build_scorers(config.metric)
    return scorer


def _score_all(
    scorer: Scorer, one: Unscored, numbers: Sequence[int], plan: ScoringPlan, rank: Rank
) -> Iterator[ScoredPair]:
    """The pairs of some shards, in order; no batch goes over the end of a shard."""
    shards = (one.shards.rows(number) for number in numbers)
    batches = [list(part) for rows in shards for part in chunks(rows, plan.batch)]
    loader = DataLoader(
        _Readable(one.source, scorer.image_size),
        batch_sampler=batches,
        collate_fn=list,
        num_workers=plan.workers,
    )
    for batch in loader:
        yield from _score(scorer, batch, rank.device)


def _write_all(
    scored: Iterator[ScoredPair],
    one: Unscored,
    numbers: Sequence[int],
    scorer: Scorer,
    *,
    shown: bool,
) -> None:
    total = sum(len(one.shards.rows(number)) for number in numbers)
    with Progress(f"{one.part} {one.shards.metric}", total, "pair", shown=shown) as progress:
        for number in numbers:
            pairs = []
            for pair in islice(scored, len(one.shards.rows(number))):
                pairs.append(pair)
                progress.advance()
            one.shards.write(number, pairs, getattr(scorer, "origin", None))


# -- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Images:
    """Images of pair `index` in the source's order, or why there are none."""

    index: int
    winner: Image.Image | None
    loser: Image.Image | None
    prompt: str
    problem: SkippedRow | None = None


class _Readable(Dataset["_Images | UserError"]):
    """Pairs as images; `size`: the square that the scorer would crop to, cut where they are read.

    A mistake of the user's is returned, not raised: a worker would wrap it in a traceback.
    """

    def __init__(self, source: PairSource, size: int | None) -> None:
        self.source, self.size = source, size

    def __getitem__(self, index: int) -> _Images | UserError:
        try:
            pair = self.source[index]
            winner, loser = (self._cut(to_image(p), index) for p in (pair.winner, pair.loser))
        except BadRow as error:
            return _Images(index, None, None, "", SkippedRow(error.row, error.reason))
        except UserError as error:
            return error
        return _Images(index, winner, loser, pair.prompt)

    def _cut(self, image: Image.Image, index: int) -> Image.Image:
        if self.size is None:
            return image
        if max(image.size) / min(image.size) * self.size**2 > MAX_PIXELS:
            reason = f"image is a thin strip ({image.width} x {image.height})"
            raise BadRow(name_of(self.source, index), reason)
        return crop(image, self.size)


def to_image(picture: Tensor | Image.Image) -> Image.Image:
    """An image as it is; of pixels (3, H, W) in [-1, 1] their 8-bit image, to the nearest level."""
    if isinstance(picture, Image.Image):
        return picture
    levels = (picture * 127.5 + 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


# -- scoring -----------------------------------------------------------------------------------


def _score(
    scorer: Scorer, batch: Sequence[_Images | UserError], device: str
) -> Iterator[ScoredPair]:
    """Scores of a batch, in its order."""
    readable: list[_Images] = []
    for pair in batch:
        if isinstance(pair, UserError):
            raise pair
        if pair.problem is None:
            readable.append(pair)
    values = iter(_call(scorer, readable, device))
    for pair in batch:
        assert isinstance(pair, _Images)
        if pair.problem is not None:
            yield ScoredPair(pair.index, None, None, pair.problem)
        else:
            yield ScoredPair(pair.index, *next(values))


def _call(scorer: Scorer, pairs: Sequence[_Images], device: str) -> list[tuple[float, float]]:
    """Scores of winners and losers, all in one call."""
    if not pairs:
        return []
    images = [image for pair in pairs for image in (pair.winner, pair.loser) if image is not None]
    prompts = [pair.prompt for pair in pairs for _ in range(2)]
    try:
        scores = scorer.score(images, prompts)
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"batch={len(pairs)}: {device} has too little memory for {len(images)} images at a "
            "time; give a smaller batch. What is scored is kept"
        ) from None
    if tuple(scores.shape) != (len(images),):
        raise UserError(
            f"metric {scorer.name}: {tuple(scores.shape)} scores of {len(images)} images; a scorer "
            "gives one number per image"
        )
    return [(first, second) for first, second in scores.double().reshape(-1, 2).tolist()]
