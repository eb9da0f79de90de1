"""Each cell against the base, and its safeguard on against off, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sdpo_exp.evaluation.comparison import (
    Comparison,
    ImageKey,
    Match,
    PromptKey,
    Score,
    Test,
    compare_matches,
)
from sdpo_exp.evaluation.statistics import Interval
from sdpo_exp.reports.html.cells import Cell, counterpart
from sdpo_exp.reports.html.runs import Run

_SET = "images"


@dataclass(frozen=True)
class Tested:
    """One comparison: the mean score of an image over the seeds of b, less that of a.

    Attributes:
        family: `base` or `off`: what b is held against.
        a, b: names.
        cell: key of the cell that b is.
        seeds: training seeds that the scores are averaged over.
        comparison: of the package, clusters being prompts of equal text.
        p_holm: adjusted over all comparisons of the report.
    """

    family: str
    a: str
    b: str
    cell: str
    seeds: tuple[str, ...]
    comparison: Comparison
    p_holm: float

    @property
    def difference(self) -> Interval:
        """Of the means, with its interval."""
        return self.comparison.difference


class Settings(NamedTuple):
    """How to test: which score, whose p values are adjusted, and the bootstrap."""

    metric: str
    test: Test
    resamples: int
    seed: int


class _Candidate(NamedTuple):
    family: str
    a: str
    b: Cell
    seeds: tuple[str, ...]
    match: Match


def tests_of(cells: Sequence[Cell], settings: Settings) -> list[Tested]:
    """All comparisons that the cells' scores allow, Holm's correction over all of them."""
    found = [_against_base(cell, settings.metric) for cell in cells]
    found += [_against_off(cell, counterpart(cell, cells), settings.metric) for cell in cells]
    candidates = [one for one in found if one is not None]
    rows = compare_matches(
        [one.match for one in candidates],
        test=settings.test,
        seed=settings.seed,
        resamples=settings.resamples,
    )
    return [
        Tested(one.family, one.a, one.b.label, one.b.key, one.seeds, row.comparison, row.p_holm)
        for one, row in zip(candidates, rows, strict=True)
    ]


def judged_runs(cell: Cell, metric: str) -> list[Run]:
    """The finished runs that count and have scores of both models."""
    return [run for run in cell.counted if run.finished and run.scores.common(metric)]


def _against_base(cell: Cell, metric: str) -> _Candidate | None:
    runs = judged_runs(cell, metric)
    base = [run.scores.base[metric] for run in runs]
    tuned = [run.scores.tuned[metric] for run in runs]
    match = _match(f"{cell.key} base", metric, base, tuned, _texts(runs))
    if match is None:
        return None
    return _Candidate("base", "base", cell, tuple(str(run.seed) for run in runs), match)


def _against_off(cell: Cell, off: Cell | None, metric: str) -> _Candidate | None:
    """By the seeds that both have; by all seeds where they share none."""
    if off is None:
        return None
    on_runs = {run.seed: run for run in judged_runs(cell, metric)}
    off_runs = {run.seed: run for run in judged_runs(off, metric)}
    shared = sorted(on_runs.keys() & off_runs.keys(), key=str)
    first = [off_runs[seed] for seed in shared] or list(off_runs.values())
    second = [on_runs[seed] for seed in shared] or list(on_runs.values())
    match = _match(
        f"{cell.key} off",
        metric,
        [run.scores.tuned[metric] for run in first],
        [run.scores.tuned[metric] for run in second],
        _texts([*first, *second]),
    )
    if match is None:
        return None
    seeds = tuple(map(str, shared)) or tuple(f"{r.seed}" for r in [*first, *second])
    return _Candidate("off", off.label, cell, seeds, match)


def _texts(runs: Sequence[Run]) -> dict[int, str]:
    """Prompts by index, of the indexes that mean one prompt in all runs."""
    first, *others = [run.scores.prompts for run in runs] or [{}]
    return {
        index: text
        for index, text in first.items()
        if all(other.get(index) == text for other in others)
    }


def _match(
    name: str,
    metric: str,
    a: Sequence[Mapping[int, float]],
    b: Sequence[Mapping[int, float]],
    texts: Mapping[int, str],
) -> Match | None:
    """Means over the runs, of the images that all of them have; None where there are none."""
    if not a or not b:
        return None
    images = sorted(set(texts).intersection(*a, *b))
    if not images:
        return None
    base, tuned = (
        [Score(ImageKey(_SET, i, 0), float(np.mean([run[i] for run in runs]))) for i in images]
        for runs in (a, b)
    )
    clusters = {PromptKey(_SET, i): texts[i] for i in images}
    return Match(name, {metric: base}, {metric: tuned}, clusters)
