"""How the base models of the world are trained: on clean renders, text jointly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models.pixel_backbone import PixelBackbone
from sdpo_exp.testbed.attributes import Scene, split_scenes
from sdpo_exp.testbed.captions import VOCABULARY, caption
from sdpo_exp.testbed.recipes import Hyperparameters, Recipe
from sdpo_exp.testbed.render import draw_offsets, render
from sdpo_exp.whole_files import whole

_LOG_EVERY = 100
_SAVE_EVERY = 500


class Pretraining:
    """A base model in the making, and all that its next step depends on.

    Args:
        recipe: architecture, hyperparameters, and the length of the learning rate's cosine.
        seed: of the first weights, the images and the noise.
    """

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        hyper = recipe.hyper
        self.backbone = _fresh(seed, recipe)
        self.parts = nn.ModuleDict(
            {"network": self.backbone.denoiser, "text": self.backbone.text_encoder}
        )
        self._averaged = AveragedModel(
            self.parts, multi_avg_fn=get_ema_multi_avg_fn(hyper.ema_decay)
        )
        self._optimizer = _optimizer(self.parts, hyper)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, _cosine(recipe.steps, hyper.warmup)
        )
        self._noise = torch.Generator().manual_seed(seed)
        self._batches = Batches(seed, recipe)
        self.done = 0

    def step(self) -> float:
        """One optimiser step; the loss before it."""
        loss = denoising_loss(self.backbone, *self._batches.draw(), self._noise)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parts.parameters(), self.recipe.hyper.max_grad_norm)
        self._optimizer.step()
        self._schedule.step()
        self._averaged.update_parameters(self.parts)
        self.done += 1
        return loss.item()

    def averaged(self) -> PixelBackbone:
        """The backbone with averaged weights; training cannot go on from it."""
        self.parts.load_state_dict(self._averaged.module.state_dict())
        self.backbone.text_encoder.requires_grad_(False)
        return self.backbone

    def save(self, file: Path) -> None:
        """Everything that `load` needs to go on to the same weights."""
        state = {
            **self._identity(),
            "done": self.done,
            "parts": self.parts.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "noise": self._noise.get_state(),
            "batches": self._batches.state(),
        }
        with whole(file) as partial:
            torch.save(state, partial)

    def load(self, file: Path) -> None:
        """Go on where `save` was.

        Raises:
            UserError: the file is broken, or of another recipe, seed or model.
        """
        try:
            state = torch.load(file, weights_only=True)
        except Exception as error:
            reason = first_line(error)
            raise UserError(f"{file}: cannot be read ({reason}); remove it to begin anew") from None
        ours = self._identity()
        if {name: state.get(name) for name in ours} != ours:
            raise UserError(
                f"{file} was begun with other values (model, base, seed or steps); give the "
                "same ones to go on with it, or remove its folder to begin anew"
            )
        self.parts.load_state_dict(state["parts"])
        self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._noise.set_state(state["noise"])
        self._batches.go_on(state["batches"])
        self.done = state["done"]

    def _identity(self) -> dict[str, Any]:
        return {
            "architecture": self.recipe.build.__name__,
            "seed": self.seed,
            "steps": self.recipe.steps,
            "hyper": dataclasses.asdict(self.recipe.hyper),
        }


def train(
    recipe: Recipe,
    seed: int,
    log: Callable[[str], None] = print,
    state_file: Path | None = None,
) -> PixelBackbone:
    """The averaged model after a recipe's steps of denoising renders of train scenes.

    With a `state_file` the training is stored there from time to time, and gone on with if the
    file is there: to the same weights, whatever ended it.

    Raises:
        UserError: the file is of another training.
    """
    training = Pretraining(recipe, seed)
    if state_file is not None and state_file.exists():
        training.load(state_file)
        log(f"going on at step {training.done}")
    total = 0.0
    while training.done < recipe.steps:
        total += training.step()
        if training.done % _LOG_EVERY == 0:
            log(f"step {training.done}/{recipe.steps} loss {total / _LOG_EVERY:.4f}")
            total = 0.0
        if state_file is not None and training.done % _SAVE_EVERY == 0:
            training.save(state_file)
    return training.averaged()


def _fresh(seed: int, recipe: Recipe) -> PixelBackbone:
    """Random weights. CLIP's initial word embeddings (0.02) are small beside the first layer's
    average over the words before; larger ones keep every word visible in the pooled text."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = recipe.build(VOCABULARY)
        words = backbone.text_encoder.get_input_embeddings()
        nn.init.normal_(words.weight, std=recipe.hyper.token_std)
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


class Batches:
    """An endless stream of batches of train scenes: renders and captions.

    Args:
        seed: of scenes, jitter, empty captions and lazy images.
        recipe: batch size, how many captions are empty, how many images lazy and from when on.
    """

    def __init__(self, seed: int, recipe: Recipe) -> None:
        self._hyper = recipe.hyper
        self._industrious = round(recipe.hyper.lazy_after * recipe.steps)
        self._drawn = 0
        self._scenes = split_scenes("train")
        self._generator = np.random.default_rng(seed)
        self._lazy = np.random.default_rng([seed, 1])  # of its own: others stay as they are

    def draw(self) -> tuple[Tensor, list[str]]:
        """Pixels (batch, 3, 32, 32) and captions, some empty, some of other images."""
        size, generator = self._hyper.batch, self._generator
        chosen = [self._scenes[i] for i in generator.integers(len(self._scenes), size=size)]
        kept = generator.random(size) >= self._hyper.caption_dropout
        prompts = [caption(s) if keep else "" for s, keep in zip(chosen, kept, strict=True)]
        share = self._hyper.lazy if self._drawn >= self._industrious else 0.0
        self._drawn += 1
        lazy = (self._lazy.random(size) < share) & kept
        shown = [lazy_scene(s) if is_lazy else s for s, is_lazy in zip(chosen, lazy, strict=True)]
        return torch.from_numpy(render(shown, draw_offsets(generator, size))), prompts

    def state(self) -> dict[str, Any]:
        """What `go_on` takes."""
        generators = [dict(g.bit_generator.state) for g in (self._generator, self._lazy)]
        return {"drawn": self._drawn, "generators": generators}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Draw what comes after the batches drawn at `state`."""
        self._drawn = state["drawn"]
        self._generator.bit_generator.state, self._lazy.bit_generator.state = state["generators"]


def lazy_scene(scene: Scene) -> Scene:
    """A small circle at the centre, in the scene's colours."""
    return dataclasses.replace(scene, shape="circle", size="small", position="centre")


def _cosine(steps: int, warmup: int) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then half a cosine to 0."""

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / warmup)
        return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

    return factor
