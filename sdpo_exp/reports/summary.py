"""summary.json: where a run ended, in numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdpo_exp.reports.metrics_file import Series, read_metrics

_TAIL = 0.2
_PROBE = ("winner_minus_ref", "loser_minus_ref", "margin", "implicit_accuracy")


def write_summary(folder: Path, *, status: str, seconds: float) -> dict[str, Any]:
    """Summarise `folder/metrics.csv` into `folder/summary.json` and return it.

    `train` holds means over the last fifth of the run's steps; `probe` the first and last visit.
    """
    path = folder / "metrics.csv"
    metrics = read_metrics(path) if path.is_file() else {}
    last = max((int(s.steps[-1]) for s in metrics.values() if len(s.steps)), default=0)
    summary = {
        "status": status,
        "steps": last,
        "seconds": round(seconds, 1),
        "train": {
            name: _tail_mean(series, last)
            for name, series in metrics.items()
            if not name.startswith(("probe/", "perf/")) and len(series.steps)
        },
        "probe": {
            name: {"first": float(series.values[0]), "last": float(series.values[-1])}
            for name, series in metrics.items()
            if name.startswith("probe/") and len(series.steps)
        },
        "pairs_per_second": _tail_mean(metrics["perf/pairs_per_second"], last)
        if "perf/pairs_per_second" in metrics
        else None,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def format_summary(summary: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [f"{summary['status']}: {summary['steps']} steps in {summary['seconds']:.0f} s"]
    probe = summary["probe"]
    rows = [(name, probe[f"probe/{name}"]) for name in _PROBE if f"probe/{name}" in probe]
    if rows:
        lines += ["", f"{'held-out probe':<22}{'before':>10}{'after':>10}"]
        lines += [f"{name:<22}{row['first']:>10.4f}{row['last']:>10.4f}" for name, row in rows]
    lambda_mean = summary["train"].get("safeguard/lambda_mean")
    if lambda_mean is not None:
        lines += ["", f"lambda, mean over the last fifth of the run: {lambda_mean:.3f}"]
    return "\n".join(lines)


def _tail_mean(series: Series, last: int) -> float | None:
    tail = series.values[series.steps > (1 - _TAIL) * last]
    return float(tail.mean()) if len(tail) else None
