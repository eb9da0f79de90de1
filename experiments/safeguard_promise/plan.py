"""What the study runs: worlds, objectives, rules, and the tries that each rule may spend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

Words = tuple[str, ...]

COMMON: Words = (
    *("data=tiny_sampled", "data.train.min_gap=0.1", "evaluation=off"),
    *("callbacks=[default,audit]", "callbacks.probe.every_n_steps=120"),
)


class World(NamedTuple):
    """A model of the embedded world, and how its images are drawn when they are judged."""

    model: Literal["tiny", "tiny_flow"]
    steps: int
    guidance: float = 2.0


WORLDS: Mapping[str, World] = {"flow": World("tiny_flow", 16), "diffusion": World("tiny", 8)}
BASES = Path("outputs/lazy")  # of README.md's first commands: bases, and pairs of their samples


def base_of(world: str) -> Path:
    """Folder of the world's base."""
    return BASES / WORLDS[world].model


def pairs_of(world: str) -> Path:
    """Pairs as in life: the best against the worst of four of the base's own samples."""
    return BASES / f"{WORLDS[world].model}_pairs"


SEEDS = (0, 1, 2, 3, 4)
MU = tuple(f"safeguard.mu={mu}" for mu in (0.0, 0.2, 0.6, 0.9))
RATES = ("lr=1e-4", "lr=2e-4")
FOUR_RATES = ("lr=5e-5", "lr=1e-4", "lr=2e-4", "lr=4e-4")


class Rule(NamedTuple):
    """A row of the tables: what is fixed, and eight settings to choose from."""

    fixed: Words
    tries: tuple[Words, ...]


def _by_mu(name: str) -> Rule:
    return Rule((f"safeguard={name}",), tuple(product(RATES, MU)))


def _by(name: str, key: str, values: tuple[float, ...]) -> Rule:
    words = tuple(f"safeguard.{key}={value}" for value in values)
    return Rule((f"safeguard={name}",), tuple(product(RATES, words)))


RULES: Mapping[str, Rule] = {
    "off": Rule(
        ("safeguard=off",),
        tuple(product(FOUR_RATES, ("objective.beta=200", "objective.beta=1000"))),
    ),
    "sft": Rule(
        ("objective=sft", "safeguard=off"),
        tuple((f"lr={lr}",) for lr in (5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 4e-4, 6e-4, 8e-4)),
    ),
    "constant": _by("constant", "weight", (0.1, 0.25, 0.5, 0.75)),
    "on": _by_mu("on"),
    "pair": _by_mu("pair"),
    "weighted": _by_mu("weighted"),
    "projection": _by("projection", "mu", (0.25, 0.5, 1.0, 2.0)),
    "parameter": _by_mu("parameter"),
    "optimizer": _by_mu("optimizer"),
    "last_layers": _by_mu("last_layers"),
    "momentum_free": _by_mu("momentum_free"),
    "budget": _by("budget", "rate", (0.5, 1.0, 2.0, 4.0)),
    "backtracking": Rule(
        ("safeguard=backtracking",),
        tuple(product(FOUR_RATES, ("safeguard.tries=3", "safeguard.tries=6"))),
    ),
}
# Objectives beside dpo are asked of the rules that the verdict turns on.
OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "dpo": tuple(RULES),
    "dmpo": ("off", "constant", "on", "parameter", "optimizer"),
}


class Cell(NamedTuple):
    """One row of a table."""

    world: str
    objective: str
    rule: str

    @property
    def words(self) -> Words:
        """Overrides that all of its runs share."""
        chosen = () if self.rule == "sft" else (f"objective={self.objective}",)
        start = (f"model={WORLDS[self.world].model}", f"model.pretrained={base_of(self.world)}")
        pairs = (f"data.train.folder={pairs_of(self.world)}",)
        return (*start, *COMMON, *pairs, *chosen, *RULES[self.rule].fixed)


def cells(worlds: tuple[str, ...], objectives: tuple[str, ...]) -> Iterator[Cell]:
    """The rows of the study."""
    for world, objective in product(worlds, objectives):
        for rule in OBJECTIVES[objective]:
            yield Cell(world, objective, rule)
