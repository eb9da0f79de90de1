"""summary.json and summary.md: where a run ended, in numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdpo_exp.reports.before_after import EVALUATION_FILE
from sdpo_exp.reports.metrics_file import Series, read_metrics

_TAIL = 0.2
_PROBE = ("winner_minus_ref", "loser_minus_ref", "margin", "implicit_accuracy")
_STARTS = {"implicit_accuracy": 0.5}
_LABELS = {
    "winner_minus_ref": "winner error - reference",
    "loser_minus_ref": "loser error - reference",
    "implicit_accuracy": "implicit accuracy",
}
_IMAGES, _ERRORS = ("base", "tuned", "change", "s.e."), ("first", "last", "change", "s.e.")
Row = tuple[str, str, str, str, str]
Table = tuple[Row, list[Row]]


def write_summary(
    folder: Path, *, status: str, seconds: float, warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """Summarise `metrics.csv` and, where there is one, `evaluation.json` of a run's folder.

    Writes `summary.json` and `summary.md` and returns the former's content: `train` holds means
    over the last fifth of the run's steps, `probe` and `images` (of `callbacks.images`) the first
    and last visit, `evaluation` the comparison of base and tuned, `warnings` what the run
    warned of.
    """
    path, evaluation = folder / "metrics.csv", folder / EVALUATION_FILE
    metrics = read_metrics(path) if path.is_file() else {}
    last = max((int(s.steps[-1]) for s in metrics.values() if len(s.steps)), default=0)
    summary = {
        "status": status,
        "steps": last,
        "seconds": round(seconds, 1),
        "warnings": list(warnings),
        "train": {
            name: _tail_mean(series, last)
            for name, series in metrics.items()
            if not name.startswith(("probe/", "eval/", "perf/")) and len(series.steps)
        },
        "probe": _visits(metrics, "probe/"),
        "images": _visits(metrics, "eval/"),
        "evaluation": json.loads(evaluation.read_text()) if evaluation.is_file() else None,
        "pairs_per_second": _tail_mean(metrics["perf/pairs_per_second"], last)
        if "perf/pairs_per_second" in metrics
        else None,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / "summary.md").write_text(_markdown(folder, summary))
    return summary


def _visits(metrics: dict[str, Series], prefix: str) -> dict[str, dict[str, float]]:
    return {
        name: {"first": float(series.values[0]), "last": float(series.values[-1])}
        for name, series in metrics.items()
        if name.startswith(prefix) and len(series.steps)
    }


def format_summary(summary: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [_first_line(summary)]
    for header, rows in _tables(summary):
        cells = [header, *rows]
        first = max(26, *(len(row[0]) for row in cells))
        lines += [
            "",
            *(f"{row[0]:<{first}}{''.join(f'{c:>10}' for c in row[1:])}" for row in cells),
        ]
    if (lambda_mean := summary["train"].get("safeguard/lambda_mean")) is not None:
        lines += ["", f"lambda, mean over the last fifth of the run: {lambda_mean:.3f}"]
    return "\n".join(lines)


def _markdown(folder: Path, summary: dict[str, Any]) -> str:
    title = f"{folder.parent.name}/{folder.name}"
    lines = [f"# {title}", "", _first_line(summary) + "."]
    lines += markdown_tables(summary)
    if (lambda_mean := summary["train"].get("safeguard/lambda_mean")) is not None:
        lines += ["", f"lambda, mean over the last fifth of the run: {lambda_mean:.3f}"]
    if summary["evaluation"] is not None:
        lines += ["", "![base and tuned](plots/before_after.png)"]
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
    return f"{summary['status']}: {summary['steps']} steps in {summary['seconds']:.0f} s"


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
    return (
        name.removeprefix("eval/"), f"{first:.4f}", f"{last:.4f}", f"{change:+.4f}", f"{error:.4f}"
    )  # fmt: skip


def _score_row(name: str, score: dict[str, Any]) -> Row:
    base, tuned, change = (score[part] for part in ("base", "tuned", "change"))
    error = _number(change["standard_error"], ".3f")
    means = (_number(base["mean"], ".3f"), _number(tuned["mean"], ".3f"))
    return (name, *means, _number(change["mean"], "+.3f"), error)


def _number(value: float | None, form: str) -> str:
    """JSON's null stands for what was not a number."""
    return "nan" if value is None else format(value, form)


def _probe_row(name: str, probe: dict[str, Any]) -> Row:
    values, error = probe[f"probe/{name}"], probe.get(f"probe/{name}_se")
    return (
        _LABELS.get(name, name),
        f"{values['first']:.4f}",
        f"{values['last']:.4f}",
        f"{values['last'] - values['first']:+.4f}",
        # Policy and reference start as one: errors minus the reference at exactly 0, accuracy at
        # exactly one half. So the last value's error is the change's. Not so in a resumed run,
        # whose first visit is not the base.
        f"{error['last']:.4f}" if error and values["first"] == _STARTS.get(name, 0.0) else "",
    )


def _tail_mean(series: Series, last: int) -> float | None:
    tail = series.values[series.steps > (1 - _TAIL) * last]
    return float(tail.mean()) if len(tail) else None
