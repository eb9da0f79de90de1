"""The table of a search: printed, and written beside the runs as markdown and CSV."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sdpo_exp.launchers.search_space import SearchSpace
from sdpo_exp.launchers.study import About, outcome
from sdpo_exp.reports.markdown import escaped, table
from sdpo_exp.whole_files import write_text

if TYPE_CHECKING:
    import optuna

_NAME = "optuna"


def write_report(study: optuna.Study, space: SearchSpace, about: About, folder: Path) -> str:
    """Write `optuna.md` and `optuna.csv`, and return the table for the terminal."""
    keys = [axis.key for axis in space.axes]
    header = ["trial", about.metric, *keys, "outcome", "folder"]
    rows = [_row(trial, keys) for trial in study.get_trials(deepcopy=False)]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    write_text(folder / f"{_NAME}.csv", stream.getvalue())
    shown = [header, *([_short(cell) for cell in row] for row in rows)]
    best = _best(study, space)
    lines = [f"# Search for the {_WORDS[about.direction]} {escaped(about.metric)}", ""]
    lines += [*best, "", *table(*_marked(shown))]
    write_text(folder / f"{_NAME}.md", "\n".join(lines) + "\n")
    return "\n".join(["", *_aligned([row[:-1] for row in shown]), "", *best])


_WORDS = {"maximize": "largest", "minimize": "smallest"}


def _row(trial: optuna.trial.FrozenTrial, keys: list[str]) -> list[str]:
    value = "" if trial.value is None else repr(trial.value)
    values = [str(trial.params.get(key, "")) for key in keys]
    run = trial.user_attrs.get("folder", "")
    return [str(trial.number), value, *values, outcome(trial), run and os.path.relpath(run)]


def _best(study: optuna.Study, space: SearchSpace) -> list[str]:
    if not any(trial.value is not None for trial in study.get_trials(deepcopy=False)):
        return ["No trial finished."]
    trial = study.best_trial
    chosen = " ".join(f"'{axis.override(trial.params[axis.key])}'" for axis in space.axes)
    return [f"Best of {len(study.trials)}: trial {trial.number}, {trial.value:.6g}, with {chosen}"]


def _short(cell: str) -> str:
    try:
        return f"{float(cell):.6g}"
    except ValueError:
        return cell


def _marked(rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    safe = [[escaped(cell) for cell in row] for row in rows]
    return safe[0], safe[1:]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
