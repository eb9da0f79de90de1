"""A run in words: they follow from intervals, and there is none where there is no interval."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sdpo_exp.evaluation.statistics import wilson_interval
from sdpo_exp.reports.verdict import main_result, verdict, verdict_content


def summary(
    drift: float = 0.0, *, error: float = 0.0001, pairs: int | None = 64, **more: Any
) -> dict[str, Any]:
    last = {
        "winner_minus_ref": drift,
        "winner_minus_ref_se": error,
        "winner_error": 0.2 + drift,
        "margin": 0.03,
        "margin_se": 0.01,
        "implicit_accuracy": 1.0,
        "pairs": pairs,
        **more,
    }
    probe = {f"probe/{k}": {"first": 0.0, "last": v} for k, v in last.items() if v is not None}
    return {"probe": probe, "evaluation": None}


def scored(mean: float | None, error: float | None, low: float, high: float) -> dict[str, Any]:
    change = {"mean": mean, "standard_error": error, "low": low, "high": high}
    return {**summary(), "evaluation": {"scores": {"reward": {"change": change}}}}


def words(content: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {found.subject: (found.word, found.outcome) for found in verdict(content)}


@pytest.mark.parametrize(
    ("drift", "error", "said"),
    [
        (0.0005, 0.0001, ("kept", "good")),  # surely above 0, and below 1 % of 0.2
        (0.01, 0.001, ("worse", "bad")),
        (-0.01, 0.001, ("better", "good")),
        (0.01, 0.01, ("not decided", "open")),
        (0.01, 0.0, ("not decided", "open")),  # no error is not a small one
    ],
)
def test_the_winner(drift: float, error: float, said: tuple[str, str]) -> None:
    assert words(summary(drift, error=error))["winner"] == said


def test_the_main_score() -> None:
    assert words(scored(0.02, 0.01, 0.001, 0.04))["reward"] == ("up", "good")
    assert words(scored(-0.02, 0.01, -0.04, -0.001))["reward"] == ("down", "bad")
    assert words(scored(0.02, 0.02, -0.01, 0.05))["reward"] == ("not decided", "open")
    assert words(scored(0.0, 0.0, 0.0, 0.0))["reward"] == ("unchanged", "open")
    assert "reward" not in words(scored(None, None, 0.0, 0.0))


def test_agreeing_pairs_have_an_interval_that_is_right_at_the_edge() -> None:
    (pairs,) = [found for found in verdict(summary(pairs=4)) if found.subject == "pairs"]
    low = wilson_interval(1.0, 4).low
    assert low == pytest.approx(4 / (4 + 1.959964**2))
    assert str(pairs).endswith(f"accuracy 1.00 [{low:.2f}, 1.00]")


def test_few_pairs_have_wider_intervals_than_many() -> None:
    few, many = (verdict(summary(0.002, error=0.0005, pairs=n))[0].interval for n in (4, 400))
    assert few.low < many.low
    assert few.high - 0.002 == pytest.approx(3.182446 * 0.0005)  # Student's t of 3


def test_earlier_summaries_know_no_number_of_pairs() -> None:
    old = summary(0.01, error=0.001, pairs=None)
    assert verdict(old)[0].interval.low == pytest.approx(0.01 - 1.959964e-3)
    assert "accuracy" not in str(verdict(old)[1])
    assert verdict({"probe": {}, "evaluation": None}) == []


def test_what_is_no_number_is_null_in_the_file() -> None:
    content = verdict_content(verdict(summary(0.01, error=0.0)))
    assert content["text"].startswith("winner not decided: drift +0.0100 [no interval]; pairs ")
    assert content["findings"][0]["low"] is None
    assert not math.isnan(content["findings"][0]["value"])


def test_the_result_of_a_cell_is_its_score_or_its_drift() -> None:
    assert main_result(scored(0.02, 0.01, 0.001, 0.04)) == "reward +0.020 [+0.001, +0.040]"
    assert main_result(summary(0.01, error=0.001)).startswith("winner drift +0.010 [+0.008, ")
    assert main_result({"probe": {}, "evaluation": None}) == ""
