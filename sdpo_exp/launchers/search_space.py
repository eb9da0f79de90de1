"""A search space in Hydra's own words: `key=interval(0.1,1)`, `choice(a,b)`, `range(1,9)`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from sdpo_exp.errors import UserError, first_line

Value = float | int | str


class Suggests(Protocol):
    """The part of an Optuna trial that an axis needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """A number of an interval or a grid."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """The same in whole numbers."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """One of a few."""


@dataclass(frozen=True)
class Axis:
    """One swept key.

    Args:
        key: as the command line has it, with `+` or `@package` where those were given.
        kind: how it is drawn.
        low: first value, where it is a number.
        high: last value, itself included.
        step: distance of values; None for all numbers between.
        log: whether the logarithm is drawn evenly.
        choices: as overrides spell them.
    """

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: tuple[str, ...] = ()

    def suggest(self, trial: Suggests) -> Value:
        """Draw a value."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, self.choices)
        if self.kind == "int":
            whole = int(self.low), int(self.high)
            return trial.suggest_int(self.key, *whole, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def override(self, value: Value) -> str:
        """The override that sets it; six digits are enough, and short in the names of folders."""
        return f"{self.key}={value:.6g}" if isinstance(value, float) else f"{self.key}={value}"

    def ends(self) -> list[Value]:
        """Every choice, or the first and the last number."""
        if self.kind == "choice":
            return list(self.choices)
        number = int if self.kind == "int" else float
        return [number(self.low), number(self.high)]


@dataclass(frozen=True)
class SearchSpace:
    """The axes of a search, and the overrides that all of its trials share."""

    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """Of one trial."""
        return [*self.fixed, *(axis.override(values[axis.key]) for axis in self.axes)]

    def corners(self) -> list[list[str]]:
        """Overrides of a few trials that show every mistake in a key or an end of a range."""
        first = {axis.key: axis.ends()[0] for axis in self.axes}
        others = [(axis.key, value) for axis in self.axes for value in axis.ends()[1:]]
        return [self.overrides(first), *(self.overrides(first | {k: v}) for k, v in others)]


def read_space(overrides: Sequence[str], params: Mapping[str, str] | None) -> SearchSpace:
    """The search space of a command line and of `hydra.sweeper.params`, whose keys it may repeat.

    Raises:
        UserError: a line that cannot be read, an interval with nothing in it, or no swept key.
    """
    given = {line.split("=", 1)[0] for line in overrides}
    extra = [f"{key}={value}" for key, value in (params or {}).items() if key not in given]
    axes, fixed = [], []
    for line in [*overrides, *extra]:
        try:
            override = OverridesParser.create().parse_override(line)
            swept = override.is_sweep_override()
            axes += [_axis(override, line)] if swept else []
            fixed += [] if swept else [line]
        except HydraException as error:
            raise UserError(f"{line}: {first_line(error)}") from None
    if not axes:
        raise UserError(
            "hydra/sweeper=optuna: nothing to search; give for example recipe.mu='interval(0.1,1)'"
        )
    return SearchSpace(tuple(axes), tuple(fixed))


def _axis(override: Override, line: str) -> Axis:
    value, key = override.value(), override.get_key_element()
    if isinstance(value, IntervalSweep):
        axis = _interval(key, value)
    elif isinstance(value, RangeSweep) and not value.shuffle:
        axis = _range(key, value)
    elif isinstance(value, ChoiceSweep | RangeSweep):
        axis = Axis(key, "choice", choices=tuple(override.sweep_string_iterator()))
    else:
        raise UserError(f"{line}: cannot be searched; use interval, range or choice")
    if axis.low > axis.high:
        raise UserError(f"{line}: nothing lies between {axis.low:g} and {axis.high:g}")
    if axis.log and axis.low <= 0:
        raise UserError(f"{line}: a logarithmic search must begin above 0")
    return axis


def _interval(key: str, value: IntervalSweep) -> Axis:
    low, high = value.start, value.end
    if low is None or high is None:
        raise UserError(f"{key}: an interval needs two ends")
    whole = isinstance(low, int) and isinstance(high, int)
    return Axis(key, "int" if whole else "float", low, high, log="log" in value.tags)


def _range(key: str, value: RangeSweep) -> Axis:
    """Hydra's range leaves its end out; Optuna's includes it, so the last value is given."""
    start, stop, step = value.start or 0, value.stop or 0, value.step
    if "log" in value.tags:
        raise UserError(f"{key}: a range has even steps; for a logarithmic search use interval")
    last = start + (max(1, math.ceil((stop - start) / step - 1e-9)) - 1) * step
    whole = all(isinstance(number, int) for number in (start, stop, step))
    return Axis(
        key, "int" if whole else "float", min(start, last), max(start, last), step=abs(step)
    )
