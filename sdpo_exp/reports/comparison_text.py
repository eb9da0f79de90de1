"""Models against a base, as aligned tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo_exp.evaluation.outcomes import MetricAverage, ModelComparison
from sdpo_exp.reports.comparison import SCALED, category_rows, model_rows
from sdpo_exp.reports.text_table import text_table

_WORDS = ("metric", "category")
# What is left out first where the terminal is narrow; the page has all.
_SPARE = (
    *("n prompts", ("p sign", "p Wilcoxon"), SCALED, ("mean a", "mean b"), "n images"),
    *("won / tied / lost", "Holm p"),
)


def comparison_text(
    rows: Sequence[ModelComparison],
    *,
    base: str,
    averages: Sequence[MetricAverage] = (),
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """The tables of `comparison_page` without markup.

    Args:
        rows, base, averages, notes: as there.
        width: of the terminal in columns; None: any number.
    """
    lines = [f"note: {note}" for note in notes]
    left_out: dict[str, None] = {}
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        average = next((a for a in averages if a.model == model), None)
        lines += ["", f"{model} (b) against {base} (a)"]
        for cells in (model_rows(own, average), category_rows(own)):
            if not cells:
                continue
            cut = "category" if "category" in cells[0] else "metric"
            found = text_table(cells, width=width, left=_WORDS, spare=_SPARE, cut=cut)
            lines += ["", *found.lines]
            left_out |= dict.fromkeys(found.left_out)
    if rows:
        lines += ["", f"Holm p: adjusted for the {len(rows)} tests of this comparison."]
    if left_out:
        lines.append(f"No room for {', '.join(left_out)}; comparison.md has all.")
    return "\n".join(lines).lstrip("\n")
