"""What one prompt and a whole set of them share: the model, the protocol, and their description."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from sdpo_exp.cli.checkpoints.model_choice import ModelChoice, OpenedModel, open_model
from sdpo_exp.cli.workers import resolve_device
from sdpo_exp.errors import UserError
from sdpo_exp.generation.drawing import DrawSettings
from sdpo_exp.generation.noise import denoiser_of
from sdpo_exp.generation.sampler import sampler_config, set_sampler

_PIXELS_AT_ONCE = 2**21
_MOST_AT_ONCE = 64


def drawing_device(config: DictConfig) -> str:
    """`cpu` or `cuda`, on which the protocol's noise can be drawn.

    Raises:
        UserError: there is no such device.
    """
    device = resolve_device(config.device)
    if config.noise_device == "cuda" and device == "cpu":
        raise UserError("noise_device=cuda: torch finds no CUDA device; give noise_device=cpu")
    return device


def open_for_drawing(config: DictConfig, device: str, *, base_of_run: bool = False) -> OpenedModel:
    """The model with the sampler that the protocol names."""
    model = open_model(ModelChoice.of(config), device, config.dtype, base_of_run=base_of_run)
    if config.sampler is not None:
        set_sampler(model.pipeline, config.sampler.name, config.sampler.get("options") or {})
    return model


def draw_settings(config: DictConfig) -> DrawSettings:
    """The protocol's values."""
    values = {name: config[name] for name in DrawSettings.__dataclass_fields__}
    return DrawSettings(**{**values, "guidance": float(config.guidance)})


def describe_protocol(model: OpenedModel, settings: DrawSettings) -> dict[str, Any]:
    """The settings as they took effect, with the sampler's whole configuration."""
    content = dict(vars(settings))
    if settings.noise == "shared" and settings.noise_device is None:
        content["noise_device"] = model.pipeline.device.type
    content["pipeline"] = type(model.pipeline).__name__
    return content | {"sampler": sampler_config(model.pipeline)}


def batch_size(config: DictConfig, model: OpenedModel) -> int:
    """As asked for; else 64 images of 128 pixels or less a side, 8 of 512, 2 of 1024."""
    if config.batch is not None:
        return int(config.batch)
    scale = int(getattr(model.pipeline, "vae_scale_factor", 1))
    told = getattr(model.pipeline, "latent_shape", None)  # of pipelines that are not diffusers'
    own = told(None, None)[1:] if told else denoiser_of(model.pipeline).config.get("sample_size")
    own = own or 64
    side = scale * int(own if isinstance(own, int) else max(own))
    pixels = (config.height or side) * (config.width or side)
    return max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // pixels))
