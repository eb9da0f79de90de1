"""The benchmark of the cache runs small, and its recorded result is what the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import ROOT, python


@pytest.mark.slow
def test_steps_with_and_without_a_cache_are_timed_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    small = ("--resolution", "32", "--steps", "2", "--warm-up", "1", "--out", out)
    done = python(ROOT, "-m", "benchmarks.cache_step_time", *small)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["steps"] == 2
    assert len(found["cells"]) == 4
    for cell in found["cells"]:
        seconds = cell["seconds"]
        assert cell["ratio"] == pytest.approx(seconds["live"] / seconds["cached"])
        assert cell["losses_equal"] is True


def test_the_page_has_the_ratios_of_the_gpu() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "gpu_h100.json").read_text())
    most = {"sd15-full": 16, "sdxl-lora": 4}
    took = {
        (cell["group"], cell["way"]): cell["seconds"]
        for cell in found["cells"]
        if "seconds" in cell and cell["pairs"] == most[cell["group"]]
    }
    page = (ROOT / "docs" / "cache.md").read_text()
    for group, way in (("sd15-full", "eager"), ("sd15-full", "compiled"), ("sdxl-lora", "eager")):
        assert f"{took[group, way] / took[group, f'{way}, cached']:.2f} times" in page


def test_the_page_has_the_recorded_ratios() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "cache_step_time.json").read_text())
    page = " ".join((ROOT / "docs" / "cache.md").read_text().split())
    assert found["resolution"] == 128
    for cell in found["cells"]:
        assert cell["losses_equal"] is True
        assert f"| {cell['tuning']} | {cell['pairs']} | {cell['ratio']:.2f} |" in page
