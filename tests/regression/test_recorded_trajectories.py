"""Recorded trajectories of the tiny model: a change of any number shows here first.

After a deliberate change: `python -m tests.regression.test_recorded_trajectories`, and a line under
"changes numbers" in the changelog.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from tests.cli.command import metric_rows, run, run_folders

RECORD = Path(__file__).with_name("trajectories.json")
CELLS = {
    "dpo-on": ("objective=dpo", "safeguard=on"),
    "dpo-compat": ("objective=dpo", "safeguard=on", "safeguard.official_compat=true"),
    "dmpo-weighted": ("objective=dmpo", "safeguard=weighted"),
    "dspo-off": ("objective=dspo", "safeguard=off"),
}
KEYS = ("train/loss", "pair/winner_error", "pair/margin", "safeguard/lambda_mean")
LIMITS = ("max_steps=4", "lr=1e-3", "warmup_steps=0", "callbacks=[winner_loss,lambda_statistics]")


def trajectory(folder: Path, cell: str) -> dict[str, list[float]]:
    done = run(folder, *CELLS[cell], *LIMITS, f"name={cell}")
    assert done.returncode == 0, done.stderr
    (run_folder,) = run_folders(folder, cell)
    return {key: [float(row[key]) for row in metric_rows(run_folder)] for key in KEYS}


@pytest.mark.parametrize("cell", CELLS)
def test_numbers_are_those_recorded(tmp_path: Path, cell: str) -> None:
    recorded = json.loads(RECORD.read_text())[cell]
    for key, values in trajectory(tmp_path, cell).items():
        # Kernels differ between processors in the last bits; four steps amplify them a little.
        assert values == pytest.approx(recorded[key], rel=2e-3, abs=1e-5), key


def record() -> None:
    """Write the file anew."""
    with tempfile.TemporaryDirectory() as folder:
        table = {cell: trajectory(Path(folder), cell) for cell in CELLS}
    RECORD.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    record()
