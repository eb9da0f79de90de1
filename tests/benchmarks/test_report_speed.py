"""The benchmark of the report runs, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import ROOT, python


@pytest.mark.slow
def test_the_report_of_few_runs_is_timed(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    limits = ("--runs", "20", "--steps", "20", "--out", out)
    done = python(ROOT, "-m", "benchmarks.report_speed", *limits)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert (found["runs"], found["cells"], found["steps"]) == (20, 4, 20)
    seconds, size = found["seconds"], found["megabytes"]
    assert seconds["all"] == pytest.approx(seconds["gather"] + seconds["write"])
    assert 0 < size["without_plotly"] < size["page"]
    assert "20 runs of 20 steps, 4 cells" in done.stdout
