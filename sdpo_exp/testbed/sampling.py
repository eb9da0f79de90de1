"""Samples from a backbone of the world, and how the checker judges them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.testbed.attributes import Split, split_scenes
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.checker import CheckerResult, check
from sdpo_exp.types import Conditioning

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
    backbone: TinyBackbone,
    split: Split,
    n: int,
    guidance: float = 1.0,
    steps: int = 20,
    seed: int = 0,
) -> Evaluation:
    """Generate one image for each of n captions of a split (the first n; repeated beyond its
    length) from noise that depends on `seed` only, and check them."""
    scenes = list(itertools.islice(itertools.cycle(split_scenes(split)), n))
    noise = torch.randn(n, *LATENT_SHAPE, generator=torch.Generator().manual_seed(seed))
    images = sample(backbone, [caption(scene) for scene in scenes], noise, guidance, steps)
    return Evaluation.from_result(check(images.numpy(), scenes), guidance)


@torch.no_grad()
def sample(
    backbone: TinyBackbone,
    prompts: Sequence[str],
    noise: Tensor,
    guidance: float = 1.0,
    steps: int = 20,
) -> Tensor:
    """Images (N, 3, 32, 32) in [-1, 1] by second-order DPM-Solver++ and classifier-free guidance.

    Args:
        prompts: N captions.
        noise: (N, 12, 16, 16) standard normal, where the trajectories start.
        guidance: 1 is the conditional model alone, at half the cost.
        steps: network evaluations per image (and branch).
    """
    chunks = zip(_batches(prompts), noise.split(_BATCH), strict=True)
    images = [_sample_batch(backbone, p, x, guidance, steps) for p, x in chunks]
    return torch.cat(images)


def _batches(prompts: Sequence[str]) -> list[Sequence[str]]:
    return [prompts[start : start + _BATCH] for start in range(0, len(prompts), _BATCH)]


def _sample_batch(
    backbone: TinyBackbone, prompts: Sequence[str], noise: Tensor, guidance: float, steps: int
) -> Tensor:
    trained: Any = backbone.scheduler
    solver = DPMSolverMultistepScheduler.from_config(trained.config)
    solver.set_timesteps(steps)
    cond, empty = backbone.encode_prompts(prompts), backbone.encode_prompts([""] * len(prompts))
    x = noise
    for t in solver.timesteps:
        prediction = _predict(backbone, x, t, cond)
        if guidance != 1.0:
            prediction = torch.lerp(_predict(backbone, x, t, empty), prediction, guidance)
        x = solver.step(prediction, t, x).prev_sample
    return backbone.decode_latents(x).clamp(-1, 1)


def _predict(backbone: TinyBackbone, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    return backbone.denoise(backbone.denoiser, x, t.expand(len(x)), cond)
