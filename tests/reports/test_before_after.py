"""Tables and pictures of base against tuned, from plain arrays."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdpo_exp.reports.before_after import plot_before_after, write_evaluation
from sdpo_exp.reports.summary import format_summary, write_summary

BASE = {"reward": np.array([0.2, 0.4, 0.6]), "exact": np.array([0.0, 1.0, 1.0])}
TUNED = {"reward": np.array([0.3, 0.4, 0.8]), "exact": np.array([1.0, 1.0, 1.0])}
PROMPTS = ["a, b", 'c "quoted"', "d"]


def test_changes_are_paired_row_by_row(tmp_path: Path) -> None:
    content = write_evaluation(tmp_path, "three images", PROMPTS, BASE, TUNED)
    assert content == json.loads((tmp_path / "evaluation.json").read_text())
    reward = content["scores"]["reward"]
    assert reward["base"]["mean"] == pytest.approx(0.4)
    assert reward["change"]["mean"] == pytest.approx(0.1)
    # Differences 0.1, 0.0, 0.2: standard deviation 0.1.
    assert reward["change"]["standard_error"] == pytest.approx(0.1 / math.sqrt(3))


def test_one_prompt_gives_no_error_and_valid_json(tmp_path: Path) -> None:
    single = {"reward": np.array([0.5])}
    write_evaluation(tmp_path, "one image", ["a"], single, single)
    text = (tmp_path / "evaluation.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["scores"]["reward"]["change"]["standard_error"] is None
    summary = write_summary(tmp_path, status="finished", seconds=1.0)
    assert "+0.000" in format_summary(summary)


def test_the_summary_shows_the_comparison_on_terminal_and_page(tmp_path: Path) -> None:
    write_evaluation(tmp_path, "three images", PROMPTS, BASE, TUNED)
    (tmp_path / "metrics.csv").write_text(
        "probe/winner_minus_ref,probe/winner_minus_ref_se,step,train/loss\n"
        "0.0,0.0,0,\n,,1,0.5\n-0.25,0.125,2,0.5\n"
    )
    summary = write_summary(tmp_path, status="finished", seconds=1.0)
    said = [line.split() for line in format_summary(summary).splitlines()]
    assert ["reward", "0.400", "0.500", "+0.100", "0.058"] in said
    assert ["winner", "drift", "0.0000", "-0.2500", "-0.2500", "0.1250"] in said
    page = (tmp_path / "summary.md").read_text()
    assert "| reward | 0.400 | 0.500 | +0.100 | 0.058 |" in page
    assert "| three images | base | tuned | change | s.e. |" in page


def test_a_mean_that_is_no_number_is_said_and_not_a_crash(tmp_path: Path) -> None:
    broken = {"reward": np.array([np.nan, 0.5])}
    write_evaluation(tmp_path, "two images", ["a", "b"], broken, broken)
    summary = write_summary(tmp_path, status="finished", seconds=1.0)
    assert "reward nan nan nan -" in " ".join(format_summary(summary).split())


def test_a_resumed_probe_claims_no_error_of_a_change_from_the_base(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "probe/winner_minus_ref,probe/winner_minus_ref_se,step\n0.1,0.05,240\n0.2,0.05,480\n"
    )
    said = format_summary(write_summary(tmp_path, status="finished", seconds=1.0))
    line = next(line for line in said.splitlines() if line.startswith("winner drift"))
    assert line.split()[-3:] == ["0.1000", "0.2000", "+0.1000"]
    assert "first" in said
    assert "base" not in said


@pytest.mark.parametrize("count", [1, 12, 30])
def test_the_picture_has_base_left_and_tuned_right(tmp_path: Path, count: int) -> None:
    red, green = np.zeros((2, count, 8, 8, 3), np.uint8)
    red[..., 0] = green[..., 1] = 255
    prompts = ["a caption for $5 and $6"] * count
    plot_before_after(tmp_path / "p" / "x.png", prompts, red, green)
    pixels = np.asarray(Image.open(tmp_path / "p" / "x.png").convert("RGB")).reshape(-1, 3)
    width = Image.open(tmp_path / "p" / "x.png").width
    columns = [np.flatnonzero((pixels == c).all(1)) % width for c in ([255, 0, 0], [0, 255, 0])]
    assert columns[0].min() < columns[1].min()
    shown = [len(c) for c in columns]
    assert shown[0] == pytest.approx(shown[1], rel=0.05)
    assert shown[0] > 1000 * min(count, 12)
