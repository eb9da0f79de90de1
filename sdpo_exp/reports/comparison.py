"""Models against a base, as a markdown page and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from sdpo_exp.comparison import Comparison, ModelComparison
from sdpo_exp.statistics import Interval

_HEADER = (
    "metric",
    "n prompts",
    "n images",
    "mean a",
    "mean b",
    "difference [95 %]",
    "win rate [95 %]",
    "p sign",
    "p Wilcoxon",
    "Holm p",
)
_TESTS = {"sign": "the sign test", "wilcoxon": "Wilcoxon's test"}
_DECIMALS = range(2, 7)


def comparison_content(rows: Sequence[ModelComparison]) -> dict[str, Any]:
    """What the comparisons found, for `json.dump`; numbers that do not exist are None.

    Returns:
        `holm_over` and `comparisons`, the number and list of comparisons; each with `model` and
        `metric`, the fields of `Comparison` under their names, intervals as `value`, `low` and
        `high`, and `holm_test` and `p_holm`.
    """
    return {"holm_over": len(rows), "comparisons": [_content(row) for row in rows]}


def comparison_page(rows: Sequence[ModelComparison], *, base: str = "base") -> str:
    """Markdown: a table for each model, then its categories where there are any, then the terms.

    Args:
        rows: as `compare_models` returns them.
        base: name of what the models are compared with.
    """
    lines: list[str] = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        lines += [f"## {_cell(model)} (b) against {_cell(base)} (a)", ""]
        lines += [*_table(_HEADER, [_row(row) for row in own]), ""]
        if any(row.comparison.macro for row in own):
            lines += [*_table(("metric", "category", "difference [95 %]"), _categories(own)), ""]
    return "\n".join([*lines, *_terms(rows)]) + "\n"


def _terms(rows: Sequence[ModelComparison]) -> Iterator[str]:
    yield "Scores as the metrics give them, unscaled. Difference: b - a, mean over the images,"
    yield "interval from resampled prompts. Win rate of b over the images: ties are half a win."
    yield "Both tests are two-sided and take a prompt with all its seeds as one observation;"
    yield "undecided prompts are dropped."
    if rows:
        tests = " and ".join(_TESTS[test] for test in dict.fromkeys(row.test for row in rows))
        yield f"Holm p: that of {tests}, adjusted for the {len(rows)} on this page."


def _row(row: ModelComparison) -> tuple[str, ...]:
    found = row.comparison
    places = _places(found)
    return (
        row.metric,
        str(found.prompts),
        str(found.images),
        f"{found.mean_a:.{places}f}",
        f"{found.mean_b:.{places}f}",
        _interval(found.difference, places, "+"),
        _interval(found.win_rate, 3),
        *(_p(p) for p in (found.p_sign, found.p_wilcoxon, row.p_holm)),
    )


def _categories(rows: Sequence[ModelComparison]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if (macro := row.comparison.macro) is None:
            continue
        places = _places(row.comparison)
        named = [*macro.categories.items(), ("mean of the categories", macro.average)]
        lines += [(row.metric, name, _interval(value, places, "+")) for name, value in named]
    return lines


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


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(map(_cell, line))} |" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _content(row: ModelComparison) -> dict[str, Any]:
    found = dict(vars(row.comparison))
    macro = found.pop("macro")
    content: dict[str, Any] = {"model": row.model, "metric": row.metric}
    content |= {name: _plain(value) for name, value in found.items()}
    content["macro"] = macro and {
        "average": _plain(macro.average),
        "categories": {name: _plain(value) for name, value in macro.categories.items()},
    }
    return content | {"holm_test": row.test, "p_holm": row.p_holm}


def _plain(value: Interval | float) -> dict[str, float | None] | float:
    if isinstance(value, Interval):
        return {k: v if math.isfinite(v) else None for k, v in value._asdict().items()}
    return value
