"""summary.json and summary.md: where a run ended, in numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdpo_exp.reports.audit import PREFIX, audit_lines, audit_of
from sdpo_exp.reports.before_after import EVALUATION_FILE, PICTURE
from sdpo_exp.reports.metrics_file import Series, read_metrics
from sdpo_exp.reports.run_records import read_run
from sdpo_exp.reports.verdict import verdict, verdict_content
from sdpo_exp.words import word

_TAIL = 0.2
_VISIT = re.compile(r"images_step=(\d+)\.png")
_FIRST = 26  # columns of the names, so that tables stand under each other
_PROBE = ("winner_minus_ref", "loser_minus_ref", "margin", "implicit_accuracy")
_STARTS = {"implicit_accuracy": 0.5}
_IMAGES, _ERRORS = ("base", "tuned", "change", "s.e."), ("first", "last", "change", "s.e.")
Row = tuple[str, str, str, str, str]
Table = tuple[Row, list[Row]]


def write_summary(
    folder: Path,
    *,
    status: str,
    seconds: float,
    warnings: Sequence[str] = (),
    ended_early: str | None = None,
) -> dict[str, Any]:
    """Summarise `metrics.csv` and, where there is one, `evaluation.json` of a run's folder.

    Writes `summary.json` and `summary.md` and returns the former's content: `train` holds means
    over the last fifth of the run's steps, `idle` in how many steps lambda was 1, `audit` what the
    audited steps did to the errors of their pairs (None: none was), `probe` and
    `images` (of `callbacks.images`) the first and last visit, `evaluation` the comparison of base
    and tuned, `verdict` what both say in words, `warnings` what the run warned of, `resumed` where
    it went on from, `ended_early` why the training ended before `max_steps`.
    """
    path, evaluation = folder / "metrics.csv", folder / EVALUATION_FILE
    told = read_run(folder).told
    metrics = read_metrics(path) if path.is_file() else {}
    last = max((int(s.steps[-1]) for s in metrics.values() if len(s.steps)), default=0)
    summary: dict[str, Any] = {
        "status": status,
        "steps": last,
        "seconds": round(seconds, 1),
        "warnings": list(warnings),
        "ended_early": ended_early,
        "resumed": told.get("resumed"),
        "idle": _idle(metrics) if told.get("safeguard") != "off" else None,
        "audit": audit_of(metrics),
        "train": {
            name: _tail_mean(series, last)
            for name, series in metrics.items()
            if not name.startswith(("probe/", "eval/", "perf/", PREFIX)) and len(series.steps)
        },
        "probe": _visits(metrics, "probe/"),
        "images": _visits(metrics, "eval/"),
        "evaluation": json.loads(evaluation.read_text()) if evaluation.is_file() else None,
        "pairs_per_second": _tail_mean(metrics["perf/pairs_per_second"], last)
        if "perf/pairs_per_second" in metrics
        else None,
    }
    summary["verdict"] = verdict_content(verdict(summary))
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / "summary.md").write_text(_markdown(folder, summary))
    return summary


def _idle(metrics: dict[str, Series]) -> dict[str, int] | None:
    """In how many of the optimiser steps looked at no loser's gradient was scaled."""
    active = metrics.get("safeguard/lambda_active")
    if active is None or not len(active.steps):
        return None
    return {"idle": int((active.values == 0).sum()), "steps": len(active.steps)}


def _visits(metrics: dict[str, Series], prefix: str) -> dict[str, dict[str, float]]:
    return {
        name: {"first": float(series.values[0]), "last": float(series.values[-1])}
        for name, series in metrics.items()
        if name.startswith(prefix) and len(series.steps)
    }


def format_summary(summary: dict[str, Any], width: int | None = None) -> str:
    """A few lines for a terminal of `width` columns; None: of any width."""
    lines = [_first_line(summary)]
    for header, rows in _tables(summary):
        lines += ["", *_aligned(header, rows, width)]
    lines += _last_lines(summary)
    return "\n".join(lines)


def _aligned(header: Row, rows: list[Row], width: int | None) -> list[str]:
    """The first cell of the header above the table where the terminal is narrow."""
    numbers = 10 * len(header[1:])
    own_line = width is not None and max(_FIRST, len(header[0])) + numbers > width
    cells = [("", *header[1:]) if own_line else header, *rows]
    first = max(0 if own_line else _FIRST, *(len(row[0]) for row in cells))
    lines = [f"{row[0]:<{first}}{''.join(f'{cell:>10}' for cell in row[1:])}" for row in cells]
    return [header[0], *lines] if own_line else lines


def pictures(folder: Path) -> list[tuple[str, str]]:
    """Pictures that a run drew, by their paths in its folder, and what each shows."""
    found = [(PICTURE, "base and tuned")] if (folder / PICTURE).is_file() else []
    visits = [(int(m[1]), p) for p in (folder / "plots").glob("images_step=*.png")
              if (m := _VISIT.fullmatch(p.name))]  # fmt: skip
    if visits:
        step, last = max(visits)
        found.append((f"plots/{last.name}", f"images at step {step}"))
    return found


def _markdown(folder: Path, summary: dict[str, Any]) -> str:
    title = f"{folder.parent.name}/{folder.name}"
    lines = [f"# {title}", "", _first_line(summary) + "."]
    if summary["verdict"]["text"]:
        lines += ["", f"Verdict: {summary['verdict']['text']}."]
    lines += markdown_tables(summary)
    lines += _last_lines(summary)
    lines += [line for file, what in pictures(folder) for line in ("", f"![{what}]({file})")]
    if summary["train"]:
        lines += ["", "![trajectories](plots/trajectories.png)"]
    return "\n".join(lines) + "\n"


def markdown_tables(summary: dict[str, Any]) -> list[str]:
    """Lines of the tables of a `summary.json`, each table after an empty line."""
    lines: list[str] = []
    for header, rows in _tables(summary):
        lines += ["", "| " + " | ".join(header) + " |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
    return lines


def _first_line(summary: dict[str, Any]) -> str:
    told = f"{summary['status']}: {summary['steps']} steps in {summary['seconds']:.0f} s"
    reason = summary.get("ended_early")
    return f"{told}; ended early: {reason}" if reason else told


def _last_lines(summary: dict[str, Any]) -> list[str]:
    """Lambda, the audit, and what was gone on with; each after an empty line."""
    lines: list[str] = []
    if (lambda_mean := summary["train"].get("safeguard/lambda_mean")) is not None:
        lines += ["", f"lambda, mean over the last fifth of the run: {lambda_mean:.3f}"]
    if lines and (idle := summary.get("idle")) is not None:
        lines[-1] += f"; it was 1 in {idle['idle']} of {idle['steps']} steps"
    lines += audit_lines(summary.get("audit"))
    if (resumed := summary.get("resumed")) is not None:
        lines += ["", f"resumed at step {resumed['step']} from {resumed['from']}"]
        lines += [f"  changed there: {line}" for line in resumed["changes"]]
    return lines


def _tables(summary: dict[str, Any]) -> list[Table]:
    """Header and rows of what there is: the evaluation, then the probe."""
    tables: list[Table] = []
    if (evaluation := summary["evaluation"]) is not None:
        rows = [_score_row(name, score) for name, score in evaluation["scores"].items()]
        tables.append(((evaluation["description"], *_IMAGES), rows))
    probe = summary["probe"]
    rows = [_probe_row(name, probe) for name in _PROBE if f"probe/{name}" in probe]
    if rows:
        tables.append((("held-out probe", *_ERRORS), rows))
    images = summary.get("images") or {}
    rows = [_image_row(name, images) for name in images if f"{name}_change" in images]
    if rows:
        tables.append((("images along the training", *_ERRORS), rows))
    return tables


def _image_row(name: str, images: dict[str, Any]) -> Row:
    change, error = (images[f"{name}_{part}"]["last"] for part in ("change", "change_se"))
    first, last = images[name]["first"], images[name]["last"]
    means = (f"{first:.4f}", f"{last:.4f}", f"{change:+.4f}")
    return (name.removeprefix("eval/"), *means, _error(error, ".4f"))


def _score_row(name: str, score: dict[str, Any]) -> Row:
    base, tuned, change = (score[part] for part in ("base", "tuned", "change"))
    means = (_number(base["mean"], ".3f"), _number(tuned["mean"], ".3f"))
    error = _error(change["standard_error"], ".3f")
    return (name, *means, _number(change["mean"], "+.3f"), error)


def _error(value: float | None, form: str) -> str:
    """A standard error; none where there is one value, or where all that were seen agree."""
    return format(value, form) if value is not None and value > 0 else "-"


def _number(value: float | None, form: str) -> str:
    """JSON's null stands for what was not a number."""
    return "nan" if value is None else format(value, form)


def _probe_row(name: str, probe: dict[str, Any]) -> Row:
    values, error = probe[f"probe/{name}"], probe.get(f"probe/{name}_se")
    return (
        word(name),
        f"{values['first']:.4f}",
        f"{values['last']:.4f}",
        f"{values['last'] - values['first']:+.4f}",
        # Policy and reference start as one: drifts at exactly 0, accuracy at
        # exactly one half. So the last value's error is the change's. Not so where a resumed run
        # knows nothing of its first steps.
        _error(error["last"], ".4f") if error and values["first"] == _STARTS.get(name, 0.0) else "",
    )


def _tail_mean(series: Series, last: int) -> float | None:
    tail = series.values[series.steps > (1 - _TAIL) * last]
    return float(tail.mean()) if len(tail) else None
