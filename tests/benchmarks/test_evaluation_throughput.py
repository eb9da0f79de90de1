"""The benchmark of drawing and scoring runs, and its ways draw the same images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import ROOT, python


@pytest.mark.slow
def test_all_ways_are_timed_on_the_same_images(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "evaluation_throughput.py"
    arguments = ("--prompts", "6", "--batch", "3", "--out", "found.json")
    done = python(tmp_path, script, *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["seconds"]) == ["one by one", "batched", "batched, two processes"]
    one = found["seconds"]["one by one"]
    assert one["both"] == pytest.approx(one["drawing"] + one["scoring"])
    for name, way in found["seconds"].items():
        assert found["ratio"][name] == pytest.approx(one["both"] / way["both"])
    assert found["pixels_one_level_off"] <= 1e-3
    assert "batched, two processes" in done.stdout
