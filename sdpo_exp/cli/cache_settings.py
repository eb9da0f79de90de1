"""Which keys of a configuration shape a cache of frozen work, and what no cache can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.signatures import read_signature
from sdpo_exp.data.cache_card import read_card, refuse_unlike
from sdpo_exp.errors import UserError

_MODEL = ("_target_", "variant", "vae", "empty_prompt", "vae_dtype", "text_dtype")
_CROP = "sdpo_exp.data.transform.PairCrop"
_STREAM = "sdpo_exp.data.stream.StreamPairs"
_FIXED = {"crop": "center", "flip": "off"}


def settings_of(config: DictConfig) -> dict[str, Any]:
    """The keys that shape a cache by their dotted names; weights and pairs are known by hashes."""
    found = {f"model.{key}": config.model.get(key) for key in _MODEL if key in config.model}
    found |= {"resolution": config.resolution}
    transform = config.data.get("transform")
    if transform is not None:
        plain: Any = OmegaConf.to_container(transform, resolve=True)
        found["resolution"] = plain.pop("resolution", config.resolution)
        found |= {f"data.transform.{key}": value for key, value in plain.items()}
    return found | {"data.max_aspect_gap": config.data.get("max_aspect_gap")}


def uncachable(config: DictConfig) -> list[str]:
    """Why the frozen work of a training cannot be kept; empty where it can.

    A model in pixels, images that differ from epoch to epoch, or pairs without a last row.
    """
    return [*_model(config), *_transform(config), *_source(config)]


def cache_mistakes(config: DictConfig) -> list[str]:
    """What is wrong with `data.cache`, as far as files without tensors tell."""
    cache = config.data.get("cache")
    if cache is None:
        return []
    if found := uncachable(config):
        return found
    try:
        return refuse_unlike(Path(cache), read_card(Path(cache)), settings_of(config))
    except UserError as error:
        return [str(error)]


def _model(config: DictConfig) -> list[str]:
    target = str(config.model.get("_target_"))
    if not target.startswith("sdpo_exp.") or "frozen_files" in read_signature(target).methods:
        return []
    return [
        f"model: {target.rpartition('.')[2]} has no VAE, so there is nothing to keep in a cache; "
        "leave data.cache=null, or take a model of latents, such as model=sd15"
    ]


def _transform(config: DictConfig) -> list[str]:
    transform = config.data.get("transform")
    if transform is None:
        return []
    if (target := transform.get("_target_")) != _CROP:
        return [
            f"data.transform: whether {target} draws random numbers is not known; a cache takes "
            f"{_CROP}, or data that come as pixels"
        ]
    return [
        f"data.transform.{key}={transform.get(key)}: differs from epoch to epoch, and a cache "
        f"holds each image once; give data.transform.{key}={fixed}, or train without data.cache"
        for key, fixed in _FIXED.items()
        if transform.get(key) != fixed
    ]


def _source(config: DictConfig) -> list[str]:
    if str(config.data.train.get("_target_")) != _STREAM:
        return []
    return [
        "data.train: an endless stream has no rows that a cache could hold; use a table, such as "
        "data=pickapic_v2 or data=hf_pairs"
    ]
