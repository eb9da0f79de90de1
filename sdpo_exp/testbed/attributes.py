"""What a scene of the world consists of, and which scenes are kept for what.

A scene has five attributes: 5 shapes x 2 sizes x 8 foregrounds x 7 backgrounds (any palette colour
but the foreground's) x 5 positions = 2,800 scenes. Free of torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SHAPES = ("circle", "square", "triangle", "cross", "diamond")
SIZES = ("small", "large")
POSITIONS = ("top left", "top right", "bottom left", "bottom right", "centre")

# sRGB in [0, 1], at least 0.6 apart. Mixtures of two can lie nearest to a third (red and blue to
# magenta); only the one-pixel rim of a shape is such a mixture, so it never outnumbers the inside.
PALETTE: Mapping[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.10, 0.20, 0.90),
    "yellow": (0.95, 0.90, 0.10),
    "cyan": (0.10, 0.85, 0.90),
    "magenta": (0.90, 0.15, 0.85),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.05),
}
COLOURS = tuple(PALETTE)

VALUES: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "size": SIZES,
    "foreground": COLOURS,
    "background": COLOURS,
    "position": POSITIONS,
}
ATTRIBUTES = tuple(VALUES)

# Of the 56 colour pairs of each (shape, size, position): 50 x 8 test and 50 x 5 validation scenes.
_TEST_PER_CELL, _VALIDATION_PER_CELL = 8, 5


@dataclasses.dataclass(frozen=True, order=True)
class Scene:
    """One scene; each field is a value of `VALUES`, and the two colours differ.

    Raises:
        ValueError: a value is unknown, or foreground and background are the same.
    """

    shape: str
    size: str
    foreground: str
    background: str
    position: str

    def __post_init__(self) -> None:
        for name, values in VALUES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {values}, got {getattr(self, name)!r}")
        if self.foreground == self.background:
            raise ValueError(f"foreground and background are both {self.foreground!r}")

    @property
    def indices(self) -> tuple[int, ...]:
        """Index of each attribute's value in `VALUES`, in the order of `ATTRIBUTES`."""
        return tuple(VALUES[name].index(getattr(self, name)) for name in ATTRIBUTES)


def differing(first: Scene, second: Scene) -> tuple[str, ...]:
    """Names of the attributes in which two scenes differ, in the order of `ATTRIBUTES`."""
    return tuple(name for name in ATTRIBUTES if getattr(first, name) != getattr(second, name))


def alternatives(scene: Scene, attribute: str) -> tuple[str, ...]:
    """Values that `attribute` could take instead, such that the result is still a scene."""
    taken = {getattr(scene, attribute)}
    if attribute in ("foreground", "background"):
        taken |= {scene.foreground, scene.background}
    return tuple(value for value in VALUES[attribute] if value not in taken)


@lru_cache(maxsize=1)
def all_scenes() -> tuple[Scene, ...]:
    """The 2,800 scenes in a fixed order."""
    combinations = itertools.product(*VALUES.values())
    return tuple(Scene(*values) for values in combinations if values[2] != values[3])


@lru_cache(maxsize=len(SPLITS))
def split_scenes(split: Split) -> tuple[Scene, ...]:
    """Scenes of a split: 2,150 train, 250 validation, 400 test, disjoint, the same in every run.

    Within each (shape, size, position) the colour pairs are dealt out in the order of a hash, so
    these three attributes are exactly balanced in each split and the colours nearly so. The result
    is in hash order too: any prefix is a mixed sample.
    """
    cells: dict[tuple[str, str, str], list[Scene]] = {}
    for scene in sorted(all_scenes(), key=_hash):
        cells.setdefault((scene.shape, scene.size, scene.position), []).append(scene)
    first, second = _TEST_PER_CELL, _TEST_PER_CELL + _VALIDATION_PER_CELL
    bounds = {"test": slice(0, first), "validation": slice(first, second)}
    kept = bounds.get(split, slice(second, None))
    return tuple(sorted((s for cell in cells.values() for s in cell[kept]), key=_hash))


def _hash(scene: Scene) -> str:
    return hashlib.sha256("|".join(dataclasses.astuple(scene)).encode()).hexdigest()
