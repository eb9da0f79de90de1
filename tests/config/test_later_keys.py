"""A key that came later changes no hash where it is left alone, and every hash where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from sdpo_exp.cli.train.changes import differing
from sdpo_exp.config.cell_name import config_hash, register_resolvers
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.config.flat import flatten
from sdpo_exp.config.later_keys import LATER_KEYS, without_later_keys
from sdpo_exp.shaping import shapes

register_resolvers()


def digest(*overrides: str) -> str:
    config = compose_cell("train", list(overrides)).config
    assert config is not None
    return config_hash(config)


def test_the_defaults_are_those_of_the_configuration() -> None:
    from omegaconf import OmegaConf

    for key, harmless in LATER_KEYS.items():
        config = compose_cell("train", where(key)).config
        assert config is not None
        assert OmegaConf.select(config, key, default="missing") == harmless[0], key


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "4451eca4"),
        (["model=sdxl", "objective=dmpo"], "1480868b"),
        (["callbacks=[default,best,ema]", "safeguard=off"], "ac51d491"),
        (["model=sd15", "tuning=lora", "callbacks=[winner_loss]"], "504a5a39"),
    ],
    ids=str,
)
def test_hashes_are_those_of_before_there_were_later_keys(
    overrides: list[str], expected: str
) -> None:
    assert digest(*overrides) == expected


OTHERS = {
    "schedule": "linear",
    "timesteps.min": "1",
    "timesteps.max": "500",
    "max_time": "2h",
    "callbacks.checkpoint.every_n_minutes": "5",
    "callbacks.checkpoint.keep_last": "2",
    "callbacks.progress.every_seconds": "5",
    "data.train.columns.preferred": "choice",
    "data.train.columns.values": "{a: image_0}",
    "data.train.template": "'a photo of {caption}'",
    "data.cache": "cache",
    "model.base": "another",
    "data.validation.template": "'a photo of {caption}'",
    "data.train.base": "another",
    "data.validation.base": "another",
    "data.train.k": "2",
    "data.train.min_gap": "0.1",
    "data.train.label_noise": "0.1",
    "data.train.label_noise_seed": "1",
    "data.validation.k": "2",
    "data.validation.min_gap": "0.1",
}
SAMPLED = ("base", "k", "min_gap", "label_noise", "label_noise_seed")


def where(key: str) -> list[str]:
    """A choice of configurations that has the key."""
    if key.startswith("data.train.columns."):
        return ["data=hf_pairs", "data.train.path=pairs"]
    if key.startswith("data.") and key.rpartition(".")[2] in SAMPLED:
        return ["data=tiny_sampled"]
    return ["data=folder", "data.train.path=pairs"] if key.startswith("data.") else []


@pytest.mark.parametrize("key", LATER_KEYS)
def test_another_value_is_another_cell(key: str) -> None:
    cell = where(key)
    for value in LATER_KEYS[key]:
        assert digest(*cell, f"{key}={'null' if value is None else value}") == digest(*cell)
    assert digest(*cell, f"{key}={OTHERS[key]}") != digest(*cell)


def test_only_what_is_emptied_goes() -> None:
    tree: dict[str, Any] = {
        "schedule": "constant",
        "timesteps": {"min": 0, "max": 5},
        "callbacks": {},
    }
    assert without_later_keys(tree) == {"timesteps": {"max": 5}, "callbacks": {}}
    assert without_later_keys({"timesteps": {"min": 0, "max": None}}) == {}
    assert without_later_keys({"timesteps": {"min": False}}) == {"timesteps": {"min": False}}


def test_which_of_them_shape_a_training() -> None:
    shaping = {key for key in LATER_KEYS if shapes(key)}
    assert shaping == {
        "schedule",
        "timesteps.min",
        "timesteps.max",
        "model.base",
        *(k for k in LATER_KEYS if k.startswith("data.train")),
    }


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_end_shapes_a_training_whose_rate_goes_down_to_it(schedule: str) -> None:
    saved = {"schedule": schedule, "max_steps": 10}
    expected = [] if schedule == "constant" else ["max_steps"]
    assert differing(saved, {**saved, "max_steps": 20}) == expected


def test_a_run_from_before_a_key_has_its_default() -> None:
    defaults = {key: harmless[0] for key, harmless in LATER_KEYS.items()}
    before = {**defaults, **flatten({"lr": 1.0})}
    now = {**before, "timesteps.max": 500}
    assert differing(before, now) == ["timesteps.max"]
