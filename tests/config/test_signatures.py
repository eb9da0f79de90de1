"""Signatures read from source are those that Python would see."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config import conf_dir
from sdpo_exp.config.schema import type_problem
from sdpo_exp.config.signatures import UNKNOWN, TargetError, read_signature


def own_targets() -> list[str]:
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, DictConfig):
            target = node.get("_target_")
            if isinstance(target, str) and target.startswith("sdpo_exp."):
                found.add(target)
            for key in node:
                walk(node._get_node(key))

    for path in Path(conf_dir()).rglob("*.yaml"):
        walk(OmegaConf.load(path))
    return sorted(found)


@pytest.mark.parametrize("target", own_targets())
def test_it_agrees_with_the_imported_class(target: str) -> None:
    read, real = read_signature(target), inspect.signature(get_class(target)).parameters
    assert list(read.parameters) == list(real)
    for name, parameter in read.parameters.items():
        assert parameter.required == (real[name].default is inspect.Parameter.empty), name


def test_annotations_keep_their_ranges() -> None:
    mu = read_signature("sdpo_exp.safeguard.PreserveWinner").parameters["mu"].annotation
    assert type_problem(0.5, mu) is None
    assert type_problem(1, mu) is None
    assert "less than or equal to 1" in str(type_problem(1.5, mu))
    assert "valid number" in str(type_problem("high", mu))
    assert "got True" in str(type_problem(True, mu))


def test_aliases_are_followed_within_and_between_files() -> None:
    scope = read_signature("sdpo_exp.safeguard.PreserveWinner").parameters["scope"].annotation
    assert typing.get_args(scope) == ("microbatch", "pair", "global")
    split = read_signature("sdpo_exp.testbed.pairs.SyntheticPairs").parameters["split"].annotation
    assert typing.get_args(split) == ("train", "validation", "test")


def test_what_needs_an_import_is_left_open() -> None:
    parameters = read_signature("sdpo_exp.data.datamodule.PairDataModule").parameters
    assert parameters["train"].annotation is UNKNOWN


def test_methods_and_inheritance_are_seen() -> None:
    assert "weights" in read_signature("sdpo_exp.objectives.dpo.DPO").methods
    assert "weights" not in read_signature("sdpo_exp.objectives.dspo.DSPO").methods
    inherited = read_signature("sdpo_exp.callbacks.winner_loss.WinnerLossTrajectory")
    assert list(inherited.parameters) == ["every_n_steps"]


@pytest.mark.parametrize("target", ["sdpo_exp.objectives.dpo.DPOO", "sdpo_exp.nowhere.Thing"])
def test_a_target_that_does_not_exist_is_told(target: str) -> None:
    with pytest.raises(TargetError):
        read_signature(target)
