"""Images of a whole prompt set: batched, on several devices, and gone on with where it stopped."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.model_choice import ModelChoice, OpenedModel, open_model
from sdpo_exp.errors import UserError

if TYPE_CHECKING:
    from sdpo_exp.cli.workers import Rank
    from sdpo_exp.generation.drawing import DrawSettings
    from sdpo_exp.generation.folder import ImageFolder
    from sdpo_exp.generation.noise import Draw
    from sdpo_exp.protocols import PromptSet

_log = logging.getLogger(__name__)
_PIXELS_AT_ONCE = 2**21
_MOST_AT_ONCE = 64
_SAYS_EVERY = 10  # batches, where there is no terminal


def generate_set(config: DictConfig, folder: Path) -> None:
    """Draw what is missing of `config.prompts` in `folder`, and write the manifest.

    Raises:
        UserError: model, prompts or folder cannot be used, or the user stopped it.
    """
    from sdpo_exp.cli.workers import count_devices, run_on_devices

    device = drawing_device(config)
    count = count_devices(device, config.devices)
    try:
        run_on_devices(draw_share, device, count, without_hydra(config), str(folder))
    except KeyboardInterrupt:
        raise UserError(
            f"interrupted; what is drawn stays. folder={os.path.relpath(folder)} in the same "
            "command goes on"
        ) from None


def drawing_device(config: DictConfig) -> str:
    """`cpu` or `cuda`, on which the protocol's noise can be drawn.

    Raises:
        UserError: there is no such device.
    """
    from sdpo_exp.cli.workers import resolve_device

    device = resolve_device(config.device)
    if config.noise_device == "cuda" and device == "cpu":
        raise UserError("noise_device=cuda: torch finds no CUDA device; give noise_device=cpu")
    return device


def without_hydra(config: DictConfig) -> dict[str, Any]:
    """The command's own values, resolved, as another process can take them."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain: Any = OmegaConf.to_container(own, resolve=True)
    return dict(plain)


def draw_share(rank: Rank, plain: dict[str, Any], folder: str) -> None:
    """What one process does: every `world`-th image, from its `rank` on."""
    from sdpo_exp.cli.build import build
    from sdpo_exp.generation.folder import ImageFolder

    config = OmegaConf.create(plain)
    quiet(config.torch_threads)
    prompt_set: PromptSet = build(config.prompts, "prompts")
    model = open_for_drawing(config, rank.device)
    store, settings = ImageFolder(Path(folder)), draw_settings(config)
    if rank.rank == 0:
        for remark in store.begin(describe(config, model, prompt_set, settings)):
            _log.info("note: %s", remark)
    rank.barrier()
    draws = list(draws_of(config, prompt_set))
    missing = store.missing(draws)
    rank.barrier()  # all have looked before anyone draws
    todo = missing[rank.rank :: rank.world]
    if rank.rank == 0:
        _log.info("%d of %d images to draw", len(missing), len(draws))
    _draw_all(model, todo, settings, store, config.batch, speaks=rank.rank == 0)
    rank.barrier()
    if rank.rank == 0:
        written = store.write_manifest(prompt_set.name, prompt_set.prompts())
        _log.info("images: %s (%d)", os.path.relpath(folder), written)


def quiet(threads: int) -> None:
    """Settings of torch, and libraries that keep their bars to themselves."""
    import diffusers
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()


def choice_of(config: DictConfig) -> ModelChoice:
    """The model that a command's keys name."""
    return ModelChoice(config.checkpoint, config.base, config.revision, config.vae)


def open_for_drawing(config: DictConfig, device: str, *, base_of_run: bool = False) -> OpenedModel:
    """The model with the sampler that the protocol names."""
    from sdpo_exp.generation.sampler import set_sampler

    model = open_model(choice_of(config), device, config.dtype, base_of_run=base_of_run)
    if config.sampler is not None:
        set_sampler(model.pipeline, config.sampler.name, config.sampler.get("options") or {})
    return model


def draw_settings(config: DictConfig) -> DrawSettings:
    """The protocol's values."""
    from sdpo_exp.generation.drawing import DrawSettings

    values = {name: config[name] for name in DrawSettings.__dataclass_fields__}
    return DrawSettings(**{**values, "guidance": float(config.guidance)})


def draws_of(config: DictConfig, prompt_set: PromptSet) -> Iterator[Draw]:
    """Every image, seed by seed."""
    from sdpo_exp.generation.noise import Draw

    for seed in range(config.seed, config.seed + (config.n or 1)):
        for prompt in prompt_set.prompts():
            yield Draw(prompt.text, prompt.index, seed)


def describe(
    config: DictConfig, model: OpenedModel, prompt_set: PromptSet, settings: DrawSettings
) -> dict[str, Any]:
    """The content of `generation.json`."""
    from sdpo_exp.cli.environment import describe_environment

    identity = dict(model.identity)
    return {
        "name": config.get("label") or choice_of(config).name,
        "model": identity,
        "prompts": describe_prompts(prompt_set),
        "protocol": describe_protocol(model, settings) | {"dtype": identity.pop("dtype")},
        "batch": config.batch or batch_for(model.pipeline, settings),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **describe_environment(),
    }


def describe_prompts(prompt_set: PromptSet) -> dict[str, Any]:
    """Name, hash and number."""
    return {
        "name": prompt_set.name,
        "sha256": prompt_set.fingerprint(),
        "n": len(prompt_set.prompts()),
    }


def describe_protocol(model: OpenedModel, settings: DrawSettings) -> dict[str, Any]:
    """The settings as they took effect, with the sampler's whole configuration."""
    from sdpo_exp.generation.sampler import sampler_config

    content = dict(vars(settings))
    if settings.noise == "shared" and settings.noise_device is None:
        content["noise_device"] = model.pipeline.device.type
    content["pipeline"] = type(model.pipeline).__name__
    return content | {"sampler": sampler_config(model.pipeline)}


def _draw_all(
    model: OpenedModel,
    todo: Sequence[Draw],
    settings: DrawSettings,
    store: ImageFolder,
    batch: int | None,
    *,
    speaks: bool,
) -> None:
    import torch

    from sdpo_exp.generation.drawing import as_pictures, draw_batch

    size = batch or batch_for(model.pipeline, settings)
    for group in progress(chunks(todo, size), "images", speaks=speaks):
        try:
            images = draw_batch(model.pipeline, group, settings)
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                f"batch={size}: the device's memory is too small for so many images at once; give "
                "a smaller batch. What is drawn stays."
            ) from None
        for draw, picture in zip(group, as_pictures(images), strict=True):
            store.save(draw, picture)


def batch_for(pipeline: Any, settings: DrawSettings) -> int:
    """64 images of 128 pixels or less a side, 8 of 512, 2 of 1024."""
    from sdpo_exp.generation.noise import denoiser_of

    scale = int(getattr(pipeline, "vae_scale_factor", 1))
    own = denoiser_of(pipeline).config.get("sample_size") or 64
    side = scale * int(own if isinstance(own, int) else max(own))
    pixels = (settings.height or side) * (settings.width or side)
    return max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // pixels))


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Consecutive parts of `size` items, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def progress(groups: list[Any], what: str, *, speaks: bool) -> Iterator[Any]:
    """The groups, under a bar on a terminal and with a line now and then elsewhere."""
    from tqdm import tqdm

    if speaks and sys.stderr.isatty():
        yield from tqdm(groups, desc=what, unit="batch", dynamic_ncols=True)
        return
    for number, group in enumerate(groups, 1):
        yield group
        if speaks and number % _SAYS_EVERY == 0:
            _log.info("%s: %d of %d batches", what, number, len(groups))
