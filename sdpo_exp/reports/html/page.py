"""The page: one HTML file that needs neither network nor neighbours."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sdpo_exp.reports.html.cells import Cell
from sdpo_exp.reports.html.curves import bins_of, panels_of
from sdpo_exp.reports.html.forest import forest_of
from sdpo_exp.reports.html.gather import Report
from sdpo_exp.reports.html.notices import badges_of
from sdpo_exp.reports.html.quantities import Figure
from sdpo_exp.reports.html.runs import Run
from sdpo_exp.reports.html.settings import differing, named_keys, without_echoes

_ASSETS = Path(__file__).parent / "assets"
_NAMES = ("row", "column", "label", "group")  # of a cell, for the plots
_CLASS = "._target_"
_MOST_OPEN = 6  # plots of a panel that is open from the start
_STATUSES = {"finished": "good", "running": "info", "failed": "bad", "died": "bad"}


def page_of(report: Report, folder: Path) -> str:
    """The HTML, with links that hold from `folder`."""
    loader = jinja2.FileSystemLoader(_ASSETS)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    panels, bins = panels_of(report.shown), bins_of(report.shown)
    return environment.get_template("page.html").render(
        report=report,
        place={cell.key: (cell.row, cell.column) for cell in report.cells},
        grid={(cell.row, cell.column): cell for cell in report.shown},
        panels=[{**panel, "rows": _rows_with(report, panel["cells"])} for panel in panels],
        bin_rows=_rows_with(report, bins),
        runs=[_run_line(report, run, folder) for run in report.runs if not _ended(run)],
        ended=[_run_line(report, run, folder) for run in report.runs if _ended(run)],
        families=_families(report),
        sections=partial(_sections, report),
        most_open=_MOST_OPEN,
        seeds_words=seeds_words,
        differences=_differences(report.cells),
        number=number,
        p_value=p_value,
        status_level=lambda status: _STATUSES.get(status, "warn"),
        css=Markup((_ASSETS / "page.css").read_text(encoding="utf-8")),
        script=Markup((_ASSETS / "page.js").read_text(encoding="utf-8")),
        plots=Markup((_ASSETS / "plots.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
        data=Markup(script_json(_data(report, panels, bins))),
    )


def script_json(content: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def number(value: float | None, form: str = "+.3f") -> str:
    """As the form says, with a real minus; empty for what is no number."""
    if value is None or not math.isfinite(value):
        return ""
    return format(value, form).replace("-", "\N{MINUS SIGN}")


def p_value(value: float) -> str:
    """Four decimals, or that it is below them."""
    return "<\N{NO-BREAK SPACE}0.0001" if value < 1e-4 else f"{value:.4f}"


def _data(report: Report, panels: list[dict[str, Any]], bins: list[dict[str, Any]]) -> Any:
    return {
        "cells": {
            cell.key: {name: getattr(cell, name) for name in _NAMES} for cell in report.cells
        },
        "columns": report.columns,
        "safeguards": _safeguards(report),
        "panels": panels,
        "bins": bins,
        "ends": _ends(report),
        "metric": report.metric,
    }


def _safeguards(report: Report) -> list[str]:
    """Of every column, for its colour."""
    by_column = {cell.column: cell.safeguard for cell in report.shown}
    return [by_column[column] for column in report.columns]


def _ends(report: Report) -> list[dict[str, Any]]:
    """Where each cell ended: drift against change of the score."""
    found = []
    for cell in report.shown:
        by_key = {figure.quantity.key: figure for figure in report.figures[cell.key]}
        drift = by_key["probe/winner_minus_ref"]
        change = by_key.get(f"eval/{report.metric}_change")
        if change is not None and change.n and drift.n:
            found.append({"cell": cell.key, "x": _span(drift), "y": _span(change)})
    return found


def _span(figure: Figure) -> dict[str, Any]:
    low, high = figure.estimate.low, figure.estimate.high
    ends = [low, high] if math.isfinite(low) else None
    return {"mean": figure.estimate.mean, "ends": ends, "n": figure.n}


def _rows_with(report: Report, drawn: Sequence[dict[str, Any]]) -> list[str]:
    keys = {one["cell"] for one in drawn}
    return [r for r in report.rows if any(c.row == r and c.key in keys for c in report.shown)]


def _sections(report: Report, rows: Sequence[str]) -> list[dict[str, Any]]:
    """Rows by model and data, each with what it is called below that heading."""
    cells = {cell.row: cell for cell in report.shown}
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        found.setdefault(cells[row].group, []).append((row, cells[row].short))
    return [{"title": title, "rows": own} for title, own in found.items()]


def seeds_words(seeds: Sequence[str]) -> str:
    """`seed 0`, `seeds 0, 1`."""
    return f"seed{'s' if len(seeds) != 1 else ''} {', '.join(seeds)}"


def _ended(run: Run) -> bool:
    """Whether it ended without being finished."""
    return not (run.finished or run.status == "running")


def _run_line(report: Report, run: Run, folder: Path) -> dict[str, Any]:
    cell = next(cell for cell in report.cells if run in cell.runs)
    seconds = run.numbers.get("perf/seconds")
    return {
        "run": run,
        "cell": cell.label,
        "counts": run in cell.counted and run.finished,
        "link": quote(Path(os.path.relpath(run.folder.resolve(), folder.resolve())).as_posix()),
        "badges": badges_of(run),
        "seconds": None if seconds is None else round(seconds),
    }


def _families(report: Report) -> list[dict[str, Any]]:
    titles = (("base", "Each cell against the base"), ("off", "Safeguard on against off"))
    found = []
    for family, title in titles:
        tests = [tested for tested in report.tests if tested.family == family]
        if tests:
            ends = [end for t in tests for end in t.difference if math.isfinite(end)]
            rows = [(t, Markup(forest_of(t.difference, t.p_holm, ends))) for t in tests]
            found.append({"key": family, "title": title, "rows": rows})
    return found


def _without_usual(values: dict[str, list[str]]) -> dict[str, list[str] | str]:
    """The value that most cells have, with their number in place of their names."""
    most = max(map(len, values.values()))
    if most <= _MOST_OPEN or 2 * most <= sum(map(len, values.values())):
        return dict(values)
    return {
        value: f"the other {most} cells" if len(labels) == most else labels
        for value, labels in values.items()
    }


def _differences(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """By key: its values, each with the cells that have it."""
    columns = differing([cell.settings for cell in cells])
    named = named_keys(run for cell in cells for run in cell.runs)
    found = []
    for key, echoes in without_echoes(columns, named).items():
        values: dict[str, list[str]] = {}
        for cell, value in zip(cells, columns[key], strict=True):
            shown = value.rpartition(".")[2] if key.endswith(_CLASS) else value
            values.setdefault(shown, []).append(cell.label)
        others = dict.fromkeys(echo.removesuffix(_CLASS) for echo in echoes[1:])
        found.append(
            {
                "key": key.removesuffix(_CLASS), "echoes": list(others),
                "values": _without_usual(values),
            }
        )  # fmt: skip
    return sorted(found, key=lambda one: str(one["key"]))
