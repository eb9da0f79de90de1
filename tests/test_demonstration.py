"""The default run learns, and the safeguard keeps the winner where plain DPO raises its error.

The full default run, twice: what README's table shows, within the spread over seeds.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import run, run_folders


def probe(folder: Path, safeguard: str) -> dict[str, float]:
    done = run(folder, f"safeguard={safeguard}", f"name={safeguard}")
    assert done.returncode == 0, done.stderr
    (run_folder,) = run_folders(folder, safeguard)
    summary = json.loads((run_folder / "summary.json").read_text())
    return {name.removeprefix("probe/"): v["last"] for name, v in summary["probe"].items()}


@pytest.mark.slow
def test_the_default_run_learns_without_harming_the_winner(tmp_path: Path) -> None:
    on = probe(tmp_path, "on")
    assert on["implicit_accuracy"] > 0.65
    assert on["margin"] > 0.008
    assert on["winner_minus_ref"] < 0.005


@pytest.mark.slow
def test_without_the_safeguard_the_winner_gets_worse(tmp_path: Path) -> None:
    off = probe(tmp_path, "off")
    assert off["implicit_accuracy"] > 0.65
    assert off["winner_minus_ref"] > 0.02
