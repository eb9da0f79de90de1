"""How `testbed/sampled` was made: some samples a caption, judged by the exact checker."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdpo_exp.bounds import NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval
from sdpo_exp.errors import UserError
from sdpo_exp.models.pixel_backbone import Base, PixelBackbone
from sdpo_exp.models.tiny_flow import open_pixel_model
from sdpo_exp.randomness import sampling_noise
from sdpo_exp.testbed.attributes import Split, split_scenes
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.checker import check
from sdpo_exp.testbed.recipes import FAMILIES, Model
from sdpo_exp.testbed.sampled import Pixels, SampledRow, write_samples
from sdpo_exp.testbed.sampling import LATENT_SHAPE, sample

_CHUNK = 32  # captions at a time


@dataclasses.dataclass(frozen=True)
class SamplingPlan:
    """What the pairs depend on.

    Attributes:
        train, validation: captions of each split that pairs are made of; 0 for none.
        k: samples of each caption.
        seed: of the noise.
        guidance, steps: of the sampler.
        min_gap: captions whose samples' rewards are all closer than that are left out.
        pretrained: folder of the model; None for shipped weights.
        model, base: which of the shipped weights.
    """

    train: NonNegativeInt = 660
    validation: NonNegativeInt = 80
    k: PositiveInt = 2
    seed: NonNegativeInt = 0
    guidance: PositiveFloat = 1.0
    steps: PositiveInt = 10
    min_gap: UnitInterval = 0.02
    pretrained: str | None = None
    model: Model = "tiny"
    base: Base = "unfinished"


def sample_pairs(folder: Path, plan: SamplingPlan, log: Callable[[str], None] = print) -> None:
    """Make the pairs of a plan and move them to `folder` when all are there.

    Raises:
        UserError: `folder` exists already, k is 1, or the model keeps making ties.
    """
    if plan.k < 2:
        raise UserError(f"k={plan.k}: a pair needs 2 samples or more")
    if folder.exists():
        raise UserError(f"{folder} exists; remove it or choose another folder")
    started = time.perf_counter()
    named = plan.pretrained
    backbone = (
        FAMILIES[plan.model](base=plan.base) if named is None else open_pixel_model(Path(named))
    )
    rows: dict[str, list[SampledRow]] = {}
    images: dict[str, Pixels] = {}
    splits: tuple[tuple[Split, int], ...] = (("train", plan.train), ("validation", plan.validation))
    for number, (split, count) in enumerate(splits):
        if count:
            pairs = list(itertools.islice(_pairs(backbone, split, number, plan), count))
            rows[split] = [row for row, _ in pairs]
            images[split] = np.stack([pixels for _, pixels in pairs])
            log(f"{split}: {count} pairs, rewards {_means(rows[split])}")
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    write_samples(partial, rows, images, _provenance(plan))
    partial.rename(folder)
    log(f"{folder}: {time.perf_counter() - started:.0f} s")


def _pairs(
    backbone: PixelBackbone, split: Split, number: int, plan: SamplingPlan
) -> Iterator[tuple[SampledRow, Pixels]]:
    """Captions whose samples are no ties, and these, (k, 32, 32, 3), in the order drawn."""
    scenes = split_scenes(split)
    fruitless = 0
    for chunk in itertools.count():
        first = chunk * _CHUNK
        chosen = [scenes[i % len(scenes)] for i in range(first, first + _CHUNK)]
        repeated = [scene for scene in chosen for _ in range(plan.k)]
        # One independent draw for each chunk of each split.
        seed = int(np.random.SeedSequence([plan.seed, number, chunk]).generate_state(1)[0])
        noise = sampling_noise(seed, len(repeated), LATENT_SHAPE)
        prompts = [caption(scene) for scene in repeated]
        pixels = _to_pixels(sample(backbone.pipeline(), prompts, noise, plan.guidance, plan.steps))
        rewards = check(pixels, repeated).reward.reshape(-1, plan.k)
        gaps = np.ptp(rewards, axis=1)
        fruitless = 0 if gaps.max() > plan.min_gap else fruitless + 1
        if fruitless * _CHUNK > len(scenes):
            raise UserError(f"min_gap={plan.min_gap}: no two samples of a caption differ by more")
        samples = pixels.reshape(-1, plan.k, *pixels.shape[1:])
        for row, reward, scene, gap in zip(samples, rewards, chosen, gaps, strict=True):
            if gap > plan.min_gap:
                yield SampledRow(caption(scene), tuple(round(float(r), 4) for r in reward)), row


def _to_pixels(images: torch.Tensor) -> Pixels:
    """(N, 32, 32, 3) of (N, 3, 32, 32) in [-1, 1]."""
    scaled: Pixels = (images * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return scaled


def _means(rows: list[SampledRow]) -> str:
    best, worst = (np.mean([pick(row.rewards) for row in rows]) for pick in (max, min))
    return f"{best:.3f} (best) and {worst:.3f} (worst)"


def _provenance(plan: SamplingPlan) -> dict[str, Any]:
    values = dataclasses.asdict(plan)
    command = [f"{key}={value}" for key, value in values.items() if value is not None]
    return {
        "command": " ".join(["python -m sdpo_exp.sample_pairs", *command]),
        "torch": torch.__version__,
    }
