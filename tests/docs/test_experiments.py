"""The scripts of the committed studies run on real run folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli.command import ROOT, environment, run


def test_the_first_look_s_table_reads_runs(tmp_path: Path) -> None:
    limits = ("max_steps=1", "callbacks=[winner_loss,lambda_statistics,probe]")
    small = ("callbacks.probe.pairs=4", "callbacks.probe.times=[0.5]")
    sweep = ("-m", "name=first_look", "seed=0,1", "safeguard=on,off")
    assert run(tmp_path, *sweep, *limits, *small).returncode == 0
    script = ROOT / "experiments" / "first_look" / "table.py"
    done = subprocess.run(
        [sys.executable, script, "outputs/first_look"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    table = done.stdout.splitlines()
    assert table[0].startswith("| safeguard | runs | winner_minus_ref |")
    assert [line.split("|")[1:3] for line in table[2:]] == [[" on ", " 2 "], [" off ", " 2 "]]
