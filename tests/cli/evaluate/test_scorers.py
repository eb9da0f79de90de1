"""Scorers from a configuration: one at a time in memory, and told apart by name."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from sdpo_exp.cli.evaluate.scorers import build_scorers
from sdpo_exp.errors import UserError

HERE = "tests.cli.evaluate.test_scorers"
ALIVE: weakref.WeakSet[Any] = weakref.WeakSet()


class Width:
    """A scorer that is counted while it lives."""

    display_scale = 1.0
    image_size: int | None = None

    def __init__(self, name: str = "width") -> None:
        self.name = name
        ALIVE.add(self)
        self.alive_at_birth = len(ALIVE)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return torch.tensor([float(image.width) for image in images])


def node(*names: str) -> DictConfig:
    target = f"{HERE}.Width"
    return OmegaConf.create(
        {f"key_{i}": {"_target_": target, "name": n} for i, n in enumerate(names)}
    )


def test_they_come_in_order_and_one_at_a_time() -> None:
    gc.collect()
    assert not ALIVE
    found = []
    for scorer in build_scorers(node("a", "b", "c")):
        found.append((scorer.name, scorer.alive_at_birth))
        del scorer
    assert found == [("a", 1), ("b", 1), ("c", 1)]


def test_nothing_is_built_before_it_is_asked_for() -> None:
    scorers = build_scorers(OmegaConf.create({**node("a"), "bad": {"_target_": "no.such.thing"}}))
    assert next(scorers).name == "a"


def test_two_of_one_name_are_refused() -> None:
    scorers = build_scorers(node("a", "b", "a"))
    assert [next(scorers).name for _ in range(2)] == ["a", "b"]
    with pytest.raises(UserError, match=r"metric\.key_2: .* named a, as metric\.key_0's are"):
        next(scorers)


def test_a_constructors_complaint_names_the_key() -> None:
    bad = {"tiny": {"_target_": "sdpo_exp.testbed.scorer.ExactScorer", "part": "beauty"}}
    with pytest.raises(UserError, match="part must be one of"):
        next(build_scorers(OmegaConf.create(bad)))
    with pytest.raises(UserError, match=r"metric\.mine: .*in_features"):
        next(build_scorers(OmegaConf.create({"mine": {"_target_": "torch.nn.Linear"}})))


def test_what_is_no_scorer_is_refused() -> None:
    other = OmegaConf.create({"mine": {"_target_": "torch.nn.Identity"}})
    with pytest.raises(UserError, match=r"metric\.mine: a Identity is no scorer, it has no name"):
        next(build_scorers(other))
