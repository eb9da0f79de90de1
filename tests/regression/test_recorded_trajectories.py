"""Recorded trajectories of the tiny model: a change of any number shows here first.

After a deliberate change: `python -m tests.regression.test_recorded_trajectories`, and a line under
"changes numbers" in the changelog.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.cli.command import metric_rows, run, run_folders

RECORD = Path(__file__).with_name("trajectories.json")
# One command line each; a sweep where cells share all but one choice.
COMMANDS = {
    "dpo": ("-m", "objective=dpo", "safeguard=on", "safeguard.official_compat=false,true"),
    "others": ("-m", "objective=dmpo,sft", "safeguard=weighted,off"),
}
KEYS = ("train/loss", "pair/winner_error", "pair/margin", "safeguard/lambda_mean")
LIMITS = (
    "max_steps=4",
    "lr=1e-3",
    "warmup_steps=0",
    "callbacks=[winner_loss,lambda_statistics]",
    "evaluation=off",
)


def cell_key(folder: Path) -> str:
    """What was chosen; a folder's own name is cut off before the last labels."""
    compat = OmegaConf.load(folder / "config.yaml").safeguard.get("official_compat")
    return "-".join([*folder.parent.name.split("-")[:3], *(["compat"] if compat else [])])


def trajectories(folder: Path, command: str) -> dict[str, dict[str, list[float]]]:
    done = run(folder, *COMMANDS[command], *LIMITS, f"name={command}")
    assert done.returncode == 0, done.stderr
    return {
        cell_key(cell): {key: [float(row[key]) for row in metric_rows(cell)] for key in KEYS}
        for cell in run_folders(folder, command)
    }


@pytest.mark.parametrize(
    "command", ["dpo", *(pytest.param(c, marks=pytest.mark.slow) for c in COMMANDS if c != "dpo")]
)
def test_numbers_are_those_recorded(tmp_path: Path, command: str) -> None:
    recorded = json.loads(RECORD.read_text())[command]
    measured = trajectories(tmp_path, command)
    assert set(measured) == set(recorded)
    for cell, series in measured.items():
        for key, values in series.items():
            # Kernels differ between processors in the last bits; four steps amplify them.
            assert values == pytest.approx(recorded[cell][key], rel=2e-3, abs=1e-5), (cell, key)


def record() -> None:
    """Write the file anew."""
    with tempfile.TemporaryDirectory() as folder:
        table = {command: trajectories(Path(folder), command) for command in COMMANDS}
    RECORD.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    record()
