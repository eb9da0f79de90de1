"""Checks that the drawing commands share; only `absent_for_drawing` takes time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.checkpoints.model_choice import ModelChoice, absent, problems
from sdpo_exp.config.check import check_keys, check_node

GROUPS = ("prompts", "metric")


def is_chosen(config: DictConfig, group: str) -> bool:
    """Whether an optional group was chosen."""
    return isinstance(config.get(group), DictConfig) and bool(config[group])


def check_draws(config: DictConfig, keys: Mapping[str, Any]) -> list[str]:
    """Unknown keys, types and ranges, rules between them, and a model that is not there."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key not in GROUPS])
    found = check_keys(own, keys)
    for group in GROUPS:
        if is_chosen(config, group):
            found += list(check_node(config[group], group))
    if found:
        return found
    return [*_rules(config), *problems(ModelChoice.of(config))]


def _rules(config: DictConfig) -> Iterator[str]:
    if config.negative_prompt and config.guidance == 1.0:
        yield "negative_prompt: has no effect at guidance=1; raise guidance, or leave it"
    if config.noise == "prompt" and config.noise_device is not None:
        yield "noise_device: noise=prompt is drawn on the CPU; leave it, or give noise=shared"
    if config.device == "cpu" and config.noise_device == "cuda":
        yield "noise_device=cuda: there is no CUDA under device=cpu"
    if config.sampler is not None:
        unknown = sorted(set(config.sampler) - {"name", "options"})
        if unknown or not isinstance(config.sampler.get("name"), str):
            yield "sampler: give {name: <a scheduler of diffusers>, options: {<its options>}}"


def absent_for_drawing(config: DictConfig) -> list[str]:
    """Models, prompt sets and scorers that are not here and cannot be fetched."""
    from sdpo_exp.config.sources import absent_sources

    groups = [group for group in GROUPS if is_chosen(config, group)]
    return [*absent(ModelChoice.of(config)), *absent_sources(config, groups)]
