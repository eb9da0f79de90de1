"""From the `metric` node to scorers, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from sdpo_exp.cli.build import build
from sdpo_exp.errors import UserError
from sdpo_exp.protocols import Scorer


def build_scorers(node: DictConfig) -> Iterator[Scorer]:
    """The scorers of a `metric` node, each built when it is asked for.

    A scorer may hold 4 GB. This holds none that it has given out; so drop a scorer (`del`) before
    asking for the next one, and only one is in memory.

    Args:
        node: scorers by key.

    Raises:
        UserError: one cannot be built or is no scorer, or two have one name.
    """
    keys: dict[str, str] = {}
    for key in map(str, node):
        scorer = build(node[key], f"metric.{key}")
        name = _name_of(scorer, key)
        if name in keys:
            raise UserError(
                f"metric.{key}: its scores are named {name}, as metric.{keys[name]}'s are; leave "
                "one out"
            )
        keys[name] = key
        yield scorer
        del scorer


def _name_of(scorer: Scorer, key: str) -> str:
    needed = ("name", "display_scale", "image_size", "score")
    if lacks := [attribute for attribute in needed if not hasattr(scorer, attribute)]:
        raise UserError(
            f"metric.{key}: a {type(scorer).__name__} is no scorer, it has no {', '.join(lacks)}"
        )
    return scorer.name
