"""Everything that a report says, from the runs' files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sdpo_exp.evaluation.outcomes import Test
from sdpo_exp.reports.html.cells import Cell, cells_of
from sdpo_exp.reports.html.notices import Notice, notices_of
from sdpo_exp.reports.html.pictures import Gallery, Strip, galleries_of, strips_of
from sdpo_exp.reports.html.quantities import (
    Figure,
    Quantity,
    figures,
    main_metric,
    quantities_of,
)
from sdpo_exp.reports.html.runs import Run, view_of
from sdpo_exp.reports.html.significance import Settings, Tested, tests_of
from sdpo_exp.reports.run_records import RunRecord


@dataclass(frozen=True)
class Options:
    """What may be chosen: title, the main score (None: the runs' first), pictures, and the test."""

    title: str = "Report"
    metric: str | None = None
    images: int = 8
    test: Test = "sign"
    resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """The content of the page, the tables and the text."""

    options: Options
    when: str
    metric: str | None
    runs: tuple[Run, ...]
    cells: tuple[Cell, ...]
    quantities: tuple[Quantity, ...]
    figures: Mapping[str, Sequence[Figure]]
    tests: tuple[Tested, ...]
    galleries: tuple[Gallery, ...]
    strips: tuple[Strip, ...]
    notices: tuple[Notice, ...]

    @property
    def statuses(self) -> dict[str, int]:
        """Number of runs by status, the most frequent first."""
        return dict(Counter(run.status for run in self.runs).most_common())

    @property
    def counts(self) -> str:
        """`1 cell, 2 runs`."""
        found = {"cell": len(self.cells), "run": len(self.runs)}
        return ", ".join(f"{n} {word}{'s' if n != 1 else ''}" for word, n in found.items())

    @property
    def revisions(self) -> list[str]:
        """Git revisions of the runs' code."""
        told = (run.environment.get("git_revision") for run in self.runs)
        return list(dict.fromkeys(str(revision) for revision in told if revision))

    @property
    def rows(self) -> list[str]:
        """Of the grid."""
        return list(dict.fromkeys(cell.row for cell in self.shown))

    @property
    def columns(self) -> list[str]:
        """Of the grid, those without a safeguard first."""
        return list(dict.fromkeys(cell.column for cell in sorted(self.shown, key=_column_order)))

    @property
    def shown(self) -> list[Cell]:
        """Cells with something to show; those that came to nothing are folded away."""
        return [cell for cell in self.cells if not cell.folded] or list(self.cells)

    @property
    def folded(self) -> list[Cell]:
        """The others."""
        return [cell for cell in self.cells if cell not in self.shown]


def _column_order(cell: Cell) -> tuple[bool, bool]:
    return cell.safeguard != "off", cell.safeguard != "on"


def _judged(
    found: Mapping[str, Sequence[Figure]], tests: Sequence[Tested], change: str
) -> dict[str, list[Figure]]:
    """The score's change is good or bad only if its interval over prompts says so as well.

    Seeds are judged by the same images, so few seeds that agree say little of other images.
    """
    against_base = {one.cell: one.difference for one in tests if one.family == "base"}
    unsure = {cell for cell, ends in against_base.items() if ends.low <= 0 <= ends.high}
    return {
        cell: [
            replace(one, verdict="open")
            if one.quantity.key == change and one.verdict in ("good", "bad") and cell in unsure
            else one
            for one in row
        ]
        for cell, row in found.items()
    }


def gather(records: Sequence[RunRecord], options: Options) -> Report:
    """Read, group and compare; never fails for what a run's files hold or lack."""
    runs = [view_of(record) for record in records]
    cells = cells_of(runs)
    metric = main_metric(runs, options.metric)
    quantities = quantities_of(metric, {name for run in runs for name in run.numbers})
    how = Settings(metric or "", options.test, options.resamples, options.seed)
    tests = tests_of(cells, how) if metric else []
    shown = [cell for cell in cells if not cell.folded] or cells
    return Report(
        options=options,
        when=datetime.now().isoformat(sep=" ", timespec="minutes"),
        metric=metric,
        runs=tuple(runs),
        cells=tuple(cells),
        quantities=tuple(quantities),
        figures=_judged(figures(cells, quantities), tests, f"eval/{metric}_change"),
        tests=tuple(tests),
        galleries=tuple(galleries_of(shown, metric, options.images)),
        strips=tuple(strips_of(shown)),
        notices=tuple(notices_of(runs)),
    )
