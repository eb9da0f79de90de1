"""Models against a base, as a markdown page and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sdpo_exp.evaluation.outcomes import Category, Comparison, MetricAverage, ModelComparison
from sdpo_exp.evaluation.statistics import Interval
from sdpo_exp.reports.markdown import escaped, table

SCALED = "scaled: mean a, mean b"
_HEADER = (
    "metric",
    "n prompts",
    "n images",
    "mean a",
    "mean b",
    SCALED,
    "difference [95 %]",
    "won / tied / lost",
    "win rate [95 %]",
    "p sign",
    "p Wilcoxon",
    "Holm p",
)
_CATEGORY_HEADER = (
    "metric",
    "category",
    "n prompts",
    "n images",
    "difference [95 %]",
    "won / tied / lost",
    "win rate [95 %]",
)
_TESTS = {"sign": "the sign test", "wilcoxon": "Wilcoxon's test"}
_DECIMALS = range(2, 7)


def comparison_content(
    rows: Sequence[ModelComparison], averages: Sequence[MetricAverage] = ()
) -> dict[str, Any]:
    """What the comparisons found, for `json.dump`; numbers that do not exist are None.

    Returns:
        `holm_over` and `comparisons`, the number and list of comparisons; each with `model` and
        `metric`, the fields of `Comparison` under their names, intervals as `value`, `low` and
        `high`, and `holm_test` and `p_holm`. `averages` holds those over the metrics, and in
        `correlations` Spearman's of every two of them.
    """
    return {
        "holm_over": len(rows),
        "comparisons": [_content(row) for row in rows],
        "averages": [_average_content(average) for average in averages],
    }


def comparison_page(
    rows: Sequence[ModelComparison],
    *,
    base: str = "base",
    averages: Sequence[MetricAverage] = (),
    scales: Mapping[str, float] | None = None,
    sources: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Markdown: a table for each model, then its categories where there are any, then the terms.

    Args:
        rows: as `compare_models` returns them.
        base: name of what the models are compared with.
        averages: over the metrics, of the models that have one.
        scales: by metric, what means are multiplied by in a column that says so.
        sources: by model, where its scores come from.
        notes: what to know before reading the numbers.
    """
    lines: list[str] = []
    if sources:
        named = [(escaped(name), escaped(path)) for name, path in sources.items()]
        lines += ["# Comparison", "", *table(("model", "scores"), named), ""]
    lines += [line for note in notes for line in (f"- {escaped(note)}", "")]
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        average = next((a for a in averages if a.model == model), None)
        lines += [f"## {escaped(model)} (b) against {escaped(base)} (a)", ""]
        lines += [*_model_table(own, average, scales or {}), ""]
        if categories := category_rows(own):
            lines += [*_escaped_table(categories, words=2), ""]
        if average is not None:
            lines += [*_correlations(average), ""]
    return "\n".join([*lines, *_terms(rows, averages)]) + "\n"


def _terms(rows: Sequence[ModelComparison], averages: Sequence[MetricAverage]) -> Iterator[str]:
    yield "Scores as the metrics give them, unscaled. Difference: b - a, mean over the images,"
    yield "interval from resampled prompts. Win rate of b over the images: ties are half a win."
    yield "Both tests are two-sided and take a prompt with all its seeds as one observation;"
    yield "undecided prompts are dropped."
    if averages:
        yield "Mean of the metrics: each counts alike; interval from resampled prompts, as the"
        yield "metrics share the images."
    if rows:
        tests = " and ".join(_TESTS[test] for test in dict.fromkeys(row.test for row in rows))
        yield f"Holm p: that of {tests}, adjusted for the {len(rows)} on this page."


def _model_table(
    rows: Sequence[ModelComparison], average: MetricAverage | None, scales: Mapping[str, float]
) -> list[str]:
    lines = model_rows(rows, average, scales)
    return _escaped_table(lines, words=1)


def _escaped_table(lines: Sequence[Mapping[str, str]], words: int) -> list[str]:
    """The first cells of each line are names that users gave."""
    cells = [list(line.values()) for line in lines]
    return table(list(lines[0]), [[*map(escaped, row[:words]), *row[words:]] for row in cells])


def model_rows(
    rows: Sequence[ModelComparison],
    average: MetricAverage | None = None,
    scales: Mapping[str, float] | None = None,
) -> list[dict[str, str]]:
    """Cells by column of one model's metrics, and of their mean where there is one."""
    lines = [_row(row, (scales or {}).get(row.metric, 1.0)) for row in rows]
    if average is not None:
        lines.append(
            {
                "metric": f"mean of the {len(average.metrics)} metrics",
                "n prompts": str(average.prompts),
                "n images": str(average.images),
                "win rate [95 %]": _interval(average.win_rate, 3),
            }
        )
    header = [name for name in _HEADER if name != SCALED or any(line.get(name) for line in lines)]
    return [{name: line.get(name, "") for name in header} for line in lines]


def _row(row: ModelComparison, scale: float) -> dict[str, str]:
    found = row.comparison
    places = _places(found)
    return {
        "metric": row.metric,
        "n prompts": str(found.prompts),
        "n images": str(found.images),
        "mean a": f"{found.mean_a:.{places}f}",
        "mean b": f"{found.mean_b:.{places}f}",
        SCALED: "" if scale == 1 else _scaled(found, places, scale),
        "difference [95 %]": _interval(found.difference, places, "+"),
        "won / tied / lost": _tally(found),
        "win rate [95 %]": _interval(found.win_rate, 3),
        "p sign": _p(found.p_sign),
        "p Wilcoxon": _p(found.p_wilcoxon),
        "Holm p": _p(row.p_holm),
    }


def _scaled(found: Comparison, places: int, scale: float) -> str:
    """Both means times the scale, with as many significant digits, and the scale itself."""
    left = max(places - round(math.log10(scale)), 0)
    return f"x{scale:g}: {scale * found.mean_a:.{left}f}, {scale * found.mean_b:.{left}f}"


def category_rows(rows: Sequence[ModelComparison]) -> list[dict[str, str]]:
    """Cells by column of the categories of one model's metrics; none where there are none."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        found, metric = row.comparison, row.metric
        if found.categories is None or found.macro is None or found.macro_win_rate is None:
            continue
        places = _places(found)
        lines += [
            (
                metric,
                name,
                str(part.prompts),
                str(part.images),
                _interval(part.difference, places, "+"),
                _tally(part),
                _interval(part.win_rate, 3),
            )
            for name, part in found.categories.items()
        ]
        means = (
            _interval(found.macro.average, places, "+"),
            "",
            _interval(found.macro_win_rate, 3),
        )
        lines.append((metric, "mean of the categories", "", "", *means))
    return [dict(zip(_CATEGORY_HEADER, line, strict=True)) for line in lines]


def _correlations(average: MetricAverage) -> list[str]:
    """Lower triangle: the metrics against each other, by the prompts' differences."""
    rows = []
    for i, metric in enumerate(average.metrics):
        cells = [_number(average.correlations[other, metric]) for other in average.metrics[:i]]
        rows.append([escaped(metric), *cells, *[""] * (len(average.metrics) - i)])
    header = ["rank correlation of the differences", *map(escaped, average.metrics)]
    return table(header, rows)


def _places(found: Comparison) -> int:
    """Decimals that give the difference's interval two digits, of metrics of any scale."""
    width = found.difference.high - found.difference.low
    if not (math.isfinite(width) and width > 0):
        return 4
    return min(max(1 - math.floor(math.log10(width / 2)), _DECIMALS[0]), _DECIMALS[-1])


def _interval(found: Interval, places: int, sign: str = "") -> str:
    value = f"{found.value:{sign}.{places}f}"
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return f"{value} [none]"
    return f"{value} [{found.low:{sign}.{places}f}, {found.high:{sign}.{places}f}]"


def _tally(found: Comparison | Category) -> str:
    return f"{found.wins} / {found.ties} / {found.losses}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "none"


def _content(row: ModelComparison) -> dict[str, Any]:
    found = {name: _plain(value) for name, value in vars(row.comparison).items()}
    named = {"model": row.model, "metric": row.metric}
    return {**named, **found, "holm_test": row.test, "p_holm": row.p_holm}


def _average_content(average: MetricAverage) -> dict[str, Any]:
    correlations = [
        {"metrics": list(pair), "spearman": _plain(value)}
        for pair, value in average.correlations.items()
    ]
    return {**_plain(vars(average)), "correlations": correlations}


def _plain(value: Any) -> Any:
    """Records as mappings by their fields' names, and None for what is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Interval):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if isinstance(key, str)}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return _plain(vars(value)) if hasattr(value, "__dict__") else value
