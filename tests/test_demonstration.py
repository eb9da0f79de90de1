"""The default run learns, and the safeguard prevents what plain DPO does to winners and images.

The full default training, and a part of the one without the safeguard: what README's table shows,
within the spread over seeds.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import run, run_folders


def outcome(folder: Path, safeguard: str, *less: str) -> dict[str, float]:
    """Last probe, and the reward of the tuned images minus that of the base's."""
    done = run(folder, f"safeguard={safeguard}", f"name={safeguard}", *less)
    assert done.returncode == 0, done.stderr
    (run_folder,) = run_folders(folder, safeguard)
    summary = json.loads((run_folder / "summary.json").read_text())
    probe = {name.removeprefix("probe/"): v["last"] for name, v in summary["probe"].items()}
    return {**probe, "reward": summary["evaluation"]["scores"]["reward"]["change"]["mean"]}


@pytest.mark.slow
def test_the_default_run_learns_and_harms_neither_winner_nor_images(tmp_path: Path) -> None:
    on = outcome(tmp_path, "on", "evaluation.n=128")
    assert on["implicit_accuracy"] > 0.65
    assert on["margin"] > 0.008
    assert on["winner_minus_ref"] < 0.002
    assert on["reward"] > 0.0  # this seed +0.018, standard error over captions 0.004


@pytest.mark.slow
def test_without_the_safeguard_winner_and_images_get_worse(tmp_path: Path) -> None:
    off = outcome(tmp_path, "off", "max_steps=100", "evaluation.n=64")
    assert off["implicit_accuracy"] > 0.65
    assert off["winner_minus_ref"] > 0.03
    assert off["reward"] < -0.02  # this seed -0.126, standard error over captions 0.022
