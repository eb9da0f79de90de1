"""Samples from a backbone of the world, and how the checker judges them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdpo_exp.models.pixel_backbone import PixelBackbone
from sdpo_exp.randomness import sampling_noise
from sdpo_exp.testbed.attributes import Split, split_scenes
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.checker import CheckerResult, check

LATENT_SHAPE = (12, 16, 16)
_BATCH = 64


class Evaluation(NamedTuple):
    """Means over `n` images, all in [0, 1]; `by_attribute` is the share of each that is right."""

    n: int
    guidance: float
    accuracy: float
    exact: float
    cleanliness: float
    reward: float
    by_attribute: dict[str, float]

    @classmethod
    def from_result(cls, result: CheckerResult, guidance: float) -> Evaluation:
        """Means of a checker's verdicts."""
        return cls(
            n=len(result.accuracy),
            guidance=guidance,
            accuracy=float(result.accuracy.mean()),
            exact=float(result.exact.mean()),
            cleanliness=float(result.cleanliness.mean()),
            reward=float(result.reward.mean()),
            by_attribute=result.by_attribute(),
        )


def evaluate(
    backbone: PixelBackbone,
    split: Split,
    n: int,
    guidance: float = 1.0,
    steps: int = 20,
    seed: int = 0,
) -> Evaluation:
    """Generate one image for each of the first n captions of a split, from noise that depends on
    (seed, image) alone, and check them."""
    scenes = split_scenes(split)[:n]
    noise = sampling_noise(seed, len(scenes), LATENT_SHAPE)
    captions = [caption(scene) for scene in scenes]
    images = sample(backbone.pipeline(), captions, noise, guidance, steps)
    return Evaluation.from_result(check(images.numpy(), scenes), guidance)


def sample(
    pipeline: Any,
    prompts: Sequence[str],
    noise: Tensor,
    guidance: float = 1.0,
    steps: int = 20,
) -> Tensor:
    """Images (N, 3, 32, 32) in [-1, 1] on the CPU, generated in batches.

    Args:
        pipeline: of `PixelBackbone.pipeline()`, or one that is called in the same way.
        prompts: N captions.
        noise: (N, 12, 16, 16) standard normal, where the trajectories start.
        guidance: 1 is the conditional model alone, at half the cost.
        steps: network evaluations per image (and branch).
    """
    images = []
    for start in range(0, len(prompts), _BATCH):
        rows = slice(start, start + _BATCH)
        (batch,) = pipeline(
            list(prompts[rows]),
            latents=noise[rows],
            guidance_scale=guidance,
            num_inference_steps=steps,
            output_type="pt",
            return_dict=False,
        )
        images.append(batch.cpu())
    return torch.cat(images)
