"""One model's scores: means with intervals, as a table for the terminal and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sdpo_exp.evaluation.clustered import clustered_estimate
from sdpo_exp.evaluation.pairing import PromptKey, Score
from sdpo_exp.evaluation.statistics import Estimate
from sdpo_exp.reports.markdown import escaped, table

_HEADER = ("metric", "prompts", "images", "mean", "s.e.", "95 % interval", "x100")


def summarise(
    scores: Sequence[Score],
    texts: Mapping[PromptKey, str],
    labels: Mapping[str, Mapping[PromptKey, str]],
) -> dict[str, Any]:
    """Mean, standard error and interval of one metric, over all images and by label.

    Prompts of equal text are one cluster, with all their seeds. Numbers that do not exist are None.
    """
    by_label = {
        axis: {
            value: _summary([s for s in scores if of.get(_prompt(s)) == value], texts)
            for value in dict.fromkeys(of.values())
        }
        for axis, of in labels.items()
    }
    return {**_summary(scores, texts), "by_label": by_label}


def _prompt(score: Score) -> PromptKey:
    return PromptKey(score.image.set, score.image.prompt)


def _summary(scores: Sequence[Score], texts: Mapping[PromptKey, str]) -> dict[str, Any]:
    clusters = [texts[_prompt(score)] for score in scores]
    found: Estimate = clustered_estimate([score.value for score in scores], clusters)
    return {
        "images": len(scores),
        "prompts": len(set(clusters)),
        **{k: v if math.isfinite(v) else None for k, v in found._asdict().items()},
    }


def evaluation_table(content: Mapping[str, Any]) -> str:
    """The metrics of an `evaluation.json` in aligned columns; means on the raw, official scale."""
    rows = [_HEADER, *(_row(name, metric) for name, metric in content["metrics"].items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    lines = [_title(content)]
    for name, *cells in rows:
        padded = "".join(f"  {c:>{w}}" for c, w in zip(cells, widths[1:], strict=True))
        lines.append(f"{name:<{widths[0]}}{padded}".rstrip())
    return "\n".join([*lines, *_notes(content)])


def evaluation_page(content: Mapping[str, Any]) -> str:
    """Markdown of an `evaluation.json`: the metrics, and each of them by label."""
    lines = [f"# {escaped(_title(content))}", "", *table(_HEADER, _rows(content["metrics"]))]
    lines += ["", *_notes(content), ""]
    axes = dict.fromkeys(axis for m in content["metrics"].values() for axis in m["by_label"])
    for axis in axes:
        parts = {
            f"{name}, {escaped(value)}": {**part, "display_scale": metric["display_scale"]}
            for name, metric in content["metrics"].items()
            for value, part in metric["by_label"].get(axis, {}).items()
        }
        header = (f"metric, {escaped(axis)}", *_HEADER[1:])
        lines += [f"## By {escaped(axis)}", "", *table(header, _rows(parts)), ""]
    return "\n".join(lines)


def _title(content: Mapping[str, Any]) -> str:
    prompts = content.get("prompts")
    return f"{content['name']}: {prompts['name']}" if prompts else str(content["name"])


def _notes(content: Mapping[str, Any]) -> list[str]:
    lines = ["Means on the metrics' own scale; x100 where papers print it so."]
    for name, metric in content["metrics"].items():
        if cut := metric.get("cut_prompts"):
            lines.append(f"{name} reads only the beginning of {cut} prompts.")
    return lines


def _rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [_row(name, metric) for name, metric in metrics.items()]


def _row(name: str, metric: Mapping[str, Any]) -> tuple[str, ...]:
    mean, low, high = metric["mean"], metric["low"], metric["high"]
    interval = "" if low is None else f"[{low:.4f}, {high:.4f}]"
    error = "" if metric["standard_error"] is None else f"{metric['standard_error']:.4f}"
    hundred = f"{100 * mean:.2f}" if metric["display_scale"] == 100 else ""
    counts = (str(metric["prompts"]), str(metric["images"]))
    return (name, *counts, f"{mean:.4f}", error, interval, hundred)
