"""Comparisons as a page and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdpo_exp.evaluation.comparison import (
    ImageKey,
    Match,
    ModelComparison,
    PromptKey,
    Score,
    average_metrics,
    compare_matches,
    compare_models,
)
from sdpo_exp.reports.comparison import comparison_content, comparison_page


def of_prompts(values: Sequence[float]) -> list[Score]:
    return [Score(ImageKey("set", index, 0), value) for index, value in enumerate(values)]


DOCUMENTED = Path(__file__).parents[2] / "docs" / "statistics.md"
BASE = {"reward": of_prompts([0.0] * 8)}
# Seven wins of 1 and a tie: mean 0.875.
BETTER = {"reward": of_prompts([1.0] * 7 + [0.0])}
STYLES = {PromptKey("set", index): "photo" if index < 4 else "anime|x" for index in range(8)}


def cells(page: str, start: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def compared(**options: object) -> tuple[ModelComparison, ...]:
    return compare_models(BASE, {"sdpo": BETTER, "same": BASE}, **options)


def test_the_table_says_what_was_found() -> None:
    page = comparison_page(compared(), base="sd15")
    assert "## sdpo (b) against sd15 (a)" in page
    head = cells(page, "| metric")
    row = dict(zip(head, cells(page, "| reward"), strict=True))
    assert (row["n prompts"], row["n images"]) == ("8", "8")
    assert (row["mean a"], row["mean b"]) == ("0.00", "0.88")
    assert row["difference [95 %]"].startswith("+0.88 [+0.62, +1.00]")
    assert row["won / tied / lost"] == "7 / 1 / 0"
    # 7.5 of 8; (2 * 8 * p + z**2 -+ z * sqrt(z**2 + 4 * 8 * p * (1 - p))) / (2 * (8 + z**2)).
    assert row["win rate [95 %]"] == "0.938 [0.598, 0.993]"
    # Seven of seven: 2 / 128; of two tests the smaller is doubled.
    assert (row["p sign"], row["p Wilcoxon"], row["Holm p"]) == ("0.0156", "0.0156", "0.0312")
    assert "that of the sign test, adjusted for the 2 on this page" in page


def test_every_model_has_a_table_and_every_line_its_columns() -> None:
    page = comparison_page(compared())
    assert page.count("| metric |") == page.count("## ") == 2
    widths = {len(line.split(" | ")) for line in page.splitlines() if line.startswith("| ")}
    assert widths == {11}


def test_the_tested_p_is_named() -> None:
    assert "Holm p: that of Wilcoxon's test, " in comparison_page(compared(test="wilcoxon"))
    assert "Holm p: that of the sign test, " in comparison_page(compared(test="sign"))


def test_categories_have_a_table_and_their_bars_are_escaped() -> None:
    page = comparison_page(compared(categories=STYLES))
    assert "| reward | photo | 4 | 4 | +1.00 [+1.00, +1.00] | 4 / 0 / 0 | 1.000 [0.510, " in page
    assert "| reward | anime\\|x | 4 | 4 | +0.75 [" in page
    assert " | 3 / 1 / 0 | 0.875 [" in page
    assert "| reward | mean of the categories |  |  | +0.88 [" in page
    assert "category" not in comparison_page(compared())


def matches() -> list[Match]:
    """Two metrics that say the same of one model, and a model that is the base."""
    base = {"reward": BASE["reward"], "clip": BASE["reward"]}
    better = {"reward": BETTER["reward"], "clip": BETTER["reward"]}
    return [Match("sdpo", base, better), Match("same", base, base)]


def test_the_mean_of_the_metrics_closes_the_table() -> None:
    averages = [average for match in matches() if (average := average_metrics(match))]
    page = comparison_page(compare_matches(matches()), averages=averages)
    row = dict(zip(cells(page, "| metric"), cells(page, "| mean of the 2"), strict=True))
    assert (row["n prompts"], row["n images"], row["mean a"]) == ("8", "8", "")
    assert row["win rate [95 %]"].startswith("0.938 [0.")
    assert "| rank correlation of the differences | reward | clip |" in page
    assert "| clip | 1.00 |  |" in page
    assert "| clip | none |  |" in page  # all of the base's own differences are equal
    assert "Mean of the metrics: each counts alike" in page
    found = json.loads(json.dumps(comparison_content((), averages), allow_nan=False))["averages"]
    assert [average["model"] for average in found] == ["sdpo", "same"]
    assert found[0]["win_rate"]["value"] == 7.5 / 8
    assert found[0]["correlations"] == [{"metrics": ["reward", "clip"], "spearman": 1.0}]
    assert found[1]["correlations"][0]["spearman"] is None
    assert "mean of the" not in comparison_page(compare_matches(matches()))


def test_a_scale_is_a_column_that_says_so_beside_the_raw_means() -> None:
    page = comparison_page(compare_matches(matches()[:1]), scales={"clip": 100.0, "reward": 1.0})
    head = cells(page, "| metric")
    plain, scaled = (
        dict(zip(head, cells(page, f"| {m}"), strict=True)) for m in ("reward", "clip")
    )
    assert plain["mean b"] == scaled["mean b"] == "0.88"
    assert plain["difference [95 %]"] == scaled["difference [95 %]"]
    assert plain["scaled: mean a, mean b"] == ""
    assert scaled["scaled: mean a, mean b"] == "x100: 0, 88"
    assert "scaled:" not in comparison_page(compared(), scales={"reward": 1.0})


def test_names_and_notes_are_no_markup() -> None:
    nasty = "a|b *c* <d> _e_ [f](g) `h` x_y\nz"
    (row,) = compare_models({nasty: BASE["reward"]}, {nasty: {nasty: BETTER["reward"]}})
    page = comparison_page([row], base=nasty, sources={nasty: "p|q_r"}, notes=["1 < 2 | 3"])
    shown = r"a\|b \*c\* \<d\> \_e\_ \[f\](g) \`h\` x_y z"
    assert f"## {shown} (b) against {shown} (a)" in page
    assert f"| {shown} | 8 | 8 |" in page
    assert f"| {shown} | p\\|q_r |" in page
    assert "- 1 \\< 2 \\| 3" in page
    assert nasty not in page


@pytest.mark.parametrize(("unit", "shown"), [(0.001, "+0.00088"), (1000.0, "+875.00")])
def test_decimals_follow_the_scale_of_the_metric(unit: float, shown: str) -> None:
    better = {"reward": [row._replace(value=unit * row.value) for row in BETTER["reward"]]}
    page = comparison_page(compare_models(BASE, {"sdpo": better}))
    assert f"| {shown} [" in page


def test_one_prompt_gives_no_interval_and_valid_json() -> None:
    single = {"reward": of_prompts([0.5])}
    rows = compare_models(single, {"sdpo": single})
    assert "| +0.0000 [none] |" in comparison_page(rows)
    text = json.dumps(comparison_content(rows), allow_nan=False)
    found = json.loads(text)["comparisons"][0]
    assert found["difference"] == {"value": 0.0, "low": None, "high": None}


def test_the_content_is_the_records() -> None:
    rows = compared(categories=STYLES)
    content = json.loads(json.dumps(comparison_content(rows), allow_nan=False))
    assert content["holm_over"] == 2
    first, record = content["comparisons"][0], rows[0].comparison
    assert (first["model"], first["metric"], first["holm_test"]) == ("sdpo", "reward", "sign")
    assert (first["wins"], first["ties"], first["losses"]) == (7, 1, 0)
    assert first["win_rate"] == record.win_rate._asdict()
    assert first["p_holm"] == rows[0].p_holm
    assert first["macro"]["categories"]["photo"]["value"] == 1.0
    assert first["macro"]["average"]["value"] == 0.875
    photo = first["categories"]["photo"]
    assert (photo["images"], photo["wins"], photo["win_rate"]["value"]) == (4, 4, 1.0)
    assert first["macro_win_rate"]["value"] == 7.5 / 8
    without = comparison_content(compared())["comparisons"][0]
    assert without["macro"] is None
    assert without["categories"] is None


def test_nothing_compared_is_a_page_of_terms_only() -> None:
    assert "|" not in comparison_page(())
    assert comparison_content(()) == {"holm_over": 0, "comparisons": [], "averages": []}


def test_the_documented_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```py\n(.*?)```", DOCUMENTED.read_text(), re.DOTALL)
    exec(compile(code, DOCUMENTED.name, "exec"), {})
    # Prompts 0, 4, .. tie: 15 of 20 won, and a mean change of (0 + 1 + 2 + 3) / 4 hundredths.
    row = cells(capsys.readouterr().out, "| reward")
    assert row[1:3] == ["20", "40"]
    assert row[5].startswith("+0.0150 [")
    assert row[7].startswith("0.875 [")
