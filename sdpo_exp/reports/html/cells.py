"""Runs into cells: a cell is what differs in the seed only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sdpo_exp.reports.data_words import data_of
from sdpo_exp.reports.html.cell_names import Group, names_of
from sdpo_exp.reports.html.files import attempt
from sdpo_exp.reports.html.runs import Run
from sdpo_exp.reports.html.settings import Settings, settings_of

OFF = "off"
_OF_THE_SAFEGUARD = frozenset({"safeguard", "recipe.mu", "recipe.official_compat"})
_OBJECTIVES = ("dpo", "dspo", "dspo_sdxl", "dmpo", "ipo", "hinge", "sft")
_SAFEGUARDS = (
    *(OFF, "on", "pair", "global", "weighted", "projection"),
    *("parameter", "optimizer", "last_layers", "momentum_free", "backtracking", "budget"),
    "constant",
)


@dataclass(frozen=True)
class Cell:
    """Runs that differ in their seed only.

    Attributes:
        key: names it in the page's data.
        model, data, objective, safeguard: choices.
        group: model and data as a heading; empty where all cells of the report share both.
        row, column: its place in the grid of objectives and safeguards.
        short: the row as it is called below the heading of its group.
        settings: of its configuration, seeds left out.
        runs: all of them, by seed and time.
        counted: one finished run for each seed, the last one; where no run has finished, the last
            unfinished one of each.
    """

    key: str
    model: str
    data: str
    objective: str
    safeguard: str
    group: str
    row: str
    short: str
    column: str
    settings: Settings
    runs: tuple[Run, ...]
    counted: tuple[Run, ...]

    @property
    def label(self) -> str:
        """Row and column."""
        return f"{self.row} / {self.column}"

    @property
    def finished(self) -> bool:
        """Whether its numbers are those of whole runs."""
        return any(run.finished for run in self.runs)

    @property
    def folded(self) -> bool:
        """Whether nothing came of it, and nothing will."""
        return not any(run.finished or run.status == "running" for run in self.runs)

    @property
    def seeds(self) -> list[str]:
        """Of the runs that count."""
        return [str(run.seed) for run in self.counted]


def cells_of(runs: Iterable[Run]) -> list[Cell]:
    """The cells, by model, objective and safeguard."""
    groups = sorted(_groups(runs), key=_place)
    return [
        Cell(
            f"c{i}", *group.choices, name.group, f"{name.start} {name.row}".strip(), name.row,
            name.column, group.settings, group.runs, tuple(_counted(group.runs)),
        )
        for i, (group, name) in enumerate(zip(groups, names_of(groups), strict=True))
    ]  # fmt: skip


def _groups(runs: Iterable[Run]) -> list[Group]:
    """Grouped without any seeds first; then a seed that is not the run's own tells cells apart."""
    found: dict[str, list[tuple[Run, Settings]]] = {}
    for run in runs:
        settings = settings_of(run) or _overrides(run)
        bare = {key: value for key, value in settings.items() if not _is_seed(key)}
        key = json.dumps([run.model, run.objective, run.safeguard, bare], sort_keys=True)
        found.setdefault(key, []).append((run, settings))
    return [group for members in found.values() for group in _by_other_seeds(members)]


def _by_other_seeds(members: Sequence[tuple[Run, Settings]]) -> list[Group]:
    first, settings = members[0]
    kept = [
        key
        for key in settings
        if _is_seed(key) and any(own.get(key) != str(run.seed) for run, own in members)
    ]
    found: dict[str, list[tuple[Run, Settings]]] = {}
    for run, own in members:
        part = tuple(own.get(key, "") for key in kept)
        found.setdefault(json.dumps(part), []).append((run, own))
    shown = kept if len(found) > 1 else []
    found = {
        key: [
            (run, {k: v for k, v in own.items() if not _is_seed(k) or k in shown})
            for run, own in group
        ]
        for key, group in found.items()
    }
    data = attempt(lambda: data_of(first.record), "")
    choices = (first.model, data, first.objective, first.safeguard)
    return [
        Group(*choices, group[0][1], tuple(sorted((run for run, _ in group), key=_by_seed)))
        for group in found.values()
    ]


def _overrides(run: Run) -> Settings:
    """In place of a configuration that cannot be read."""
    pairs = [line.lstrip("+~").partition("=") for line in run.record.overrides]
    return {key: value for key, _, value in pairs if key not in ("seed", "name", "resume")}


def _is_seed(key: str) -> bool:
    return key == "seed" or key.endswith(".seed")


def _by_seed(run: Run) -> tuple[int, str]:
    return -1 if run.seed is None else run.seed, run.started


def _counted(runs: Sequence[Run]) -> list[Run]:
    eligible = [run for run in runs if run.finished] or list(runs)
    latest: dict[object, Run] = {}
    for run in eligible:  # sorted by seed, then by time
        latest[run.folder if run.seed is None else run.seed] = run
    return list(latest.values())


def _place(group: Group) -> tuple[object, ...]:
    objective = _rank(_OBJECTIVES, group.objective), group.objective
    safeguard = _rank(_SAFEGUARDS, group.safeguard), group.safeguard
    return group.model, group.data, objective, safeguard, json.dumps(group.settings, sort_keys=True)


def _rank(known: Sequence[str], name: str) -> int:
    return known.index(name) if name in known else len(known)


def counterpart(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The cell without safeguard that differs in nothing else; None where there is none."""
    if cell.safeguard == OFF:
        return None
    own = _beside_the_safeguard(cell)
    found = [c for c in cells if c.safeguard == OFF and _beside_the_safeguard(c) == own]
    # Without a safeguard its numbers decide nothing, yet the nearest one is the one meant.
    return max(found, key=lambda c: len(c.settings.items() & cell.settings.items()), default=None)


def _beside_the_safeguard(cell: Cell) -> tuple[object, ...]:
    kept = {
        key: value
        for key, value in cell.settings.items()
        if not (key.startswith("safeguard.") or key in _OF_THE_SAFEGUARD or _is_seed(key))
    }
    return cell.model, cell.objective, tuple(sorted(kept.items()))
