"""Cells' names: the words of a study, and what tells cells of equal words apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sdpo_exp.reports.html.runs import Run
from sdpo_exp.reports.html.settings import Settings, differing, named_keys, without_echoes
from sdpo_exp.shaping import is_plumbing

_TUNING = "tuning._target_"
_LONGEST = 24  # letters of a value
# Last parts of keys that say little without the part before.
_BARE = frozenset(
    (
        *("seed", "size", "min", "max", "n", "path", "name", "split", "folder", "weight"),
        *("steps", "dropout", "targets", "type", "value", "values", "part", "eps"),
    )
)
# Parts that add nothing, and the nodes whose keys are the study's own words.
_SILENT = frozenset({"train", "init_args"})
_OWN = frozenset({"objective", "safeguard", "recipe"})


@dataclass(frozen=True)
class Group:
    """Runs of one cell, before it has a name."""

    model: str
    data: str
    objective: str
    safeguard: str
    settings: Settings
    runs: tuple[Run, ...]

    @property
    def choices(self) -> tuple[str, str, str, str]:
        """Model, data, objective, safeguard."""
        return self.model, self.data, self.objective, self.safeguard


class Name(NamedTuple):
    """Words of one cell.

    Attributes:
        group: model and data, for a heading; empty where all cells share both.
        start: the same as the beginning of a name.
        row: objective and what belongs to it; unique together with `start` and `column`.
        column: safeguard and what belongs to it.
    """

    group: str
    start: str
    row: str
    column: str


def names_of(groups: Sequence[Group]) -> list[Name]:
    """A name of each.

    First what a study is about; how runs were fed and executed only where that leaves two alike.
    """
    names = []
    for group in groups:
        alike = [other for other in groups if other.choices == group.choices]
        row, column = _extras(group, alike)
        words = " ".join([group.objective, *row]), " ".join([group.safeguard, *column])
        names.append(Name(*_start(group, groups), *words))
    return _unique(_told_apart(names, groups))


def _told_apart(names: Sequence[Name], groups: Sequence[Group]) -> list[Name]:
    """Names that are alike, with all keys in which their cells differ."""
    found = []
    for name, group in zip(names, groups, strict=True):
        alike = [other for own, other in zip(names, groups, strict=True) if own == name]
        row, column = _extras(group, alike, all_keys=True)
        words = " ".join([name.row, *row]), " ".join([name.column, *column])
        found.append(Name(name.group, name.start, *words))
    return found


def _unique(names: Sequence[Name]) -> list[Name]:
    """Numbered where words do not tell them apart."""
    seen: Counter[tuple[str, ...]] = Counter()
    unique = []
    for name in names:
        said = tuple(name[1:])
        seen[said] += 1
        unique.append(name if seen[said] == 1 else name._replace(row=f"{name.row} ({seen[said]})"))
    return unique


def _start(group: Group, groups: Sequence[Group]) -> tuple[str, str]:
    """Heading and beginning of a name: the model and the data in which cells differ."""
    several = len({(other.model, other.data) for other in groups}) > 1
    if not several:
        return "", ""
    models = {other.model for other in groups}
    own = {other.data for other in groups if other.model == group.model}
    heading = f"{group.model} on {group.data}" if group.data else group.model
    words = [group.model] if len(models) > 1 else []
    if len(own) > 1 and group.data not in (*words, ""):
        words.append(group.data)
    return heading, " ".join(words)


def _extras(
    group: Group, alike: Sequence[Group], *, all_keys: bool = False
) -> tuple[list[str], list[str]]:
    columns = differing([other.settings for other in alike])
    named = named_keys(run for other in alike for run in other.runs)
    row: list[str] = []
    column: list[str] = []
    for echoes in without_echoes(columns, named).values():
        key = next((echo for echo in echoes if all_keys or not _unsaid(echo)), echoes[0])
        text = _said(key, group) if all_keys or not _unsaid(key) else None
        usual = columns[key].count(group.settings.get(key, "")) > len(alike) / 2
        if text is None or (usual and key != _TUNING):
            continue
        of_the_safeguard = any(echo.startswith("safeguard.") for echo in echoes)
        (column if of_the_safeguard else row).append(text)
    return list(dict.fromkeys(row)), list(dict.fromkeys(column))


def _unsaid(key: str) -> bool:
    return is_plumbing(key) and not key.startswith("evaluation.") and not key.endswith("_target_")


def _said(key: str, group: Group) -> str | None:
    """A value in words of the command line; None where it is not there."""
    value = group.settings.get(key)
    if value is None:
        return None
    first, *inner, last = key.split(".") if "." in key else ("", key)
    if last == "_target_":
        if first == "callbacks" and inner:
            return inner[0]
        chosen = _chosen(group, first, value)
        if key == _TUNING:
            return None if chosen == "full" else chosen
        return f"{first}={chosen}"
    short = value.rpartition("/")[2]
    if len(short) > _LONGEST:
        short = f"{short[: _LONGEST - 3]}..."
    return f"{_key_word(key)}={short}"


def _key_word(key: str) -> str:
    """`lr`, `beta`; `timesteps.min` where the last part alone would say little."""
    parts = [part for part in key.split(".") if part not in _SILENT]
    if len(parts) < 2 or parts[0] in _OWN or parts[-1] not in _BARE:
        return parts[-1]
    return ".".join(parts[-2:])


def _chosen(group: Group, of: str, target: str) -> str:
    """What a command line chose of a group of configurations, or else the class."""
    words = (line.lstrip("+").partition("=") for line in group.runs[0].record.overrides)
    chosen = next((value for key, _, value in words if key == of), None)
    if chosen is not None:
        return chosen
    name = target.rpartition(".")[2]
    return name.removesuffix("Tuning").lower() if of == "tuning" else name
