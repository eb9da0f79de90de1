"""One model's table: means, errors by cluster, scales that say what they are."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sdpo_exp.evaluation.comparison import ImageKey, PromptKey, Score
from sdpo_exp.reports.evaluation import evaluation_page, evaluation_table, summarise

TEXTS = {PromptKey("s", i): text for i, text in enumerate(["cat", "dog", "cat"])}
LABELS = {"kind": {PromptKey("s", 0): "a", PromptKey("s", 1): "b|c"}}


def scores(*rows: tuple[int, int, float]) -> list[Score]:
    return [Score(ImageKey("s", prompt, seed), value) for prompt, seed, value in rows]


def test_one_seed_of_different_prompts_is_the_plain_mean() -> None:
    found = summarise(scores((0, 0, 0.2), (1, 0, 0.4)), TEXTS, {})
    assert (found["images"], found["prompts"]) == (2, 2)
    assert found["mean"] == pytest.approx(0.3)
    assert found["standard_error"] == pytest.approx(0.1)


def test_seeds_and_repeats_of_a_text_are_one_cluster() -> None:
    rows = ((0, 0, 0.1), (0, 1, 0.3), (2, 0, 0.2), (1, 0, 0.6))
    found = summarise(scores(*rows), TEXTS, {})
    assert (found["images"], found["prompts"]) == (4, 2)
    # Sums minus mean times size: cat 0.6 - 3 * 0.3 = -0.3, dog 0.3; of two clusters.
    assert found["mean"] == pytest.approx(0.3)
    assert found["standard_error"] == pytest.approx(math.sqrt(2 * 2 * 0.3**2) / 4)


def test_labels_have_means_of_their_own() -> None:
    found = summarise(scores((0, 0, 0.2), (1, 0, 0.4), (2, 0, 0.9)), TEXTS, LABELS)["by_label"]
    assert found["kind"]["a"]["mean"] == pytest.approx(0.2)
    assert found["kind"]["b|c"]["mean"] == pytest.approx(0.4)
    assert found["kind"]["a"]["standard_error"] is None  # a single prompt has no spread


def content(**more: Any) -> dict[str, Any]:
    metric = summarise(scores((0, 0, 0.2), (1, 0, 0.22)), TEXTS, LABELS)
    metrics = {
        "pickscore": {"display_scale": 100.0, "cut_prompts": 3, **metric},
        "aesthetic": {"display_scale": 1.0, "cut_prompts": 0, **metric},
    }
    return {"name": "m|n", "prompts": {"name": "papv2"}, "metrics": metrics, **more}


def test_the_table_says_which_scale_it_is() -> None:
    title, header, pick, aesthetic, *notes = evaluation_table(content()).splitlines()
    assert title == "m|n: papv2"
    assert header.split("  ")[-1].strip() == "x100"
    assert pick.split() == [
        "pickscore", "2", "2", "0.2100", "0.0100", "[0.0829,", "0.3371]", "21.00"
    ]  # fmt: skip
    assert aesthetic.split()[-1] == "0.3371]"
    assert "Means on the metrics' own scale; x100 where papers print it so." in notes
    assert "pickscore reads only the beginning of 3 prompts." in notes


def test_the_page_is_markdown_with_a_table_by_label() -> None:
    page = evaluation_page(content(prompts=None))
    assert page.startswith("# m\\|n\n")
    assert "## By kind" in page
    assert "| pickscore, b\\|c | 1 | 1 | 0.2200 |  |  | 22.00 |" in page
