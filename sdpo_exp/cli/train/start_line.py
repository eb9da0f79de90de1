"""What a run says first: the numbers it runs with, and what its recipe has where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.train.resuming import Resumed
from sdpo_exp.cli.train.run_record import own_config_dir
from sdpo_exp.config.command_line import given_keys
from sdpo_exp.config.composition import compose_beside

# The key of a value that a recipe may set, and how it is written.
_TOLD = {
    "objective.beta": "beta={:g}",
    "objective.alpha": "alpha={:g}",
    "safeguard.mu": "mu={:g}",
    "safeguard.weight": "weight={:g}",
    "lr": "lr={:g}",
    "warmup_steps": "warm-up {} steps",
    "effective_batch": "effective batch {}",
    "max_steps": "{} steps",
}


def start_lines(config: DictConfig, resumed: Resumed | None) -> Iterator[str]:
    """The lines, in the order of their weight."""
    given = [str(word) for word in HydraConfig.get().overrides.task]
    yield from _numbers(config, given)
    if resumed is not None:
        yield f"resuming at step {resumed.step} from {resumed.checkpoint}"
        yield from (f"  changed: {line}" for line in resumed.changes)
    yield from (f"note: {note}" for note in notes(config, given))


def notes(config: DictConfig, given: Sequence[str]) -> Iterator[str]:
    """What a reader of the numbers should know; nothing about values that were given."""
    keys = given_keys(given)
    if config.recipe.source is not None and _choice("tuning") != "full" and "lr" not in keys:
        yield "the recipe's learning rate is one of full tuning; give lr for adapters"
    if config.recipe.note and not {"recipe.beta", "objective.beta"} & keys:
        yield str(config.recipe.note)
    reached = config.max_steps / config.warmup_steps if config.warmup_steps else 1.0
    if reached < 1:
        yield (
            f"warm-up of {config.warmup_steps} steps is longer than the run: the learning rate "
            f"ends at {100 * reached:.2g} % of {config.lr:g}; warmup_steps says how long it is"
        )


def _numbers(config: DictConfig, given: Sequence[str]) -> Iterator[str]:
    published = compose_beside("train", _choices_among(given), own_config_dir())
    source = config.recipe.source
    yield f"recipe: {source}" if source else "no published recipe for this cell; using"
    yield "  " + ", ".join(_values(config, published if published is not None else config))


def _choices_among(given: Sequence[str]) -> list[str]:
    """The words that choose groups, without those that set values."""
    groups = set(map(str, HydraConfig.get().runtime.choices))
    return [word for word in given if word.lstrip("+").partition("=")[0] in groups]


def _values(config: DictConfig, published: DictConfig) -> Iterator[str]:
    for key, form in _TOLD.items():
        value, theirs = _value(config, key), _value(published, key)
        if value is None or (key == "warmup_steps" and value == theirs):
            continue
        told = form.format(value)
        if theirs is not None and theirs != value:
            told += f" [recipe {theirs:g}]"
        yield told
    yield from _departures(config)


def _departures(config: DictConfig) -> Iterator[str]:
    """Of what most trainings leave as it is."""
    if config.schedule != "constant":
        yield f"{config.schedule} schedule down to 0 at step {config.max_steps}"
    low, high = config.timesteps.min, config.timesteps.max
    if low or high is not None:
        yield f"timesteps from {low} to {'the last' if high is None else high - 1}"
    if config.max_time is not None:
        yield f"at most {config.max_time}"


def _value(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key, default=None)


def _choice(group: str) -> str:
    return str(HydraConfig.get().runtime.choices[group])
