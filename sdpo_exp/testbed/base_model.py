"""How the base models of the world are trained: on clean renders, text jointly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sdpo_exp.models.pixel_backbone import PixelBackbone
from sdpo_exp.models.tiny import build_tiny
from sdpo_exp.models.tiny_flow import build_tiny_flow
from sdpo_exp.testbed.attributes import split_scenes
from sdpo_exp.testbed.captions import VOCABULARY, caption
from sdpo_exp.testbed.render import draw_offsets, render

Model = Literal["tiny", "tiny_flow"]

_LOG_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What the recipe fixes.

    Attributes:
        caption_dropout: share of captions that are replaced by the empty one.
        token_std: standard deviation of fresh word embeddings.
        text_lr_factor: learning rate of the text path (encoder and pooled embedding) over `lr`.
            At 1, the background colour, which moves every pixel, takes over the normalised text
            features: after 1,500 steps another position moved the pooled embedding by 0.8 % of
            its norm, and 8 % of the positions were right.
        text_path: beginnings of the names of what is trained at that rate.
    """

    batch: int = 16
    lr: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 50
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.99
    caption_dropout: float = 0.1
    token_std: float = 0.3
    text_lr_factor: float = 0.05
    text_path: tuple[str, ...] = ("text.", "network.add_embedding.")


BUILDERS: Mapping[Model, Callable[[Sequence[str]], PixelBackbone]] = {
    "tiny": build_tiny,
    "tiny_flow": build_tiny_flow,
}
HYPERPARAMETERS: Mapping[Model, Hyperparameters] = {
    "tiny": Hyperparameters(),
    "tiny_flow": Hyperparameters(
        lr=2e-3,
        text_lr_factor=0.25,
        text_path=("text.", "network.time_text_embed.text_embedder."),
    ),
}
STEPS: Mapping[Model, int] = {"tiny": 1500, "tiny_flow": 2800}


def train(
    steps: int,
    seed: int,
    hyper: Hyperparameters,
    log: Callable[[str], None] = print,
    model: Model = "tiny",
) -> PixelBackbone:
    """The averaged model after `steps` steps of denoising clean renders of train scenes."""
    backbone = _fresh(seed, hyper, model)
    parts = nn.ModuleDict({"network": backbone.denoiser, "text": backbone.text_encoder})
    averaged = AveragedModel(parts, multi_avg_fn=get_ema_multi_avg_fn(hyper.ema_decay))
    optimizer = _optimizer(parts, hyper)
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


def _fresh(seed: int, hyper: Hyperparameters, model: Model = "tiny") -> PixelBackbone:
    """Random weights. CLIP's initial word embeddings (0.02) are small beside the first layer's
    average over the words before; larger ones keep every word visible in the pooled text."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = BUILDERS[model](VOCABULARY)
        words = backbone.text_encoder.get_input_embeddings()
        nn.init.normal_(words.weight, std=hyper.token_std)
    backbone.text_encoder.requires_grad_(True)
    return backbone


def _optimizer(parts: nn.ModuleDict, hyper: Hyperparameters) -> torch.optim.Optimizer:
    """AdamW with a slow group for the text path."""
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in parts.named_parameters():
        groups[name.startswith(hyper.text_path)].append(parameter)
    rates = {False: hyper.lr, True: hyper.lr * hyper.text_lr_factor}
    return torch.optim.AdamW(
        [{"params": groups[slow], "lr": rate} for slow, rate in rates.items()],
        betas=hyper.betas,
        weight_decay=hyper.weight_decay,
    )


def denoising_loss(
    backbone: PixelBackbone, pixels: Tensor, prompts: list[str], generator: torch.Generator
) -> Tensor:
    """Mean squared error () of the prediction at the process's times, gradient to both networks."""
    latents = backbone.encode_images(pixels)
    noise = torch.randn(latents.shape, generator=generator)
    uniform = torch.rand(len(latents), generator=generator)
    t = backbone.process.sample_timesteps(uniform, latents.shape[1:])
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
