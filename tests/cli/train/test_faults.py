"""A run that is interrupted or killed keeps what it saved, and goes on from there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.cli.command import environment, metric_rows, run, run_folders

QUICK = (
    "callbacks=[winner_loss,checkpoint]",
    "callbacks.checkpoint.every_n_steps=2",
    "evaluation=off",
)


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sdpo_exp", "max_steps=500", *QUICK],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that were started in the background inherit an ignored interrupt.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob("outputs/run/*/*/checkpoints/step=*.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_a_stopped_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, how: signal.Signals
) -> None:
    process = start(tmp_path)
    wait_for_checkpoint(process, tmp_path)
    process.send_signal(how)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode != 0
    (stopped,) = run_folders(tmp_path)
    if how is signal.SIGINT:
        onward = re.search(r"interrupted; go on with: python -m sdpo_exp (resume=\S+)", complaint)
        assert onward is not None
        assert tmp_path / onward[1].removeprefix("resume=") == run_folders(tmp_path)[0]
        assert "Traceback" not in complaint
        assert json.loads((stopped / "summary.json").read_text())["status"] == "interrupted"
    before = metric_rows(stopped)
    (newest,) = (stopped / "checkpoints").glob("step=*.ckpt")
    at = int(newest.stem.split("=")[1])
    assert len(before) >= at
    limits = (f"max_steps={at + 1}", "name=again", *QUICK)
    done = run(tmp_path, f"resume={stopped}", *limits)
    assert done.returncode == 0, done.stdout + done.stderr
    (resumed,) = run_folders(tmp_path, "again")
    steps = [row["step"] for row in metric_rows(resumed) if row["train/loss"]]
    assert steps == [str(step) for step in range(1, at + 2)]
    assert metric_rows(stopped) == before  # the stopped run's folder is left alone
