"""Signatures read from source are those that Python would see."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config import conf_dir
from sdpo_exp.config.schema import type_problem
from sdpo_exp.config.signatures import UNKNOWN, TargetError, read_signature
from tests.config.made_up import accepted, read_instead


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
    read, real = read_signature(target), accepted(target)
    assert not read.open_ended
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


PACKAGE = {
    "base": """
import torch
class Base:
    @classmethod
    def load(cls, source: str, size: int = 3) -> "Base": ...
    def weights(self) -> None: ...
""",
    "child": """
from typing import Literal
from sdpo_exp.base import Base as Root
Version = Literal["a", "b"]
class Child(Root):
    def __init__(self, model: object) -> None: ...
    @classmethod
    def other(cls, version: Version, *, device: torch.device | None = None) -> "Child": ...
    def method(self) -> None: ...
    @staticmethod
    def free(x: int) -> None: ...
""",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with a class and its child, in files of their own; torch is not there."""
    with read_instead(tmp_path, PACKAGE, monkeypatch):
        yield


@pytest.mark.usefixtures("package")
def test_a_classmethod_is_read_without_its_class_parameter() -> None:
    found = read_signature("sdpo_exp.child.Child.other")
    assert list(found.parameters) == ["version", "device"]
    assert typing.get_args(found.parameters["version"].annotation) == ("a", "b")
    assert [p.required for p in found.parameters.values()] == [True, False]
    assert {"other", "method"} <= found.methods
    assert list(read_signature("sdpo_exp.child.Child").parameters) == ["model"]


@pytest.mark.usefixtures("package")
def test_a_classmethod_may_be_inherited() -> None:
    found = read_signature("sdpo_exp.child.Child.load")
    assert list(found.parameters) == ["source", "size"]
    assert "method" in found.methods
    assert read_signature("sdpo_exp.base.Base.load").methods == {"load", "weights"}


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sdpo_exp.child.Child.nothing", "sdpo_exp.child.Child has no nothing"),
        ("sdpo_exp.base.Base.nothing", "sdpo_exp.base.Base has no nothing"),
        ("sdpo_exp.child.Child.method", "Child.method is no classmethod"),
        ("sdpo_exp.child.Child.free", "Child.free is no classmethod"),
        ("sdpo_exp.child.Nobody.load", "no module sdpo_exp.child.Nobody"),
        ("sdpo_exp.nowhere.Child.load", "no module sdpo_exp.nowhere.Child"),
        ("sdpo_exp.nowhere.Child", "no module sdpo_exp.nowhere"),
        ("sdpo_exp.child.Nobody", "sdpo_exp.child has no Nobody"),
    ],
)
def test_what_cannot_build_anything_is_told(target: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        read_signature(target)
