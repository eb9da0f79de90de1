"""The recipe of the base model that ships with the package: `sdpo_exp/models/tiny_base`.

About ten minutes on one CPU core. The model is left unfinished on purpose (two thirds to five
sixths of the attributes right on unseen captions), so that preference tuning has room above it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.errors import UserError
from sdpo_exp.models.tiny import TinyBackbone, build_tiny
from sdpo_exp.testbed.attributes import split_scenes
from sdpo_exp.testbed.captions import VOCABULARY, caption
from sdpo_exp.testbed.render import draw_offsets, render
from sdpo_exp.testbed.sampling import evaluate

RECIPE_FILE = "recipe.json"
_LOG_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What the recipe fixes; `caption_dropout` is the share of empty captions."""

    batch: int = 32
    lr: float = 1.5e-3
    warmup: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.995
    caption_dropout: float = 0.1


def pretrain(
    folder: Path,
    steps: PositiveInt = 1500,
    seed: NonNegativeInt = 0,
    threads: PositiveInt = 1,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, store as fp16, measure what was stored, and only then move it to `folder`.

    Sets torch's thread count and flush-denormal mode for the process.

    Returns:
        The content of `recipe.json`: seed, steps, versions, checker results, file hashes.

    Raises:
        UserError: `folder` exists already.
    """
    if folder.exists():
        raise UserError(f"{folder} exists; remove it or choose another folder")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    started = time.perf_counter()
    trained = train(steps, seed, Hyperparameters(), log)
    partial = folder.with_name(f"{folder.name}.partial")
    save_half(trained, partial)
    recipe = _describe(partial, steps, seed, log)
    (partial / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + "\n")
    partial.rename(folder)
    log(f"{folder}: {time.perf_counter() - started:.0f} s")
    return recipe


def train(
    steps: int, seed: int, hyper: Hyperparameters, log: Callable[[str], None] = print
) -> TinyBackbone:
    """The averaged model after `steps` steps of v-prediction on clean renders of train scenes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_tiny(VOCABULARY)
    backbone.text_encoder.requires_grad_(True)
    parts = nn.ModuleDict({"unet": backbone.denoiser, "text": backbone.text_encoder})
    averaged = AveragedModel(parts, multi_avg_fn=get_ema_multi_avg_fn(hyper.ema_decay))
    optimizer = torch.optim.AdamW(parts.parameters(), hyper.lr, weight_decay=hyper.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(steps, hyper.warmup))
    noise = torch.Generator().manual_seed(seed)
    total = 0.0
    for step, (pixels, prompts) in enumerate(_batches(steps, seed, hyper), start=1):
        loss = denoising_loss(backbone, pixels, prompts, noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), hyper.max_grad_norm)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(parts)
        total += loss.item()
        if step % _LOG_EVERY == 0:
            log(f"step {step}/{steps} loss {total / _LOG_EVERY:.4f}")
            total = 0.0
    parts.load_state_dict(averaged.module.state_dict())
    backbone.text_encoder.requires_grad_(False)
    return backbone


def denoising_loss(
    backbone: TinyBackbone, pixels: Tensor, prompts: list[str], generator: torch.Generator
) -> Tensor:
    """Mean squared error () of the prediction at uniform timesteps, gradient to both networks."""
    latents = backbone.encode_images(pixels)
    noise = torch.randn(latents.shape, generator=generator)
    t = backbone.process.sample_timesteps(torch.rand(len(latents), generator=generator))
    noisy = backbone.process.add_noise(latents, noise, t)
    prediction = backbone.denoise(backbone.denoiser, noisy, t, backbone.encode_prompts(prompts))
    return functional.mse_loss(prediction, backbone.process.target(latents, noise, t))


def _batches(steps: int, seed: int, hyper: Hyperparameters) -> Iterator[tuple[Tensor, list[str]]]:
    """`steps` batches of pixels (batch, 3, 32, 32) and captions, some of them empty."""
    scenes, generator = split_scenes("train"), np.random.default_rng(seed)
    for _ in range(steps):
        chosen = [scenes[i] for i in generator.integers(len(scenes), size=hyper.batch)]
        kept = generator.random(hyper.batch) >= hyper.caption_dropout
        prompts = [caption(s) if keep else "" for s, keep in zip(chosen, kept, strict=True)]
        yield torch.from_numpy(render(chosen, draw_offsets(generator, hyper.batch))), prompts


def _cosine(steps: int, warmup: int) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then half a cosine to 0."""

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / warmup)
        return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

    return factor


def save_half(backbone: TinyBackbone, folder: Path) -> None:
    """Write the four parts as fp16; `backbone` itself is converted too."""
    backbone.denoiser.half()
    backbone.text_encoder.half()
    backbone.save(folder)


def weight_hashes(folder: Path) -> dict[str, str]:
    """sha256 of each weight file below `folder`, by its relative path."""
    files = sorted(folder.glob("*/*.safetensors"))
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def _describe(folder: Path, steps: int, seed: int, log: Callable[[str], None]) -> dict[str, Any]:
    stored = TinyBackbone(str(folder))
    results = []
    for guidance in (1.0, 2.0):
        result = evaluate(stored, "validation", len(split_scenes("validation")), guidance)
        log(f"guidance {guidance}: accuracy {result.accuracy:.3f}, exact {result.exact:.3f}")
        results.append(_rounded(result._asdict()))
    return {
        "seed": seed,
        "steps": steps,
        "torch": torch.__version__,
        "hyperparameters": dataclasses.asdict(Hyperparameters()),
        "validation": results,
        "sha256": weight_hashes(folder),
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values), parse_float=lambda text: round(float(text), 4))
